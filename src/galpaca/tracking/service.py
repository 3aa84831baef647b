"""W&B's Python interface, as this project uses it: nothing waits for long, no person is prompted."""

from __future__ import annotations

import os
import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galpaca.runs.folder import RunFolder
from galpaca.tracking.rows import STEP, STREAMS

if TYPE_CHECKING:
    import wandb

ANSWER_SECONDS = 10.0
INIT_SECONDS = 30.0
# Nothing of W&B's own is needed to send a run again, nor are figures of the machine that happens to send it. Left out
# where a version of W&B lacks them.
_OPTIONAL_SETTINGS = {"x_skip_transaction_log": True, "x_disable_stats": True}


@dataclass(frozen=True)
class Run:
    """A run folder, and what it is called at W&B.

    Attributes:
        id: the same at every start.
        finish_seconds: how long the end of a session may take: what is left is uploaded then.
    """

    folder: RunFolder
    id: str
    project: str
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None
    finish_seconds: float = 30.0


def library() -> Any:
    """The package, without reports of its own use (a run would wait for them on a dead network) unless requested."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


def has_key() -> bool:
    """Whether a person has logged in, or set ``WANDB_API_KEY``. Nobody is prompted."""
    _setup()
    return bool(library().login(prompt=False, verify=False))


def server() -> str:
    """Its address."""
    return str(_setup().settings.base_url)


def is_reachable(seconds: float = ANSWER_SECONDS) -> bool:
    """Whether W&B's server answers anything at all, through the proxies of the environment."""
    try:
        urllib.request.urlopen(server(), timeout=seconds).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError) as error:
        return isinstance(getattr(error, "reason", None), ssl.SSLError)  # W&B's own settings decide about those
    return True


def start(run: Run) -> wandb.Run:
    """Resumes the run at W&B, or starts it.

    Raises:
        Exception: of many kinds, if W&B does not respond or rejects the run.
    """
    wandb = library()
    # Where copies of an artifact's files wait for an upload: a home directory may be another one, or full.
    os.environ.setdefault("WANDB_DATA_DIR", str(run.folder.wandb / "data"))
    optional = {key: value for key, value in _OPTIONAL_SETTINGS.items() if key in wandb.Settings.model_fields}
    session = wandb.init(
        project=run.project,
        entity=run.entity,
        group=run.group,
        tags=list(run.tags) or None,
        notes=run.notes,
        name=run.folder.name,
        id=run.id,
        resume="allow",
        reinit="create_new",
        dir=run.folder.path,
        mode="online",
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,  # run.json has the commit; a diff of somebody's folder is nobody's business
            init_timeout=INIT_SECONDS,
            finish_timeout=run.finish_seconds,
            finish_timeout_raises=True,
            **optional,
        ),
    )
    # Every chart has the run's own steps on its x axis; what only serves to count is no chart.
    for name in (STEP, *(key for stream in STREAMS for key in (stream.number, stream.place))):
        session.define_metric(name, hidden=True)
    session.define_metric("*", step_metric=STEP)
    return session


def send_record(run: wandb.Run, files: Iterable[Path]) -> None:
    """Keeps files as the artifact ``run-<id>``, of which W&B counts the versions."""
    artifact = library().Artifact(f"run-{run.id}", type="run-record")
    for file in files:
        if file.is_file():
            artifact.add_file(str(file))
    run.log_artifact(artifact)


def abandon() -> None:
    """Ends W&B's process, whatever it is still sending. One that hangs would keep this one from ending."""
    for child in _children():
        with suppress(OSError):
            if (Path("/proc") / str(child) / "comm").read_text(encoding="ascii").strip() == "wandb-core":
                os.kill(child, signal.SIGKILL)


def shut_down() -> None:
    """Ends W&B's process, if it is there; without this, it would be ended, and complained about, at exit."""
    with suppress(Exception):  # it has died already
        library().teardown()


def _setup() -> Any:
    wandb = library()
    return wandb.setup(settings=wandb.Settings(silent=True))


def _children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found += [int(child) for child in task.read_text(encoding="ascii").split()]
    return found
