"""The files of a run. Its folder is named by the run, not by the time, so that a run can be resumed."""

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from galpaca.errors import InputError

_STEP_NAME = re.compile(r"step-(\d{8})")


class _Inside:
    """The path of what has a fixed name in the run folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: "RunFolder", _: type) -> Path:
        return folder.path / self.name


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run: ``<root>/<name>/`` and its content.

    Attributes:
        config: the resolved configuration.
        record: provenance, receipt, plan and final figures.
        metrics: one line per step, and one per validation.
        samples: sample answers during training: a line for each step and question.
        system: figures of the machine by time, costs of checkpoints, and alerts, of a run that is shown at W&B.
        wandb: W&B's working files, and a note of what has arrived there.
        wandb_lock: held by the process that sends the run to W&B.
        non_finite: one line for every step whose loss or gradient was not finite: where, and for which examples.
        report: the HTML report.
        stacks: stack traces of each rank when the run hung; a folder for each start.
        base: the model's configuration, tokenizer and template: with a checkpoint, all that a release is made of.
        model: the released Hugging Face folder.
        adapter: the released adapter, as PEFT reads it.
    """

    root: Path
    name: str

    config = _Inside("config.yaml")
    record = _Inside("run.json")
    metrics = _Inside("metrics.jsonl")
    samples = _Inside("samples.jsonl")
    system = _Inside("system.jsonl")
    wandb = _Inside("wandb")
    wandb_lock = _Inside("wandb.lock")
    non_finite = _Inside("non_finite.jsonl")
    report = _Inside("report.html")
    lock = _Inside("run.lock")
    checkpoints = _Inside("checkpoints")
    stacks = _Inside("stacks")
    base = _Inside("base")
    model = _Inside("model")
    adapter = _Inside("adapter")

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w][\w.=+-]*(/[\w][\w.=+-]*)*", self.name):
            raise InputError(
                f"must be a valid folder name, got {self.name!r}",
                where="run.name",
                fix="use letters, digits and . _ - = +, e.g. run.name=galpaca67b-lr1e-5",
            )

    @property
    def path(self) -> Path:
        return self.root / self.name

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}"

    def saved_steps(self) -> list[int]:
        """Steps of all committed checkpoints, oldest first."""
        names = [entry.name for entry in self.checkpoints.iterdir()] if self.checkpoints.is_dir() else []
        return sorted(step for step in map(step_of, names) if step is not None)

    def has_all(self, names: Iterable[str]) -> bool:
        """Whether folders of these names are there, each of which is whole if it is."""
        return all((self.path / name).is_dir() for name in names)

    def last_saved_step(self) -> int:
        """Step of the newest checkpoint; 0 if there is none."""
        return (self.saved_steps() or [0])[-1]

    def discard(self) -> None:
        """Removes the folder if it contains nothing but the lock."""
        self.lock.unlink(missing_ok=True)
        with suppress(OSError):  # it holds something else after all
            self.path.rmdir()

    def create(self) -> None:
        """Creates the folder and checks that it is writable.

        Raises:
            InputError: it is not.
        """
        probe = self.path / f".probe-{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"galpaca")
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"cannot write to the run folder: {error.strerror}",
                where=self.path,
                fix="run.root=ANOTHER_FOLDER, or make this one writable",
            ) from None

    def remove_partial(self) -> None:
        """Removes partial files of killed processes."""
        for leftover in (*self.path.glob(".*.partial*"), *self.path.glob("*/.*.partial*")):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def step_of(name: str) -> int | None:
    """The step in the name of a checkpoint folder; None for any other name."""
    match = _STEP_NAME.fullmatch(name)
    return int(match.group(1)) if match else None


def find_run(path: Path, *, recorded: bool = False) -> RunFolder:
    """The run that a folder is, or that a checkpoint's folder lies in.

    Args:
        recorded: whether it must have its ``run.json``; else ``metrics.jsonl`` will do.

    Raises:
        InputError: there is none.
    """
    resolved = path.resolve()
    if step_of(resolved.name) is not None:
        resolved = resolved.parent.parent
    folder = RunFolder(resolved.parent, resolved.name)
    if folder.record.is_file() or (folder.metrics.is_file() and not recorded):
        return folder
    lacks = "no run.json in it" if recorded else "neither run.json nor metrics.jsonl in it"
    raise InputError(
        "not a run folder",
        where=path,
        why=lacks if path.is_dir() else "it is a file" if path.exists() else "no such folder",
        fix="name the folder that a run prints at its start, such as runs/demo, or a checkpoint in it, "
        "such as runs/demo/checkpoints/step-00000100",
    )
