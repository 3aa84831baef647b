"""Decoders as they are trained: families, weights, attention over packed examples, loss."""
