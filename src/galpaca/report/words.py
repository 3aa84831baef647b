"""Numbers as a person reads them."""

import time


def duration(seconds: float) -> str:
    """``5.2 s``, ``12 min``, ``3 h 05 min``, ``2 d 4 h``."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def size(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.2f} GiB"


def count(number: float) -> str:
    """``950``, ``12.3 k``, ``1.85 M``."""
    for divisor, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if number >= divisor:
            return f"{number / (1e3 if unit == ' k' else divisor):.3g}{unit}"
    return f"{number:,.0f}"


def figure(value: object) -> str:
    """Any figure, to five digits."""
    if value is None:
        return "–"
    return f"{value:,.5g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def moment(seconds: float) -> str:
    """UTC, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
