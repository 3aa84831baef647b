"""Records how memory goes up and down in a training step, for ``galpaca.estimate.timeline``."""
