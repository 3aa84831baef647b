"""In which order content reaches the disk and gets its name."""

import os
from pathlib import Path

import pytest


def disk_order(monkeypatch: pytest.MonkeyPatch, method: str) -> list[str]:
    """Fills with ``sync`` and ``name`` as they happen from now on.

    Args:
        method: of ``Path`` that gives the name, ``rename`` or ``replace``.
    """
    order: list[str] = []
    fsync, rename = os.fsync, getattr(Path, method)

    def sync(descriptor: int) -> None:
        order.append("sync")
        fsync(descriptor)

    def name(self: Path, target: Path) -> object:
        order.append("name")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, method, name)
    return order
