"""``galpaca rehearse``: a run from start to release on its own machine, in minutes."""
