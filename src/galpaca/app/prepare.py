"""``galpaca prepare``: all that needs a network or one process alone, done before the job."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from galpaca.app.config import Config, compose
from galpaca.app.console import make_console, show_rows
from galpaca.app.examples import find_data, plan_steps, prepare_data
from galpaca.app.hub import has_pickled, has_safetensors, is_hub_id
from galpaca.app.prepared import (
    CHECKSUMS,
    cannot_make,
    damages,
    fresh_partial,
    make_folder,
    read_checksums,
    write_checksums,
)
from galpaca.app.rows import make_rows, rows_folder
from galpaca.app.weights import (
    LocalModel,
    fill_from_pickled,
    local_model,
    make_model,
    make_tokenizer,
    model_folder,
    pickled_source,
    tokenizer_folder,
)
from galpaca.data.cache import waiting_for
from galpaca.errors import InputError
from galpaca.model.opt import (
    ModelSpec,
    build_model,
    check_folder,
    check_model,
    check_weights,
    open_weights,
    parameter_shapes,
    read_config,
)
from galpaca.runs.folder import sync_entry, sync_folder

if TYPE_CHECKING:
    from rich.console import Console

    from galpaca.data.tokenizer import Tokenizer


_NEW, _WAS_THERE = "made now", "was there, and is whole"


@dataclass(frozen=True)
class _Place:
    """One thing that a run needs, where it is, and since when."""

    what: str
    folder: Path
    note: str

    def row(self) -> tuple[str, str]:
        num_bytes = sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
        return self.what, f"{self.folder}, {_size(num_bytes)} ({self.note})"


def _since(*, is_new: bool) -> str:
    return _NEW if is_new else _WAS_THERE


def prepare(overrides: Sequence[str]) -> None:
    """Fetches, converts, encodes and verifies what a run needs, and prints the command that starts it.

    What is there already is verified and stays.

    Args:
        overrides: those of ``train.py``.

    Raises:
        InputError: whatever training would refuse but for the machine, or something that cannot be had.
    """
    console = make_console()
    config, _ = compose(overrides)
    root = Path(config.run.root)
    places = []
    if not config.data.path:
        is_new = make_rows(config.data, root)
        places.append(_Place("records", rows_folder(config.data, root), _since(is_new=is_new)))
    found = find_data(config.data, root)  # what is wrong with them is told before gigabytes are fetched
    places += _make_model(config.model, root, console)
    local = local_model(config, console)
    if not any(place.what == "weights" for place in places) and local.folder:
        note = "as it is; all checksums fit" if local.verify() else "as it is; no checksums to compare with"
        places.append(_Place("weights", local.folder, note))
    check_model(local.spec, config.data.max_length)
    encoded_before = set(found.cache.iterdir()) if found.cache.is_dir() else set()
    data = prepare_data(config.data, found, local.spec.tokenizer_path, console)
    encoded = found.cache / data.fingerprint[:32]
    places.append(_Place("encoded", encoded, _since(is_new=encoded not in encoded_before)))
    steps = plan_steps(config, data)
    num_parameters = _check_weights(config, local, data.tokenizer)
    show_rows(console, "data", data.examples.receipt.rows())
    weights = config.model.path or "random weights"
    model = ("model", f"{num_parameters:,} parameters, {weights}")
    plan = ("steps", f"{steps.num_steps:,} of {config.batch.examples:,} examples")
    show_rows(console, "prepared", [model, plan, *(place.row() for place in places)])
    _show_next(console, next_commands(overrides))


def convert_folder(folder: Path, out: Path | None) -> None:
    """Writes the ``.bin`` weights of a folder as safetensors: beside them, or in a prepared folder elsewhere.

    Raises:
        InputError: there are none, they are damaged or more than weights, they do not fit ``config.json``; ``out``
            holds something else.
    """
    console = make_console()
    if not folder.is_dir():
        raise InputError("there is no such folder", where=folder, fix="--weights FOLDER with pytorch_model*.bin files")
    source = pickled_source(folder)
    if not source["files"]:
        has_what = "it has safetensors, and can be used as it is" if has_safetensors(folder) else ""
        raise InputError("the folder has no pytorch_model*.bin", where=folder, why=has_what, fix="--weights FOLDER")
    if out is None or out.resolve() == folder.resolve():
        out, is_new = folder, _convert_in_place(folder, console)
    else:
        _refuse_foreign_files(out, folder)
        is_new = make_folder(
            out,
            lambda partial: fill_from_pickled(partial, folder, console),
            thorough=True,
            still_right=lambda there: there.source == source,
        )
    num_parameters = check_weights(out)
    place = _Place("weights", out, _since(is_new=is_new))
    show_rows(console, "prepared", [("model", f"{num_parameters:,} parameters"), place.row()])
    _show_next(console, [f"python train.py +experiment=NAME {shlex.quote(f'model.path={out}')}"])


def next_commands(overrides: Sequence[str]) -> list[str]:
    """What to type next, one of them. What submits the same run as a job belongs here too."""
    return [shlex.join(["python", "train.py", *overrides])]


def _make_model(spec: ModelSpec, root: Path, console: Console) -> list[_Place]:
    """What has to be fetched or converted of model and tokenizer; a folder with safetensors is taken as it is."""
    places = []
    if spec.path is not None:
        check_folder(spec.path, "model.path")
        folder = Path(spec.path)
        if is_hub_id(spec.path) or (has_pickled(folder) and not has_safetensors(folder)):
            is_new = make_model(spec, root, console, thorough=True)
            places.append(_Place("weights", model_folder(spec, root), _since(is_new=is_new)))
    if spec.tokenizer is not None and is_hub_id(spec.tokenizer):
        is_new = make_tokenizer(spec.tokenizer, root, thorough=True)
        places.append(_Place("tokenizer", tokenizer_folder(spec.tokenizer, root), _since(is_new=is_new)))
    return places


def _check_weights(config: Config, local: LocalModel, tokenizer: Tokenizer) -> int:
    """Compares names and shapes of the weights with the model's.

    Returns:
        The model's number of parameters.
    """
    model_config = read_config(local.spec, tokenizer)
    model = build_model(model_config)
    open_weights(local.spec, model_config, parameter_shapes(model), config.seed)
    return sum(parameter.numel() for parameter in model.parameters())


def _convert_in_place(folder: Path, console: Console) -> bool:
    """Puts safetensors beside the ``.bin`` files; the file by which they are found comes last.

    Returns:
        Whether they were made now.
    """

    def is_there() -> bool:
        found = read_checksums(folder)
        right = found is not None and found.source == pickled_source(folder)
        return right and has_safetensors(folder) and not damages(folder, found.files if found else {})

    lock = folder / ".prepare.lock"
    try:
        with waiting_for(lock):
            if is_there():
                return False
            _refuse_foreign_weights(folder)
            _place_beside(folder, console)
    except OSError as error:
        raise cannot_make(folder, error) from None
    finally:
        with suppress(OSError):
            lock.unlink(missing_ok=True)
    return True


def _refuse_foreign_weights(folder: Path) -> None:
    """Safetensors that this command did not make are not to be overwritten."""
    if has_safetensors(folder) and not (folder / CHECKSUMS).exists():
        raise InputError(
            "the folder has safetensors already, and can be used as it is",
            where=folder,
            fix="model.path=FOLDER; --out FOLDER converts the .bin files all the same",
        )


def _refuse_foreign_files(out: Path, folder: Path) -> None:
    """What is made anew is removed first: it must be nothing but an earlier conversion of the same folder."""
    found = read_checksums(out)
    is_ours = found is not None and found.source.get("folder") == str(folder.absolute())
    known = {*found.files, CHECKSUMS} if found and is_ours else set()
    foreign = sorted(path.name for path in out.iterdir() if path.name not in known) if out.exists() else []
    if foreign:
        raise InputError(
            f"the folder holds something else: {', '.join(foreign[:3])}", where=out, fix="--out with a new folder"
        )


def _place_beside(folder: Path, console: Console) -> None:
    partial = fresh_partial(folder / "prepare")
    try:
        filled = fill_from_pickled(partial, folder, console, weights_only=True)
        write_checksums(partial, filled)
        sync_folder(partial)
        # Checksums first: from then on the weights are this command's. The index last: by it readers find the others.
        for path in sorted(partial.iterdir(), key=lambda path: (path.name != CHECKSUMS, path.suffix == ".json")):
            path.replace(folder / path.name)
        sync_entry(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**27 else f"{num_bytes / 2**20:.1f} MiB"


def _show_next(console: Console, commands: Sequence[str]) -> None:
    console.print("\nNext:")
    for command in commands:
        console.print(f"  {command}", markup=False)
