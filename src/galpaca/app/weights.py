"""Where the run's model and tokenizer are on this machine, so that a run with all in its place asks nobody."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galpaca.app.config import Config
from galpaca.app.console import counting
from galpaca.app.hub import (
    cached_snapshot,
    copy_small_files,
    download,
    drop_from_cache,
    has_pickled,
    has_safetensors,
    has_tokenizer,
    hub_name,
    is_hub_id,
    is_offline,
    known_sha256,
    link_or_symlink,
    prepare_command,
)
from galpaca.app.prepared import Checksums, Filled, damage_of, facts_of, make_folder, read_checksums
from galpaca.errors import InputError, Problems
from galpaca.model.opt import ModelSpec
from galpaca.runs.checkpoints import FileFacts

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class LocalModel:
    """The run's model as it is on this machine.

    Attributes:
        spec: the configuration's, with folders where that has Hub ids.
        asked: the configuration's own.
        commit: of the Hub, where known.
    """

    spec: ModelSpec
    asked: ModelSpec
    commit: str | None = None

    @property
    def folder(self) -> Path | None:
        return None if self.spec.path is None else Path(self.spec.path)

    def facts(self) -> dict[str, Any]:
        """For ``run.json``: which weights these are, as far as is known without reading them."""
        from galpaca.model.folder_tensors import weight_files

        if self.folder is None:
            return {"path": None}
        known = _known_files(self.folder)
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": known[path.name][0] if path.name in known else None}
            for path in weight_files(self.folder)
        }
        return {
            "path": self.asked.path,
            "revision": self.asked.revision,
            "commit": self.commit,
            "folder": str(self.folder.absolute()),
            "files": files,
        }

    def verify(self) -> int:
        """Reads the files whose checksums are known, several at a time.

        Returns:
            How many were read.

        Raises:
            InputError: all that are missing, truncated or damaged, by name.
        """
        from concurrent.futures import ThreadPoolExecutor

        if self.folder is None:
            return 0
        folder, known = self.folder, _known_files(self.folder)
        with ThreadPoolExecutor() as pool:
            told = list(pool.map(lambda name: damage_of(folder / name, *known[name]), known))
        problems = Problems()
        for name, damage in zip(known, told, strict=True):
            if damage:
                problems.add(damage, where=folder / name, why="its checksum is known", fix=self._mended_by())
        problems.raise_any()
        return len(known)

    def _mended_by(self) -> str:
        if self.spec.path != self.asked.path:
            return f"{prepare_command()} makes it again"
        return f"galpaca prepare --weights {self.folder} makes it again from the .bin files, or copy the folder again"


def local_model(config: Config, console: Console) -> LocalModel:
    """Finds model and tokenizer: folders as they are, Hub ids prepared, or in the Hub's cache, or else fetched now.

    One process fetches while the others wait. Nobody is asked about what is there.

    Raises:
        InputError: it is not there, and cannot be fetched.
    """
    asked, store = config.model, Path(config.run.root)
    path, tokenizer, commit = asked.path, asked.tokenizer, None
    if path is not None:
        folder, commit = _model(asked, store, console)
        path = str(folder)
    if tokenizer is not None and is_hub_id(tokenizer):
        tokenizer = str(_tokenizer(tokenizer, store))
    return LocalModel(replace(asked, path=path, revision=None, tokenizer=tokenizer), asked, commit)


def model_folder(spec: ModelSpec, root: Path) -> Path:
    """Where the prepared model of a Hub id or of a folder of ``.bin`` files is, or would be."""
    assert spec.path is not None
    if is_hub_id(spec.path):
        return root / ".cache" / "models" / hub_name(spec.path, spec.revision)
    folder = Path(spec.path).absolute()
    return root / ".cache" / "models" / f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def tokenizer_folder(hub_id: str, root: Path) -> Path:
    return root / ".cache" / "tokenizers" / hub_name(hub_id, None)


def make_model(spec: ModelSpec, root: Path, console: Console, *, thorough: bool = False) -> bool:
    """Makes the prepared folder of a model, unless it is there.

    Args:
        thorough: read all files of one that is there.

    Returns:
        Whether it was made now.

    Raises:
        InputError: it cannot be had, or its weights are damaged or more than weights.
    """
    assert spec.path is not None
    path = spec.path
    if is_hub_id(path):
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
    """The same for a tokenizer of its own."""
    return make_folder(
        tokenizer_folder(hub_id, root), lambda partial: _fill_tokenizer(partial, hub_id), thorough=thorough
    )


def pickled_source(folder: Path) -> dict[str, Any]:
    """A folder of ``.bin`` files as it is now, by what changes when they do."""
    from galpaca.model.pickled_weights import pickled_files

    files = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in pickled_files(folder)}
    return {"folder": str(folder.absolute()), "files": files}


def fill_from_pickled(partial: Path, folder: Path, console: Console, *, weights_only: bool = False) -> Filled:
    """Converts a folder of ``.bin`` files; its configuration and tokenizer go along unless told otherwise."""
    if not weights_only:
        copy_small_files(folder, partial)
    source = pickled_source(folder)
    return Filled(source, _convert(folder, partial, console))


def _model(spec: ModelSpec, root: Path, console: Console) -> tuple[Path, str | None]:
    """The model's folder, and its commit if it is the Hub's."""
    assert spec.path is not None
    prepared, is_there = model_folder(spec, root), read_checksums(model_folder(spec, root))
    if not is_hub_id(spec.path):
        folder = Path(spec.path)
        # A folder with safetensors speaks for itself; one without may have been converted.
        if is_there and not has_safetensors(folder) and is_there.source == pickled_source(folder):
            return prepared, None
        return folder, None
    if is_there is None:
        snapshot = cached_snapshot(spec.path, spec.revision)
        needs_tokenizer = spec.tokenizer is None
        can_be_prepared = snapshot is not None and _can_be_prepared(snapshot, needs_tokenizer)
        if snapshot and can_be_prepared and has_safetensors(snapshot):
            return snapshot, snapshot.name
        if not can_be_prepared:
            _check_online(spec.path, "model.path", "model")
        make_model(spec, root, console)
        is_there = read_checksums(prepared)
    return prepared, _commit(is_there)


def _tokenizer(hub_id: str, root: Path) -> Path:
    prepared = tokenizer_folder(hub_id, root)
    if read_checksums(prepared) is None:
        snapshot = cached_snapshot(hub_id, None)
        if snapshot and has_tokenizer(snapshot):
            return snapshot
        _check_online(hub_id, "model.tokenizer", "tokenizer")
        make_tokenizer(hub_id, root)
    return prepared


def _check_online(hub_id: str, key: str, what: str) -> None:
    if is_offline():
        raise InputError(
            f"the {what} is not on this machine, and HF_HUB_OFFLINE forbids to fetch it",
            where=hub_id,
            fix=f"{prepare_command()} where there is a network (with HF_HUB_OFFLINE=0); or {key}=FOLDER",
        )


def _commit(checksums: Checksums | None) -> str | None:
    return checksums.source.get("commit") if checksums else None


def _fill_from_hub(partial: Path, hub_id: str, revision: str | None, needs_tokenizer: bool, console: Console) -> Filled:
    snapshot, facts = _whole_snapshot(hub_id, revision, needs_tokenizer, console)
    copy_small_files(snapshot, partial)
    source = {"hub_id": hub_id, "revision": revision, "commit": snapshot.name}
    if not has_safetensors(snapshot):
        return Filled(source, _convert(snapshot, partial, console))
    for path in _weight_paths(snapshot):
        link_or_symlink(path, partial / path.name)
    return Filled(source, facts)


def _whole_snapshot(
    hub_id: str, revision: str | None, needs_tokenizer: bool, console: Console
) -> tuple[Path, dict[str, FileFacts]]:
    """A model in the Hub's cache with all its files, each read and compared with the checksum that the Hub gave.

    Returns:
        Its folder, and what was found of its weight files.

    Raises:
        InputError: it cannot be downloaded, or arrives damaged.
    """
    snapshot = cached_snapshot(hub_id, revision)
    if snapshot and _can_be_prepared(snapshot, needs_tokenizer):
        facts, damaged = _read_weights(snapshot)
        if not damaged:
            return snapshot, facts
        for path in damaged:
            console.print(f"[yellow]warning:[/yellow] {path} is damaged and is downloaded again")
        drop_from_cache(damaged)
    snapshot = download(hub_id, revision, weights=True)
    if not _can_be_prepared(snapshot, needs_tokenizer):
        raise InputError(
            "it lacks weights, a configuration or a tokenizer",
            where=hub_id,
            why=f"{snapshot} has {', '.join(sorted(path.name for path in snapshot.iterdir())) or 'nothing'}",
            fix="name a model of the kind OPT; model.tokenizer=FOLDER_OR_HUB_ID if it has no tokenizer",
        )
    facts, damaged = _read_weights(snapshot)
    problems = Problems()
    for path in damaged:
        problems.add("the file arrived damaged", where=path, fix="try again")
    drop_from_cache(damaged)
    problems.raise_any()
    return snapshot, facts


def _can_be_prepared(snapshot: Path, needs_tokenizer: bool) -> bool:
    has_weights = has_safetensors(snapshot) or has_pickled(snapshot)
    has_config = (snapshot / "config.json").is_file()
    return has_weights and has_config and (has_tokenizer(snapshot) or not needs_tokenizer)


def _read_weights(snapshot: Path) -> tuple[dict[str, FileFacts], list[Path]]:
    """What is found of the weight files, and which of them are not what the Hub gave."""
    paths = _weight_paths(snapshot)
    facts = facts_of(paths)
    return facts, [path for path in paths if known_sha256(path) not in (None, facts[path.name].sha256)]


def _weight_paths(folder: Path) -> list[Path]:
    """The files that hold the weights, with their index."""
    from galpaca.model.folder_tensors import INDEX_FILE, weight_files
    from galpaca.model.pickled_weights import pickled_files

    if not has_safetensors(folder):
        return pickled_files(folder)
    files, index = weight_files(folder), folder / INDEX_FILE
    return [*files, index] if len(files) > 1 or files[0].name != "model.safetensors" else files


def _fill_tokenizer(partial: Path, hub_id: str) -> Filled:
    snapshot = cached_snapshot(hub_id, None)
    if snapshot is None or not has_tokenizer(snapshot):
        snapshot = download(hub_id, None, weights=False)
    copy_small_files(snapshot, partial)
    return Filled({"hub_id": hub_id, "revision": None, "commit": snapshot.name}, {})


def _convert(folder: Path, partial: Path, console: Console) -> dict[str, FileFacts]:
    from galpaca.model.pickled_weights import convert, pickled_files

    num_files = len(pickled_files(folder))
    with counting(console, "writing the weights as safetensors", num_files) as progress:
        return convert(folder, partial, progress)


def _known_files(folder: Path) -> Mapping[str, tuple[str, int | None]]:
    """SHA-256 and size by name: of all files of a prepared folder, of weight files in the Hub's cache."""
    checksums = read_checksums(folder)
    if checksums is not None:
        return {name: (facts.sha256, facts.bytes) for name, facts in checksums.files.items()}
    known = {path.name: known_sha256(path) for path in folder.glob("*.safetensors")}
    return {name: (sha256, None) for name, sha256 in known.items() if sha256 is not None}
