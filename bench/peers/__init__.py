"""galpaca beside what a user would take instead: the same OPT, records and recipe, in turns on the same CPU cores.

``python -m bench.peers``; ``--help`` lists the options. Needs ``pip install -c constraints.txt -e '.[bench]'``.
"""
