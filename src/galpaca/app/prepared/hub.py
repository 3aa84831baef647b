"""Files from the Hugging Face Hub: those in the local cache, and those to download."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from galpaca.app.prepared.caches import home_cache
from galpaca.errors import InputError, Problems, first_line

_SLOW_TOKENIZER = ("vocab.json", "merges.txt", "added_tokens.json")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", *_SLOW_TOKENIZER)
_GENERATION = "generation_config.json"  # beside a tokenizer, it lists the ends of answers
_CONFIG = ("config.json", _GENERATION)
_SAFE = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")

# A file that the Hub keeps outside of git is named by its SHA-256 in the cache; others by git's shorter one.
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_hub_id(path: str) -> bool:
    """Whether a path is a Hub id; a folder of that name takes precedence."""
    return not Path(path).is_dir() and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) is not None and path[0] not in ".~"


def hub_name(hub_id: str, revision: str | None) -> str:
    """A Hub id as a folder's name."""
    return hub_id.replace("/", "--") + (f"@{revision.replace('/', '--')}" if revision else "")


def prepare_command() -> str:
    """The ``galpaca prepare`` command with the overrides of this process."""
    return shlex.join(["galpaca", "prepare", *(given for given in sys.argv[1:] if "=" in given and given[0] != "-")])


def is_offline() -> bool:
    """Whether the environment disables access to the Hub."""
    from huggingface_hub.constants import is_offline_mode

    return is_offline_mode()


def cached_snapshot(hub_id: str, revision: str | None) -> Path | None:
    """The folder of a model or tokenizer in the Hub cache, complete or not; makes no request."""
    from huggingface_hub import try_to_load_from_cache

    for cache in (None, home_cache()):
        for name in ("config.json", "tokenizer.json", "vocab.json"):
            found = try_to_load_from_cache(hub_id, name, cache_dir=cache, revision=revision)
            if isinstance(found, str):
                return Path(found).parent
    return None


def download(hub_id: str, revision: str | None, *, weights: bool) -> Path:
    """Downloads the missing files of a model, or of a tokenizer alone, into the Hub cache.

    Args:
        weights: also the configuration and the weights, as safetensors if the Hub has them.

    Returns:
        Its folder in the cache.

    Raises:
        InputError: no such model, no access to it, or no network.
    """
    from huggingface_hub import HfApi, snapshot_download

    patterns = [*_TOKENIZER, _GENERATION]
    try:
        if weights:
            names = HfApi().list_repo_files(hub_id, revision=revision)
            safe = any(re.fullmatch(r"model(-.*)?\.safetensors", name) for name in names)
            patterns += [*_CONFIG, *(_SAFE if safe else _PICKLED)]
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the library raises a dozen unrelated kinds
        raise InputError(
            f"download failed: {type(error).__name__}: {first_line(error)}",
            where=hub_id + (f" (revision {revision})" if revision else ""),
            fix=f"check the name, revision and network; or run {prepare_command()} with network access",
        ) from None


def has_safetensors(folder: Path) -> bool:
    from galpaca.model.folder_tensors import weight_files

    return bool(Problems().collect(lambda: weight_files(folder)))


def has_pickled(folder: Path) -> bool:
    from galpaca.model.pickled_weights import pickled_files

    return bool(Problems().collect(lambda: pickled_files(folder)))


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def known_sha256(path: Path) -> str | None:
    """The SHA-256 that the Hub cache records for a file, if any."""
    name = path.resolve().name
    return name if path.is_symlink() and _SHA256.fullmatch(name) else None


def drop_from_cache(paths: Sequence[Path]) -> None:
    """Removes files from the Hub cache, so that they are downloaded again."""
    for path in paths:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def link_or_symlink(source: Path, target: Path) -> None:
    """Links to a file in the Hub cache, using no extra disk space.

    A hard link survives when the cache is cleared. On another file system it is a symbolic link: a copy would double
    what may be a quarter of a terabyte, and if the cache is cleared, the error names the file.
    """
    blob = source.resolve()
    try:
        os.link(blob, target)
    except OSError:
        target.symlink_to(blob)


def copy_small_files(folder: Path, target: Path) -> None:
    """Copies configuration and tokenizer."""
    for name in (*_CONFIG, *_TOKENIZER):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
