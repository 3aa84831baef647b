"""Optimizers, each chosen by the ``_target_`` of the group ``optim``, and what every one of them is given."""
