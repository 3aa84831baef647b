"""galpaca beside a plain padded loop of ``transformers``, on GALACTICA's own weights and Alpaca's own records:
``python -m bench.reference``; ``--help`` lists the options.
"""
