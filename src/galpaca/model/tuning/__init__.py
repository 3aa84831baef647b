"""Which parameters of a model are trained, and so saved and released."""
