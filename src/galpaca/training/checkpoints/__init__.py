"""Checkpoints while training goes on: taken, written beside the training, committed, and restored."""
