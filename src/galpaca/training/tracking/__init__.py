"""Weights & Biases: a run's lines, each once, however often the run is killed, and whatever the network does."""
