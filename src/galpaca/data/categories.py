"""The category of each row, where its source has a column for it."""

from collections.abc import Iterable, Sequence

from galpaca.data.sources import Row

COLUMN = "category"
WITHOUT = "(none)"


def categories_of(rows: Sequence[Row]) -> list[str]:
    """The text in each row's column ``category``, ``(none)`` where it has none.

    Returns:
        One for every row; all ``(none)`` where no row has the column.
    """
    found = [row.value.get(COLUMN) if isinstance(row.value, dict) else None for row in rows]
    return [WITHOUT if value is None or not str(value).strip() else str(value).strip() for value in found]


def in_order(categories: Iterable[str]) -> list[str]:
    """Each category once, in the order in which they come."""
    return list(dict.fromkeys(categories))
