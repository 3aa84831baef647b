"""The configuration: its keys, how Hydra composes them, and what it answers to a mistake."""
