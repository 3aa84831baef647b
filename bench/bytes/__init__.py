"""Bytes that an optimizer step moves in a card's memory beside its matrix products, counted without a card."""
