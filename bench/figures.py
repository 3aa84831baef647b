"""Figures of a run's steps, which its file may lack and a benchmark cannot do without."""

from __future__ import annotations


def known(figure: float | None) -> float:
    """The figure.

    Raises:
        ValueError: it is missing, or was not finite.
    """
    if figure is None:
        raise ValueError("a step lacks a figure that the benchmark needs")
    return figure
