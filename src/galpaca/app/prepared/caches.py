"""Where libraries keep what they download and compile: not in a home folder whose quota it would fill."""

import os
from pathlib import Path

_HUB = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")


def keep_caches(root: Path) -> None:
    """Sets the libraries' own variables, where nobody has, before they are imported.

    Compiled kernels go below ``run.root``, where a job that is requeued on another node finds them. Files of the Hub do
    if that is another disk than the home folder's: on one disk, the cache that all projects share is the better place.
    """
    cache = root.absolute() / ".cache"
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache / "compiled" / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "compiled" / "inductor"))
    if _is_on_another_disk(root) and not any(os.environ.get(name) for name in _HUB):
        os.environ["HF_HUB_CACHE"] = str(cache / "hub")
        os.environ.setdefault("HF_DATASETS_CACHE", str(cache / "datasets"))


def home_cache() -> Path:
    """Where the Hub's files are by default; what is there is not downloaded again."""
    return Path.home() / ".cache" / "huggingface" / "hub"


def _is_on_another_disk(root: Path) -> bool:
    try:
        existing = next(one for one in (root.absolute(), *root.absolute().parents) if one.exists())
        return existing.stat().st_dev != Path.home().stat().st_dev
    except (OSError, RuntimeError):  # no home folder, as in some containers; or one that may not be looked into
        return True
