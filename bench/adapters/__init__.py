"""galpaca's ways of tuning beside PEFT's LoRA in ``transformers.Trainer``: loss on held-out records, speed, memory.

``python -m bench.adapters``; ``--help`` lists the options. Needs PEFT, which ``pip install -c constraints.txt -e
'.[dev]'`` installs. About a quarter of an hour on 2 cores.

The demo's model, which has learned to answer one question at a time, is tuned to answer two. All words of the answers
are known to it, as to a pre-trained model: adapters leave the embedding as it is.
"""
