"""``python -m bench.timelines``: traces a step of every kind, and writes ``src/galpaca/estimate/timelines.json``.

A quarter of an hour on two cores. With ``--only WORD`` kinds whose names have it are made anew, others stay.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.timelines.kinds import Kind, all_kinds
from bench.timelines.reduce import timeline
from galpaca.estimate.timeline import FILE, LIKE, read_all
from galpaca.fake_cuda.process import command

_CARD = "h100"
# Of one process, whose memory grows with what it compiles.
_CHUNK = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.timelines", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="parts of the names of kinds")
    parser.add_argument("--missing", action="store_true", help="only kinds that the file has not")
    given = parser.parse_args()
    made = read_all() if FILE.is_file() else {}
    kinds = [
        kind
        for kind in all_kinds()
        if any(word in kind.name for word in given.only) and not (given.missing and kind.name in made)
    ]
    for kind, content in timelines(kinds):
        made[kind.name] = content
        print(kind.name, flush=True)
        write(FILE, {kind.name: made[kind.name] for kind in all_kinds() if kind.name in made})
    return 0


def timelines(kinds: Sequence[Kind]) -> Iterator[tuple[Kind, dict[str, Any]]]:
    """Of each kind its timeline: of a step's only micro-batch, and of its last one."""
    chunks = []
    for alone in (True, False):  # a process is of one number of ranks
        same = [kind for kind in kinds if (kind.strategy == "single") == alone]
        chunks += [same[start : start + _CHUNK] for start in range(0, len(same), _CHUNK)]
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        failed = []
        for done in as_completed([pool.submit(_made, chunk) for chunk in chunks]):
            if error := done.exception():
                failed.append(str(error))
            else:
                yield from done.result()
    if failed:
        sys.exit("\n".join(failed))


def _made(kinds: Sequence[Kind]) -> list[tuple[Kind, dict[str, Any]]]:
    line = command(_CARD, "bench.timelines.worker")
    request = json.dumps([asdict(kind) for kind in kinds])
    done = subprocess.run(line, input=request, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{', '.join(kind.name for kind in kinds)}: ended with {done.returncode}")
    made = []
    for answer in done.stdout.splitlines():
        fields, windows, gradients = json.loads(answer)
        kind = Kind(**fields)
        made.append(
            (kind, {"only": timeline(kind, windows["only"]), "last": timeline(kind, windows["last"], gradients)})
        )
    return made


def compact(content: Mapping[str, Any]) -> dict[str, Any]:
    """Without what a reader takes from elsewhere: parts like the layers in the middle, and last like only."""
    found: dict[str, Any] = {}
    for name, whole in content.items():
        only, last = whole["only"], whole["last"]
        found[name] = {
            "only": {part: value for part, value in only.items() if value != only.get(LIKE.get(part, ""))},
            "last": {part: value for part, value in last.items() if value != only[part]},
        }
    return found


def write(path: Path, content: dict[str, Any]) -> None:
    """A line for each part of a timeline, so that a change shows."""
    lines = []
    for name, micro_batches in compact(content).items():
        inner = [
            f'  "{which}": {{\n'
            + ",\n".join(f'   "{part}": {json.dumps(value)}' for part, value in parts.items())
            + "\n  }"
            for which, parts in micro_batches.items()
        ]
        lines.append(f' "{name}": {{\n' + ",\n".join(inner) + "\n }")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
