"""``python -m old_runs.adapters`` in ``tests``: makes the fixtures of a run of adapters, by the code as it is.

They were made at the commit that brought adapters, and are not made again: runs that it started must always resume. Of
the run that ended, only its figures and its adapter are kept.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY, HERE = Path(__file__).parents[2], Path(__file__).parent
FIXTURES = HERE / "adapters"
NUM_STEPS, HALF = 12, 6

THEN = (
    "model.path=base",
    "model.dropout=0.3",
    "tuning=qlora",
    "tuning.rank=2",
    "tuning.alpha=4",
    "tuning.dropout=0.2",
    "data=local",
    "data.max_length=64",
    "data.val_fraction=0.2",
    "batch.examples=4",
    "batch.max_tokens=80",
    "optim=adamw",
    "optim.lr=2e-2",
    "optim.eps=1e-5",
    "strategy=single",
    "trainer=cpu",
    f"trainer.max_steps={NUM_STEPS}",
    "trainer.max_epochs=100",
    "trainer.val_every_steps=6",
    "checkpoint.every_steps=6",
    "checkpoint.keep_last=1",
    "checkpoint.asynchronous=false",
    "logger=local",
    "seed=7",
    "data.path=records.json",
    "run.root=runs",
)


def lay_out(folder: Path) -> None:
    """Puts the files that the overrides name into ``folder``; the base is the model of the other old run."""
    shutil.copy(HERE / "records.json", folder)
    shutil.copytree(HERE / "finished" / "model", folder / "base")


def command(name: str) -> list[str]:
    return [sys.executable, str(REPOSITORY / "train.py"), *THEN, f"run.name={name}"]


def make() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lay_out(folder)
        subprocess.run(command("finished"), cwd=folder, check=True)
        hook = (
            f"import sys; sys.path.insert(0, {str(HERE.parent)!r}); from faults.crash import signal_group_at_step; "
            f"signal_group_at_step({HALF + 1}, 9); sys.argv = {command('half')[1:]!r}; "
            f"import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        subprocess.run([sys.executable, "-c", hook], cwd=folder, check=False, start_new_session=True)
        shutil.rmtree(FIXTURES, ignore_errors=True)
        _keep(folder, "half", ("run.json", "config.yaml", "metrics.jsonl", "base", "checkpoints"))
        _keep(folder, "finished", ("metrics.jsonl", "adapter/adapter_model.safetensors"))


def _keep(folder: Path, name: str, kept: Sequence[str]) -> None:
    for item in kept:
        source, target = folder / "runs" / name / item, FIXTURES / name / item
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    record = FIXTURES / name / "run.json"
    if record.exists():
        content = json.loads(record.read_text(encoding="utf-8"))
        content["weights"]["folder"] = "/somewhere/base"
        for start in content["starts"]:
            start["host"] = "machine"
            start["setup"]["folder"] = "runs/half"
            start["command"][:2] = ["python", "train.py"]
        record.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make()
