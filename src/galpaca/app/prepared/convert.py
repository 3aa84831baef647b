"""``galpaca prepare --weights``: converts a folder of PyTorch ``.bin`` weights to safetensors."""

import shlex
import shutil
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from galpaca.app.console import make_console, show_rows
from galpaca.app.prepared.fetch import fill_from_pickled, pickled_source
from galpaca.app.prepared.folders import CHECKSUMS, cannot_make, make_folder, read_checksums, write_checksums
from galpaca.app.prepared.hub import has_safetensors
from galpaca.app.prepared.places import Place, show_next, since
from galpaca.errors import InputError
from galpaca.files.atomic import sync_entry, sync_folder
from galpaca.files.build_once import file_lock, fresh_partial
from galpaca.files.checksums import damages
from galpaca.model.build import check_weights
from galpaca.model.configuration import described
from galpaca.model.spec import ModelSpec


def convert_folder(folder: Path, out: Path | None) -> None:
    """Converts the ``.bin`` weights of a folder to safetensors, in place or into another folder.

    Raises:
        InputError: no ``.bin`` files; they are damaged, contain more than weights, or do not match ``config.json``;
            ``out`` contains something else.
    """
    console = make_console()
    if not folder.is_dir():
        raise InputError("no such folder", where=folder, fix="--weights FOLDER with pytorch_model*.bin files")
    source = pickled_source(folder)
    if not source["files"]:
        has_what = "it already has safetensors and can be used as is" if has_safetensors(folder) else ""
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
    spec = ModelSpec(path=str(out))
    config, family = described(spec)
    num_parameters = check_weights(spec, family, config)
    place = Place("weights", out, since(is_new=is_new))
    show_rows(console, "prepared", [("model", f"{num_parameters:,} parameters"), place.row()])
    show_next(console, [f"python train.py +experiment=NAME {shlex.quote(f'model.path={out}')}"])


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
        with file_lock(lock):
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
            "the folder already has safetensors and can be used as is",
            where=folder,
            fix="model.path=FOLDER; to convert the .bin files anyway, use --out FOLDER",
        )


def _refuse_foreign_files(out: Path, folder: Path) -> None:
    """What is made anew is removed first: it must be nothing but an earlier conversion of the same folder."""
    found = read_checksums(out)
    is_ours = found is not None and found.source.get("folder") == str(folder.absolute())
    known = {*found.files, CHECKSUMS} if found and is_ours else set()
    foreign = sorted(path.name for path in out.iterdir() if path.name not in known) if out.exists() else []
    if foreign:
        raise InputError(
            f"the folder contains other files: {', '.join(foreign[:3])}", where=out, fix="choose a new folder for --out"
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
