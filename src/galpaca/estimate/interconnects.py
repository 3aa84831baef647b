"""What carries data between nodes: bytes per second of one node, in one direction."""

from __future__ import annotations

from galpaca.errors import InputError

# 10^9 bytes per second that programs get of each, about nine tenths of the nominal.
_TABLE = {
    "ethernet-10": 1.1,
    "ethernet-25": 2.8,
    "ethernet-100": 11.0,
    "hdr100": 11.0,
    "hdr200": 22.0,
    "ndr400": 44.0,
    "slingshot-200": 22.0,
    "2x-hdr200": 44.0,
    "4x-hdr200": 88.0,
    "4x-slingshot-200": 88.0,
    "4x-ndr400": 176.0,
    "8x-ndr400": 352.0,
}
USUAL = "hdr200"
_SLOWEST, _FASTEST = 0.01, 10_000.0


def node_gb_per_second(name: str) -> float:
    """Of an interconnect by its name, or of a number of 10^9 bytes per second.

    Raises:
        InputError: there is none of the name.
    """
    if (found := _TABLE.get(name.lower())) is not None:
        return found
    try:
        value = float(name)
        if _SLOWEST <= value <= _FASTEST:
            return value
    except ValueError:
        pass
    raise InputError(
        f"there is no interconnect {name!r} in the table",
        where="--interconnect",
        fix=f"one of {', '.join(_TABLE)}; or 10^9 bytes per second of a node, e.g. --interconnect 22",
    )
