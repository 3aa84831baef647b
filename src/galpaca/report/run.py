"""What a report needs of a run, read from its folder."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from galpaca.errors import Problems
from galpaca.runs.checkpoints import Manifest, read_manifest
from galpaca.runs.folder import RunFolder, find_run
from galpaca.runs.history import History, final_figures, read_history, read_samples
from galpaca.runs.lines import SampleLine
from galpaca.runs.record import read_content
from galpaca.runs.record_fields import FinalFigures, RunContent, Start
from galpaca.runs.standings import Standing, data_of, ranked
from galpaca.runs.state import RunState, run_state


@dataclass(frozen=True)
class ReportedRun:
    """One run as it is now.

    Attributes:
        name: distinct from those of the other runs in the report.
        record: the content of ``run.json``; empty where there is none.
        config: the resolved configuration as text; empty where there is none.
        final: the run in a few numbers, so far.
        samples: lines of ``samples.jsonl``.
        checkpoints: those that can be read, oldest first.
        read_at: seconds since 1970.
    """

    name: str
    folder: RunFolder
    record: RunContent
    config: str
    history: History
    final: FinalFigures
    state: RunState
    samples: Sequence[SampleLine]
    checkpoints: Sequence[Manifest]
    read_at: float

    @property
    def starts(self) -> Sequence[Start]:
        return self.record.starts

    @property
    def num_steps(self) -> int | None:
        """Of the whole run, where it is known."""
        return self.record.num_steps

    @property
    def standing(self) -> Standing:
        return Standing(self.name, data_of(self.record), self.final.loss, self.final.val_loss)

    def flat_config(self) -> dict[str, Any]:
        """Every value of the configuration by its dotted key."""
        return flat(yaml.safe_load(self.config) or {}) if self.config else {}


def load_runs(paths: Sequence[Path]) -> list[ReportedRun]:
    """Reads runs, alive or not; several of them as they rank.

    Raises:
        InputError: a folder is no run, or its ``run.json`` is damaged.
    """
    folders = [find_run(path) for path in paths]
    names = _names([folder.path for folder in folders])
    runs = [_load(folder, name) for folder, name in zip(folders, names, strict=True)]
    return [runs[place] for place in ranked([run.standing for run in runs])]


def _load(folder: RunFolder, name: str) -> ReportedRun:
    record = read_content(folder.record) or RunContent()
    history = read_history(folder.metrics)
    return ReportedRun(
        name=name,
        folder=folder,
        record=record,
        config=folder.config.read_text(encoding="utf-8", errors="replace") if folder.config.is_file() else "",
        history=history,
        final=final_figures(history.steps, history.validations),
        state=run_state(folder, record, history),
        samples=list(read_samples(folder.samples)),
        checkpoints=_checkpoints(folder),
        read_at=time.time(),
    )


def _checkpoints(folder: RunFolder) -> list[Manifest]:
    """A run that is alive may remove one meanwhile."""
    unreadable = Problems()
    found = [unreadable.collect(partial(read_manifest, folder.checkpoint(step))) for step in folder.saved_steps()]
    return [manifest for manifest in found if manifest is not None]


def _names(paths: Sequence[Path]) -> list[str]:
    """Of each path the fewest last parts that distinguish it from the others."""
    for parts in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} ({number})" for number, path in enumerate(paths, start=1)]


def flat(node: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Every value of nested mappings by its dotted key; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) and value else {f"{above}{key}": value}
    return found
