"""How commands start and end: Hydra composition, error messages, exit codes."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from galpaca.app.cluster.ranks import end_with_launcher, global_rank, is_launched_child, stop_launcher
from galpaca.app.cluster.slurm import decide, requeue
from galpaca.app.output import CLOSED, OutputLostError, lasting_output
from galpaca.errors import GalpacaError, StoppedBySignal
from galpaca.files.disks import OF_THE_DISK
from galpaca.runs.host import describe_disk
from galpaca.runs.last_resort import UNWIND_SECONDS
from galpaca.runs.shutdown import Shutdown, ignore_signals

if TYPE_CHECKING:
    from omegaconf import DictConfig

_RANK_0_FIRST_SECONDS = 5.0
# Ends the job, and is lower than any code that rank 0 may have for it: of a job's codes, SLURM shows the highest.
_OF_ANOTHER_RANK = 1


def run_command(command: Callable[[], object], *, only_prints: bool = False) -> int:
    """Runs a command and turns its errors into a message and an exit code.

    A SLURM job that was warned by SIGUSR1 or is being preempted is requeued.

    Args:
        only_prints: the command has nothing to do when nobody reads what it prints.

    Returns:
        0 on success, 2 for a user error, 143 if stopped by a signal, 141 if nobody reads what it prints, 1 for any
        other foreseen error.
    """
    # From the door on, so that whatever a signal ends takes away what it has half-written.
    shutdown = Shutdown(end=_end_at_once)
    with lasting_output(only_prints=only_prints), shutdown.listening():
        return _exit_code(command, shutdown)


def _exit_code(command: Callable[[], object], shutdown: Shutdown) -> int:
    try:
        _unmask_stop(command)
        sys.stdout.flush()  # what is left of it may not be written either
    except GalpacaError as error:
        if global_rank() == 0:  # every rank sees the same
            print(f"error: {error}", file=sys.stderr)
        elif error.of_one_rank:
            print(f"error on rank {global_rank()}: {error}", file=sys.stderr)
        else:
            _let_rank_0_speak(_RANK_0_FIRST_SECONDS)
        return error.exit_code
    except StoppedBySignal as stop:
        shutdown.leave()
        return _stopped(stop)
    except OutputLostError as lost:
        if lost.nobody_reads:
            return CLOSED
        fix = "free space on the disk that the output goes to, or send it elsewhere"
        print(f"error: {GalpacaError(f'cannot write: {lost.reason}', where=lost.stream, fix=fix)}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        why = describe_disk(Path(error.filename)) if error.filename else ""
        fix = "free disk space (or set another run.root), then rerun the command to resume from the last checkpoint"
        full = GalpacaError(f"cannot write: {error.strerror}", where=error.filename or "", why=why, fix=fix)
        print(f"error: {full}", file=sys.stderr)
        return 1
    return 0


def _unmask_stop(command: Callable[[], object]) -> None:
    """Runs a command; an error that a library made of a signal's exception is that exception again."""
    try:
        command()
    except BaseException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, StoppedBySignal):
            cause = cause.__cause__ or cause.__context__
        if cause is None or cause is error:
            raise
        raise cause from None


def _stopped(stop: StoppedBySignal) -> int:
    """The last act of a run that was stopped; SLURM ends all its processes at once when it requeues them."""
    if stop.agreed and global_rank() != 0:
        return 0  # for any other code, the launcher would end rank 0 before its last act
    if is_launched_child():
        stop_launcher(stop.number)
        return 0
    if global_rank() != 0:
        _let_rank_0_speak(UNWIND_SECONDS)  # if it got the signal too, nothing is left to do
    else:
        print(str(stop), file=sys.stderr, flush=True)
    if message := requeue(decide(stop.number)):
        print(message, file=sys.stderr, flush=True)
    return stop.exit_code if global_rank() == 0 else _OF_ANOTHER_RANK


def _end_at_once(stop: StoppedBySignal) -> NoReturn:
    """In a thread, of a process whose main thread waits for what will never come."""
    code = stop.exit_code
    try:
        code = _stopped(stop)
    finally:
        _exit_at_once(code)


def _let_rank_0_speak(seconds: float) -> None:
    """Waits for rank 0 to end: launchers end all processes when the first one leaves with an error."""
    ignore_signals()
    time.sleep(seconds)


def train_with_hydra() -> int:
    """``train.py``: Hydra reads the command line, composes, and calls ``train``."""
    end_with_launcher()
    try:
        code = run_command(_hydra)
    except BaseException:
        if not _in_process_group():
            raise
        traceback.print_exc()
        code = 1
    finally:
        # SLURM's exit code of a job is the highest of all tasks'. It ends the others when one has failed, and
        # whichever is on its way out anyway must not hide the code that says why.
        ignore_signals()
    if _in_process_group():
        _exit_at_once(code)
    return code


def _in_process_group() -> bool:
    """Whether this rank is still connected to the others: a run that ends well has left them before."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _exit_at_once(code: int) -> NoReturn:
    """Without the interpreter's own end, in which Lightning takes NCCL's communicators down.

    That waits for ranks which are themselves waiting for this one in a collective: the process would never end, and no
    launcher would see that it has failed.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _hydra() -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its errors itself and exits with 1
    import hydra

    from galpaca.app.config.composition import all_problems, register, with_home
    from galpaca.app.config.habits import MULTIRUN, check_arguments
    from galpaca.app.config.messages import COMPOSITION_ERRORS
    from galpaca.app.config.schema import config_folder

    register()
    check_arguments(sys.argv[1:])
    if any(word in MULTIRUN for word in sys.argv[1:]):
        from galpaca.app.train.sweep import sweep

        return sweep(sys.argv[1:])
    sys.argv[1:] = with_home(sys.argv[1:])  # where Hydra reads them, and the ranks that Lightning starts

    ended_by: list[BaseException] = []

    def task(node: DictConfig) -> None:
        try:
            _train(node)
        except BaseException as reason:  # through Hydra it would gain a preface and twenty frames of hers
            ended_by.append(reason)

    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")(task)()
    except COMPOSITION_ERRORS as error:
        raise all_problems(error, [argument for argument in sys.argv[1:] if "=" in argument]) from None
    for reason in ended_by:
        raise reason


def _train(node: DictConfig) -> None:
    from galpaca.app.config.composition import resolve

    config, resolved_yaml = resolve(node)
    from galpaca.app.train.run import train  # heavy: after the checks that need none of it

    train(config, resolved_yaml)
