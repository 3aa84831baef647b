"""``galpaca rehearse``: a run's life on its own machine, in minutes."""
