"""Prepared folders of models and tokenizers: downloaded or converted once, and verified."""

import hashlib
from pathlib import Path
from typing import Any

from rich.console import Console

from galpaca.app.console import counting
from galpaca.app.prepared import hub
from galpaca.app.prepared.folders import Filled, make_folder
from galpaca.errors import InputError, Problems
from galpaca.files.checksums import FileFacts, facts_of
from galpaca.model.spec import ModelSpec


def model_folder(spec: ModelSpec, root: Path) -> Path:
    """The prepared folder of a Hub id or of a folder of ``.bin`` files, whether or not it exists."""
    assert spec.path is not None
    if hub.is_hub_id(spec.path):
        return root / ".cache" / "models" / hub.hub_name(spec.path, spec.revision)
    folder = Path(spec.path).absolute()
    return root / ".cache" / "models" / f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def tokenizer_folder(hub_id: str, root: Path) -> Path:
    return root / ".cache" / "tokenizers" / hub.hub_name(hub_id, None)


def make_model(spec: ModelSpec, root: Path, console: Console, *, thorough: bool = False) -> bool:
    """Creates the prepared folder of a model unless it exists.

    Args:
        thorough: verify every file of an existing one.

    Returns:
        Whether it was created by this call.

    Raises:
        InputError: it cannot be obtained, or its weights are damaged or contain more than weights.
    """
    assert spec.path is not None
    path = spec.path
    if hub.is_hub_id(path):
        needs_tokenizer = spec.tokenizer is None
        return make_folder(
            model_folder(spec, root),
            lambda partial: _fill_from_hub(partial, path, spec.revision, needs_tokenizer, console),
            thorough=thorough,
        )
    source = pickled_source(Path(path))
    return make_folder(
        model_folder(spec, root),
        lambda partial: fill_from_pickled(partial, Path(path), console),
        thorough=thorough,
        still_right=lambda found: found.source == source,
    )


def make_tokenizer(hub_id: str, root: Path, *, thorough: bool = False) -> bool:
    """The same for a separate tokenizer."""
    folder = tokenizer_folder(hub_id, root)
    return make_folder(folder, lambda partial: _fill_tokenizer(partial, hub_id), thorough=thorough)


def pickled_source(folder: Path) -> dict[str, Any]:
    """Identifies the current state of a folder of ``.bin`` files by their sizes and modification times."""
    from galpaca.model.pickled_weights import pickled_files

    files = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in pickled_files(folder)}
    return {"folder": str(folder.absolute()), "files": files}


def fill_from_pickled(partial: Path, folder: Path, console: Console, *, weights_only: bool = False) -> Filled:
    """Converts a folder of ``.bin`` files; copies its configuration and tokenizer unless ``weights_only``."""
    if not weights_only:
        hub.copy_small_files(folder, partial)
    source = pickled_source(folder)
    return Filled(source, _convert(folder, partial, console))


def _fill_from_hub(partial: Path, hub_id: str, revision: str | None, needs_tokenizer: bool, console: Console) -> Filled:
    snapshot, facts = _whole_snapshot(hub_id, revision, needs_tokenizer, console)
    hub.copy_small_files(snapshot, partial)
    source = {"hub_id": hub_id, "revision": revision, "commit": snapshot.name}
    if not hub.has_safetensors(snapshot):
        return Filled(source, _convert(snapshot, partial, console))
    for path in _weight_paths(snapshot):
        hub.link_or_symlink(path, partial / path.name)
    return Filled(source, facts)


def _whole_snapshot(
    hub_id: str, revision: str | None, needs_tokenizer: bool, console: Console
) -> tuple[Path, dict[str, FileFacts]]:
    """A complete model in the Hub cache, every file verified against the Hub's checksum.

    Returns:
        Its folder, and size and checksum of its weight files.

    Raises:
        InputError: the download fails or is corrupted.
    """
    snapshot = hub.cached_snapshot(hub_id, revision)
    if snapshot and can_be_prepared(snapshot, needs_tokenizer):
        facts, damaged = _read_weights(snapshot)
        if not damaged:
            return snapshot, facts
        for path in damaged:
            console.print(f"[yellow]warning:[/yellow] {path} is damaged; downloading it again")
        hub.drop_from_cache(damaged)
    snapshot = hub.download(hub_id, revision, weights=True)
    if not can_be_prepared(snapshot, needs_tokenizer):
        raise InputError(
            "weights, config.json or tokenizer missing",
            where=hub_id,
            why=f"{snapshot} has {', '.join(sorted(path.name for path in snapshot.iterdir())) or 'nothing'}",
            fix="use a model with weights in files; set model.tokenizer=FOLDER_OR_HUB_ID if it has no tokenizer",
        )
    facts, damaged = _read_weights(snapshot)
    with Problems() as problems:
        for path in damaged:
            problems.add("the downloaded file is corrupted", where=path, fix="try again")
        hub.drop_from_cache(damaged)
    return snapshot, facts


def can_be_prepared(snapshot: Path, needs_tokenizer: bool) -> bool:
    has_weights = hub.has_safetensors(snapshot) or hub.has_pickled(snapshot)
    has_config = (snapshot / "config.json").is_file()
    return has_weights and has_config and (hub.has_tokenizer(snapshot) or not needs_tokenizer)


def _read_weights(snapshot: Path) -> tuple[dict[str, FileFacts], list[Path]]:
    """Size and checksum of the weight files, and those that differ from the Hub's checksum."""
    paths = _weight_paths(snapshot)
    facts = facts_of(paths)
    return facts, [path for path in paths if hub.known_sha256(path) not in (None, facts[path.name].sha256)]


def _weight_paths(folder: Path) -> list[Path]:
    """The files that hold the weights, with their index."""
    from galpaca.model.folder_tensors import INDEX_FILE, weight_files
    from galpaca.model.pickled_weights import pickled_files

    if not hub.has_safetensors(folder):
        return pickled_files(folder)
    files, index = weight_files(folder), folder / INDEX_FILE
    return [*files, index] if len(files) > 1 or files[0].name != "model.safetensors" else files


def _fill_tokenizer(partial: Path, hub_id: str) -> Filled:
    snapshot = hub.cached_snapshot(hub_id, None)
    if snapshot is None or not hub.has_tokenizer(snapshot):
        snapshot = hub.download(hub_id, None, weights=False)
    hub.copy_small_files(snapshot, partial)
    return Filled({"hub_id": hub_id, "revision": None, "commit": snapshot.name}, {})


def _convert(folder: Path, partial: Path, console: Console) -> dict[str, FileFacts]:
    from galpaca.model.pickled_weights import convert, pickled_files

    num_files = len(pickled_files(folder))
    with counting(console, "converting weights to safetensors", num_files) as progress:
        return convert(folder, partial, progress)
