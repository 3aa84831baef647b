"""Writes ``tests/fake_cuda/moved_bytes.json``: what layers and update move on a pretended card, which may not grow.

``python scripts/make_moved_bytes.py`` takes some minutes; a number that has grown is shown, and written all the same.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from fake_cuda import cases  # noqa: E402 - found by the line above
from fake_cuda.layers import MOVED, committed, growth, moved_bytes  # noqa: E402

from galpaca.fake_cuda.process import command  # noqa: E402


def main() -> None:
    before = committed() if MOVED.exists() else {}
    now: dict[str, dict[str, int]] = {}
    for card, of_card in cases.MANY.items():
        for name, found in on_card(card, "fake_cuda.microscope", json.dumps(of_card)).items():
            now[f"{card} {name}"] = moved_bytes(found)
    updates = on_card(cases.UPDATE_CARD, "fake_cuda.updates", json.dumps(cases.UPDATES))
    for case, found in zip(cases.UPDATES, updates, strict=True):
        now[f"{cases.UPDATE_CARD} {cases.update_name(case)}"] = found["moved_bytes"]
    for name, of_case in now.items():
        for what, grown in growth(before.get(name, of_case), of_case).items():
            print(f"{name}: {what} {grown}")
    MOVED.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


def on_card(card: str, module: str, argument: str) -> Any:
    path = os.pathsep.join(map(str, [REPOSITORY / "src", REPOSITORY, REPOSITORY / "tests"]))
    done = subprocess.run(
        command(card, module, argument),
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
