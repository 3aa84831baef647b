"""A run in one's own code, such as a notebook: ``open_run("runs/mine")``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galpaca.errors import InputError, Problems
from galpaca.inference.settings import Settings
from galpaca.runs.configuration import read_configuration
from galpaca.runs.folder import RunFolder, find_run
from galpaca.runs.history import read_history, read_samples
from galpaca.runs.lines import AnyLine
from galpaca.runs.record import read_content
from galpaca.runs.record_fields import RunContent
from galpaca.runs.typed import encode

if TYPE_CHECKING:
    from pandas import DataFrame

    from galpaca.inference.loading import Loaded


def open_run(path: str | Path) -> OpenRun:
    """A run, whether it is running, has ended or was killed.

    Args:
        path: the run's folder.

    Raises:
        InputError: it is none.
    """
    return OpenRun(find_run(Path(path)))


def open_model(name: str | Path, *, dtype: Any = None) -> OpenModel:
    """A model that answers.

    Args:
        name: a released folder, the folder of a run, ``RUN@STEP``, ``RUN@best`` or a name on the Hub.
        dtype: ``float32``, ``bfloat16`` or ``float16``; by default the folder's on a GPU, float32 on a CPU.

    Raises:
        InputError: it cannot be loaded.
        GalpacaError: out of memory.
    """
    from galpaca.inference.loading import load

    return OpenModel(load(str(name), dtype=dtype))


@dataclass(frozen=True)
class OpenRun:
    """A run's files as tables. Each is read when it is asked for, so a run that goes on shows its newest lines."""

    folder: RunFolder

    @property
    def metrics(self) -> DataFrame:
        """One row for each optimizer step: ``step``, ``loss``, ``lr``, ``grad_norm``, ``tokens`` and so on."""
        return _frame(read_history(self.folder.metrics).steps)

    @property
    def validations(self) -> DataFrame:
        """One row for each validation: ``step``, ``val_loss``, ``val_seconds``."""
        return _frame(read_history(self.folder.metrics).validations)

    @property
    def samples(self) -> DataFrame:
        """One row for each sample answer during training: ``step``, ``instruction``, ``input``, ``answer``."""
        return _frame(read_samples(self.folder.samples))

    @property
    def config(self) -> Mapping[str, Any]:
        """Every key of its configuration, in groups."""
        return read_configuration(self.folder.config)

    @property
    def record(self) -> RunContent:
        """Provenance, receipt, plan and final figures.

        Raises:
            InputError: ``run.json`` is missing or damaged.
        """
        content = read_content(self.folder.record)
        if content is None:
            raise InputError("the run has no run.json", where=self.folder.path, why="it has not started, or lost it")
        return content

    def model(self, checkpoint: int | str = "last", *, dtype: Any = None) -> OpenModel:
        """The model of a checkpoint.

        Args:
            checkpoint: a saved step, ``best`` or ``last``.
            dtype: as for ``open_model``.
        """
        return open_model(f"{self.folder.path}@{checkpoint}", dtype=dtype)


@dataclass(frozen=True)
class OpenModel:
    """A loaded model; ``loaded.model`` and ``loaded.tokenizer`` are what transformers made."""

    loaded: Loaded

    def answer(self, instructions: Sequence[str], inputs: Sequence[str] = (), **settings: Any) -> list[str]:
        """Answers each instruction as ``galpaca generate`` does.

        Args:
            inputs: one for each instruction, or none.
            settings: those of ``galpaca.inference.settings.Settings``, such as ``max_new_tokens`` and ``temperature``.

        Raises:
            InputError: one text in the place of a list, another number of inputs, invalid settings, or prompts longer
                than the model's context.
            GalpacaError: GPU out of memory.
        """
        from galpaca.data.records import Record
        from galpaca.inference.answer import answer

        if isinstance(instructions, str):
            raise InputError("expected a list of instructions, got one text", fix=f"answer([{instructions[:20]!r}])")
        asked, given = list(instructions), list(inputs)
        if given and len(given) != len(asked):
            what = f"{len(given)} inputs for {len(asked)} instructions"
            raise InputError(what, fix="one input for each instruction, empty ones included, or none")
        known = [item.name for item in fields(Settings)]
        with Problems() as problems:
            for key in settings.keys() - set(known):
                problems.add("no such setting", where=key, fix=f"one of {', '.join(known)}")
        chosen = replace(Settings(max_new_tokens=self.loaded.max_new_tokens), **settings)
        chosen.check()
        pairs = zip(asked, given or [""] * len(asked), strict=True)
        records = [Record.of(instruction, input) for instruction, input in pairs]
        return [one.text for one in answer(self.loaded, records, chosen)]


def _frame(lines: Iterable[AnyLine]) -> DataFrame:
    from pandas import DataFrame

    return DataFrame([_flat(encode(line)) for line in lines])


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if not isinstance(value, Mapping)}
