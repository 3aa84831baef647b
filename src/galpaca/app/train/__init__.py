"""``python train.py``: from a configuration to a released model; ``run.py`` is the table of contents."""
