"""The category of each row, where its source has a column for it."""

from collections.abc import Iterable, Sequence
from typing import Any

COLUMN = "category"
WITHOUT = "(none)"


def categories_of(values: Sequence[Any]) -> list[str]:
    """The text in each row's column ``category``, ``(none)`` where it has none.

    Args:
        values: of that column; None where a row does not have it.

    Returns:
        One for every row; all ``(none)`` where no row has the column.
    """
    return [WITHOUT if value is None or not str(value).strip() else str(value).strip() for value in values]


def in_order(categories: Iterable[str]) -> list[str]:
    """Each category once, in the order in which they come."""
    return list(dict.fromkeys(categories))
