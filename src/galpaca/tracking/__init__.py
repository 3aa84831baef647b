"""Weights & Biases as a view of the run folder: one sender, during the run and for ``galpaca sync``."""
