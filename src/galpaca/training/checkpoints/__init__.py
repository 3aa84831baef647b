"""Checkpoints while training continues: taken, written in the background, committed, and restored."""
