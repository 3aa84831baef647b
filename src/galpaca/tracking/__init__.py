"""Weights & Biases as a view of the run folder: one sender, beside the run and for ``galpaca sync``."""
