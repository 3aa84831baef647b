"""W&B's Python interface, as this project uses it: nothing waits for long, nothing is asked of a person."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from galpaca.training.tracking.rows import LINE, STEP, is_line

if TYPE_CHECKING:
    import wandb

Mode = Literal["online", "offline", "disabled"]

ANSWER_SECONDS = 10.0
INIT_SECONDS = 30.0
FINISH_SECONDS = 30.0
ROW = "row"
SAMPLES, SAMPLES_STEP = "samples/answers", "samples/step"


@dataclass(frozen=True)
class Run:
    """What a run is called at W&B.

    Attributes:
        folder: the run's; its logs are in ``wandb/`` there.
        name: shown.
        id: the same at every start.
    """

    folder: Path
    name: str
    id: str
    project: str
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None


def library() -> Any:
    """The package, without reports of its own use (a run would wait for them on a dead network) unless asked for."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


def has_key() -> bool:
    """Whether a person has logged in, or set ``WANDB_API_KEY``. Nobody is asked."""
    wandb = library()
    wandb.setup(settings=wandb.Settings(silent=True))
    return bool(wandb.login(prompt=False, verify=False))


def server() -> str:
    """Its address."""
    return str(library().setup().settings.base_url)


def is_reachable(seconds: float = ANSWER_SECONDS) -> bool:
    """Whether W&B's server answers anything at all, through the proxies of the environment."""
    try:
        urllib.request.urlopen(server(), timeout=seconds).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # W&B's own settings decide about those
    except (OSError, ValueError):
        return False
    return True


def begin(run: Run, mode: Mode) -> wandb.Run:
    """Goes on with the run, or begins it.

    Raises:
        Exception: of many kinds, if W&B does not respond or rejects the run.
    """
    wandb = library()
    # Where copies of an artifact's files wait for an upload: a home directory may be another one, or full.
    os.environ.setdefault("WANDB_DATA_DIR", str(run.folder / "wandb" / "data"))
    begun = wandb.init(
        project=run.project,
        entity=run.entity,
        group=run.group,
        tags=list(run.tags) or None,
        notes=run.notes,
        name=run.name,
        id=run.id,
        resume="allow",  # offline it tells ``wandb sync`` to append
        dir=run.folder,
        mode=mode,
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,  # run.json has the commit; a diff of somebody's folder is nobody's business
            init_timeout=INIT_SECONDS,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=True,
        ),
    )
    define_metrics(begun)
    return begun


def define_metrics(run: wandb.Run) -> None:
    """Every chart has the run's own steps on its x axis; what only serves to count is no chart."""
    for name in (STEP, LINE, ROW, SAMPLES_STEP):
        run.define_metric(name, hidden=True)
    run.define_metric("*", step_metric=STEP)


def last_line(run: wandb.Run) -> int:
    """Number of the last line that the server has of a run that goes on; -1 where it has none.

    W&B sends a row's summary right before the row. Where a kill came between the two, the summary tells of a row that
    is not there.
    """
    place, row = int(run.summary.get(LINE, -1)), int(run.summary.get(ROW, -1))
    return place - 1 if is_line(place) and row >= run.starting_step else place


class History:
    """Rows of a run, each with its number where that is known: without a network, W&B counts from 0 at each start.

    Nothing else may log to the run. (W&B's own ``step`` takes a question to its process, and tells of 0 at first.)
    """

    def __init__(self, run: wandb.Run) -> None:
        self._run, self._next = run, run.starting_step

    def send(self, row: Mapping[str, Any]) -> None:
        self._run.log({**row, **({} if self._run.offline else {ROW: self._next})})
        self._next += 1


def send_record(run: wandb.Run, files: Iterable[Path]) -> None:
    """Keeps files as the artifact ``run-<id>``, of which W&B counts the versions."""
    wandb = library()
    artifact = wandb.Artifact(f"run-{run.id}", type="run-record")
    for file in files:
        if file.is_file():
            artifact.add_file(str(file))
    run.log_artifact(artifact)


def finish(run: wandb.Run, exit_code: int = 0) -> None:
    """Uploads what is left; again, it does nothing.

    Raises:
        TimeoutError: not all of it could be uploaded in time.
    """
    run.finish(exit_code=exit_code)


def shut_down() -> None:
    """Ends W&B's process, if it is there; without this, it would be ended, and complained about, at exit."""
    with suppress(Exception):  # it has died already
        library().teardown()
