"""A model asked by a person: in the terminal, or on a local page."""
