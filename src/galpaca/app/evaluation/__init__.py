"""``galpaca compare`` and ``galpaca evaluate``: answers, losses and tasks of several models."""
