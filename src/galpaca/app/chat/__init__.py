"""A person talks to a model: in the terminal, or on a local page."""
