"""Writes what is generated of the documentation: the configuration reference, the figures of benchmarks, the table of
cards, what the experiments take, where scaling stops.

    python scripts/make_reference.py

Nothing of it is edited by hand; tests/docs/test_reference.py fails where a page is not what this script writes.
"""

from __future__ import annotations

from pathlib import Path

import configuration_reference
import experiment_headers
import measured_figures
import memory_table
import scaling_table

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    """Every page that is generated, in whole or in parts, with its text."""
    measured = (REPOSITORY / name for name in ("README.md", "bench/README.md"))
    one_gpu = REPOSITORY / "docs" / "one-gpu.md"
    scaling = REPOSITORY / "docs" / "scaling.md"
    headers = experiment_headers.experiments()
    return {
        one_gpu: memory_table.filled(one_gpu.read_text(encoding="utf-8")),
        scaling: scaling_table.filled(scaling.read_text(encoding="utf-8")),
        REPOSITORY / "docs" / "configuration-reference.md": configuration_reference.page(),
        **{path: experiment_headers.filled(path, path.read_text(encoding="utf-8")) for path in headers},
        **{path: measured_figures.filled(path.read_text(encoding="utf-8")) for path in measured},
    }


if __name__ == "__main__":
    main()
