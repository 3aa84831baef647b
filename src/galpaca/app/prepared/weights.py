"""Finds the run's model and tokenizer on this machine; if they are there, no network is used."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from galpaca.app.config.schema import Config
from galpaca.app.prepared import fetch, hub
from galpaca.app.prepared.folders import read_checksums
from galpaca.errors import InputError, Problems
from galpaca.files.checksums import FileFacts, damages
from galpaca.model.spec import ModelSpec


@dataclass(frozen=True)
class LocalModel:
    """The run's model on this machine.

    Attributes:
        spec: the model configuration with Hub ids replaced by local folders.
        requested: the model configuration as given.
        commit: commit on the Hub, if known.
    """

    spec: ModelSpec
    requested: ModelSpec
    commit: str | None = None

    @property
    def folder(self) -> Path | None:
        return None if self.spec.path is None else Path(self.spec.path)

    def facts(self) -> dict[str, Any]:
        """Identifies the weights for ``run.json``, as far as possible without reading them."""
        from galpaca.model.folder_tensors import weight_files

        if self.folder is None:
            return {"path": None}
        known = _known_files(self.folder)
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": known[path.name].sha256 if path.name in known else None}
            for path in weight_files(self.folder)
        }
        return {
            "path": self.requested.path,
            "revision": self.requested.revision,
            "commit": self.commit,
            "folder": str(self.folder.absolute()),
            "files": files,
        }

    def fingerprint(self) -> str:
        """Of the files of weights, which must be there; all of them are read.

        Raises:
            InputError: a file is missing.
        """
        from galpaca.model.folder_tensors import weights_fingerprint

        assert self.folder is not None  # random weights are no base
        return weights_fingerprint(self.folder)

    def verify(self) -> int:
        """Verifies the files whose checksums are known, several in parallel.

        Returns:
            Number of files verified.

        Raises:
            InputError: names all files that are missing, truncated or damaged.
        """
        if self.folder is None:
            return 0
        known, problems = _known_files(self.folder), Problems()
        for name, damage in damages(self.folder, known).items():
            why = "its recorded size or checksum differs"
            problems.add(f"the file {damage}", where=self.folder / name, why=why, fix=self._mended_by())
        problems.raise_any()
        return len(known)

    def _mended_by(self) -> str:
        if self.spec.path != self.requested.path:
            return f"recreate it with {hub.prepare_command()}"
        return f"recreate it from the .bin files with galpaca prepare --weights {self.folder}, or copy the folder again"


def local_model(config: Config, console: Console) -> LocalModel:
    """Finds model and tokenizer: local folders, prepared Hub ids, the Hub cache, or else downloads them.

    One process downloads while the others wait. What is there needs no request to the Hub.

    Raises:
        InputError: it is not there and cannot be downloaded.
    """
    requested, store = config.model, Path(config.run.root)
    path, tokenizer, commit = requested.path, requested.tokenizer, None
    if path is not None:
        folder, commit = _model(requested, store, console)
        path = str(folder)
    if tokenizer is not None and hub.is_hub_id(tokenizer):
        tokenizer = str(_tokenizer(tokenizer, store))
    return LocalModel(replace(requested, path=path, revision=None, tokenizer=tokenizer), requested, commit)


def _model(spec: ModelSpec, root: Path, console: Console) -> tuple[Path, str | None]:
    """The model's folder, and its commit if it comes from the Hub."""
    assert spec.path is not None
    prepared, is_there = fetch.model_folder(spec, root), read_checksums(fetch.model_folder(spec, root))
    if not hub.is_hub_id(spec.path):
        folder = Path(spec.path)
        # A folder with safetensors speaks for itself; one without may have been converted.
        if is_there and not hub.has_safetensors(folder) and is_there.source == fetch.pickled_source(folder):
            return prepared, None
        return folder, None
    if is_there is None:
        snapshot = hub.cached_snapshot(spec.path, spec.revision)
        needs_tokenizer = spec.tokenizer is None
        usable = snapshot is not None and fetch.can_be_prepared(snapshot, needs_tokenizer)
        if snapshot and usable and hub.has_safetensors(snapshot):
            return snapshot, snapshot.name
        if not usable:
            _check_online(spec.path, "model.path", "model")
        fetch.make_model(spec, root, console)
        is_there = read_checksums(prepared)
    return prepared, is_there.source.get("commit") if is_there else None


def _tokenizer(hub_id: str, root: Path) -> Path:
    prepared = fetch.tokenizer_folder(hub_id, root)
    if read_checksums(prepared) is None:
        snapshot = hub.cached_snapshot(hub_id, None)
        if snapshot and hub.has_tokenizer(snapshot):
            return snapshot
        _check_online(hub_id, "model.tokenizer", "tokenizer")
        fetch.make_tokenizer(hub_id, root)
    return prepared


def _check_online(hub_id: str, key: str, what: str) -> None:
    if hub.is_offline():
        raise InputError(
            f"the {what} is not on this machine, and HF_HUB_OFFLINE is set",
            where=hub_id,
            fix=f"run {hub.prepare_command()} with network access (and HF_HUB_OFFLINE=0); or {key}=FOLDER",
        )


def _known_files(folder: Path) -> Mapping[str, FileFacts]:
    """Known sizes and checksums by name: all files of a prepared folder, weight files of the Hub cache."""
    checksums = read_checksums(folder)
    if checksums is not None:
        return checksums.files
    known = {path.name: hub.known_sha256(path) for path in folder.glob("*.safetensors")}
    return {name: FileFacts(None, sha256) for name, sha256 in known.items() if sha256 is not None}
