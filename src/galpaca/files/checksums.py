"""Files and their checksums: what is remembered of them, and whether they are still so."""

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
    """Of a whole file, or of its first ``stop`` bytes."""
    digest, num_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES if stop is None else min(_READ_BYTES, stop - num_bytes)):
            digest.update(piece)
            num_bytes += len(piece)
    return FileFacts(num_bytes, digest.hexdigest())


def facts_of(paths: Iterable[Path]) -> dict[str, FileFacts]:
    """Of files by name, several read at a time."""
    paths = list(paths)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return {path.name: facts for path, facts in zip(paths, pool.map(file_facts, paths), strict=True)}


def damages(folder: Path, files: Mapping[str, FileFacts], *, contents: bool = True) -> dict[str, str]:
    """What is wrong with the files of a folder, by name; nothing for those that are as they were.

    Args:
        files: as they should be.
        contents: read them too, several at a time; else only look at their sizes.
    """
    told = {name: _by_size(folder / name, facts) for name, facts in files.items()}
    unread = [name for name, damage in told.items() if not damage] if contents else []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        told |= zip(unread, pool.map(lambda name: _by_content(folder / name, files[name]), unread), strict=True)
    return {name: damage for name, damage in told.items() if damage}


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
    return "" if found == facts.sha256 else "is damaged: its checksum is not the one that it had"


def sealed(content: Mapping[str, Any]) -> str:
    """JSON with a checksum over all of it."""
    content = json.loads(json.dumps(content))
    return json.dumps({**content, "sha256": json_digest(content)}, indent=1) + "\n"


def unsealed(text: str) -> dict[str, Any]:
    """What was sealed.

    Raises:
        ValueError: the text is not to the byte what ``sealed`` has written.
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
