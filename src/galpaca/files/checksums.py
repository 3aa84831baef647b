"""Sizes and checksums of files, and their verification."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_READ_BYTES = 1 << 22


@dataclass(frozen=True)
class FileFacts:
    """Size and SHA-256 of a file; the size is None where only the checksum is known."""

    bytes: int | None
    sha256: str


def file_facts(path: Path, stop: int | None = None) -> FileFacts:
    """Size and checksum of a file, or of its first ``stop`` bytes."""
    digest, num_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES if stop is None else min(_READ_BYTES, stop - num_bytes)):
            digest.update(piece)
            num_bytes += len(piece)
    return FileFacts(num_bytes, digest.hexdigest())


def facts_of(paths: Iterable[Path]) -> dict[str, FileFacts]:
    """Size and checksum of files by name, read in parallel."""
    paths = list(paths)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return {path.name: facts for path, facts in zip(paths, pool.map(file_facts, paths), strict=True)}


def damages(folder: Path, files: Mapping[str, FileFacts], *, contents: bool = True) -> dict[str, str]:
    """What is wrong with the files of a folder, by name; intact files are left out.

    Args:
        files: expected size and checksum.
        contents: also read the files, in parallel, and compare checksums; otherwise only their sizes.
    """
    by_size = {name: _by_size(folder / name, facts) for name, facts in files.items()}
    unread = [name for name, damage in by_size.items() if not damage] if contents else []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        by_size |= zip(unread, pool.map(lambda name: _by_content(folder / name, files[name]), unread), strict=True)
    return {name: damage for name, damage in by_size.items() if damage}


def _by_size(path: Path, facts: FileFacts) -> str:
    if not path.is_file():
        return "is missing"
    found = path.stat().st_size
    if facts.bytes is None or found == facts.bytes:
        return ""
    return f"is {'truncated' if found < facts.bytes else 'too long'}: {found:,} bytes, not {facts.bytes:,}"


def _by_content(path: Path, facts: FileFacts) -> str:
    try:
        found = file_facts(path).sha256
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if found == facts.sha256 else "is damaged: checksum mismatch"


def sealed(content: Mapping[str, Any]) -> str:
    """JSON text with a checksum over its content."""
    content = json.loads(json.dumps(content))
    return json.dumps({**content, "sha256": json_digest(content)}, indent=1) + "\n"


def unsealed(text: str) -> dict[str, Any]:
    """The content of a sealed text.

    Raises:
        ValueError: the text is not exactly what ``sealed`` wrote.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or content.pop("sha256", None) != json_digest(content):
        raise ValueError("its checksum does not fit")
    if sealed(content) != text:
        raise ValueError("it was changed after it was written")
    return content


def json_digest(content: Any) -> str:
    """SHA-256 of a value as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
