"""Gradients of the same steps, computed in many ways."""
