"""Numbers as a person reads them."""

import time
from collections.abc import Iterable


def format_duration(seconds: float) -> str:
    """``5.2 s``, ``12 min``, ``3.1 h``, ``2 d 4 h``."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{seconds / 3600:.1f} h"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def format_bytes(num_bytes: float) -> str:
    """``512 B``, ``3.2 MiB``, ``1.25 GiB``, ``80.4 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" or num_bytes >= 100 else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.{2 if num_bytes < 10 else 1}f} GiB"


def format_count(number: float) -> str:
    """``9,500``, ``12.3 K``, ``1.85 M``, ``1.5 B``."""
    for least, divisor, unit in ((1e12, 1e12, "T"), (1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "K")):
        if number >= least:
            return f"{number / divisor:.3g} {unit}"
    return f"{number:,.0f}"


def format_or(value: float | None, how: str, absent: str = "-") -> str:
    """A number in a format of Python's, or what stands for none."""
    return absent if value is None else f"{value:{how}}"


def format_figure(value: object) -> str:
    """Any figure, to five digits."""
    if value is None:
        return "–"
    return f"{value:,.5g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def markdown_row(cells: Iterable[object]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def format_moment(seconds: float) -> str:
    """A time since 1970 in UTC, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
