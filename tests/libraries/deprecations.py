"""What torch, Lightning and transformers announce about their own future, and why it is tolerated for now.

Training hushes it for users, unless they ask with ``-W``. In tests nothing hushes it: processes that tests start write
it to a log (``startup/sitecustomize.py``) which ``conftest`` reads after each test, in pytest's own process it is an
error, and what is not listed here fails.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tolerated:
    """An announcement.

    Attributes:
        message: how it begins, a regular expression without a colon, since pytest splits its filters there.
        kind: category of the warning, or the level of the line that is logged.
        reason: why it may be said for now, and what has to happen when it comes true.
    """

    message: str
    kind: str
    reason: str


TOLERATED = (
    Tolerated(
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        "FutureWarning",
        "a call within Lightning, lightning/pytorch/utilities/_pytree.py; Lightning must have changed it by then",
    ),
    Tolerated(
        r"torch\.distributed\.nn\.functional\.all_gather is deprecated",
        "FutureWarning",
        "a call within Lightning, lightning/fabric/utilities/distributed.py; Lightning must have changed it by then",
    ),
    Tolerated(
        r"`torch\.jit\.script_method` is deprecated",
        "DeprecationWarning",
        "a call within torch, torch/utils/mkldnn.py, which the compiler imports; nothing of ours scripts a method",
    ),
    Tolerated(
        r"The `NO_SHARD` sharding strategy is deprecated",
        "FutureWarning",
        "one of the choices of strategy.sharding_strategy; once torch drops it, it must be refused in favour of ddp",
    ),
    Tolerated(
        r"<class 'torch\.autograd\.function\.Function'> should not be instantiated",
        "DeprecationWarning",
        "a call within torch's compiler when it meets an autograd function; torch must have changed it by then",
    ),
    Tolerated(
        r"`is_gradient_checkpointing` is deprecated",
        "FutureWarning",
        "a call within PEFT, which only tests use as a reference; PEFT must have changed it by then",
    ),
)


def unlisted(lines: str) -> list[str]:
    """Announcements in lines of the log that no entry tolerates, as one reads them in a failure."""
    found = map(json.loads, lines.splitlines())
    return [
        f"{one['kind']}: {one['message']} ({one['where']}, in {' '.join(one['command'])})"
        for one in found
        if not any(entry.kind == one["kind"] and re.match(entry.message, one["message"]) for entry in TOLERATED)
    ]


def filters() -> list[str]:
    """pytest's filters for its own process; later ones win."""
    libraries = r"(torch|lightning|transformers|galpaca)\b"
    categories = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
    return [
        *(f"error::{category}:{libraries}" for category in categories),
        *(f"ignore:{entry.message}:{entry.kind}" for entry in TOLERATED if entry.kind.endswith("Warning")),
    ]


class Log:
    """The file of announcements that all processes of a pytest worker append to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_bytes = 0

    def new_lines(self) -> str:
        """What was appended since the last call."""
        if not self.path.exists():
            return ""
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        return whole.decode()
