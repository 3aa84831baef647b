"""Writes the run folders beside this file, with the code of the commit that they are of.

    python -m old_runs.make          # in tests/, with the repository in PYTHONPATH

``finished`` ran through; ``half`` is the same run, killed half-way with SIGKILL. Both are of two FSDP processes, whose
checkpoints hold ranges that begin and end within a parameter. They are data, never made again: the point is that they
are as that commit left them. Only what names the machine is replaced.
"""

import json
import shutil
import tempfile
from pathlib import Path

from old_runs.small_run import COMMIT, HALF, HERE, STRATEGIES, THEN, lay_out

from bench.old_runs import Checkout, kill_half_way, worktree


def main() -> None:
    overrides = (*THEN, *STRATEGIES["fsdp"])
    with worktree(COMMIT) as then, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder, then.tokenizer)
        then.run(then.train_py, *overrides, "run.name=finished", folder=folder)
        kill_half_way(then, folder, [*overrides, "run.name=half"], folder / "runs" / "half", HALF)
        for run in (folder / "runs" / "finished", folder / "runs" / "half"):
            _make_anonymous(run, then)
            shutil.rmtree(HERE / run.name, ignore_errors=True)
            shutil.copytree(run, HERE / run.name, ignore=shutil.ignore_patterns("run.lock"))


def _make_anonymous(run: Path, then: Checkout) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for start in record["starts"]:
        start["host"] = "machine"
        start["command"][:2] = ["python", "train.py"]
    (run / "run.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    report = run / "report.html"
    if report.is_file():
        then.run("-m", "galpaca", "report", run.name, folder=run.parent)
        report.write_text(report.read_text(encoding="utf-8").replace(str(run.parent), "runs"), encoding="utf-8")


if __name__ == "__main__":
    main()
