"""Ends a process at a chosen one of its writes, the way a power cut would: without a chance to clean up."""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from galpaca.data.collate import StepBatch
    from galpaca.training.module import InstructionTuner, StepOutcome

# What changes a file system. Files that Python's own objects write are seen when they are opened and synced.
_BY_PATH = ("mkdir", "rename", "replace", "unlink", "rmdir", "remove", "truncate")
_BY_DESCRIPTOR = ("write", "fsync")


def kill_at(folder: str, number: int, rank: int, log: str | None = None) -> None:
    """Kills this process and those started along with it right before its ``number``-th write below a folder.

    Args:
        number: from 1; 0 only counts.
        rank: process that counts and kills; others go on as ever.
        log: file that gets a line for every write.
    """

    def kill(event: str, count: int) -> None:
        if log is not None:
            _append(log, event)
        if count == number:
            os.killpg(os.getpgid(0), signal.SIGKILL)

    _watch(Path(folder), rank, kill)


def no_room_for_a_merged_model() -> None:
    """The GPU's memory does not hold what adapters are merged into."""
    import torch

    from galpaca.app.train import release

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    module: Any = release
    module.merged_losses = fail


def fail_at(folder: str, number: int, rank: int) -> None:
    """Lets the disk be full from the ``number``-th write below a folder on; what is removed makes no room."""

    def fail(event: str, count: int) -> None:
        if count >= number and event.split()[0] in ("write", "mkdir", "open"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    _watch(Path(folder), rank, fail)


def _watch(folder: Path, rank: int, act: Callable[[str, int], None]) -> None:
    if int(os.environ.get("LOCAL_RANK", "0")) != rank:
        return
    count = 0

    def seen(event: str, path: str) -> None:
        nonlocal count
        if path.startswith(str(folder)):
            count += 1
            act(f"{event} {path.removeprefix(str(folder))}", count)

    def path_of(descriptor: int) -> str:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())

    def watched(name: str, place: Callable[..., str]) -> None:
        original = getattr(os, name)

        @wraps(original)
        def call(first: Any, *rest: Any, **options: Any) -> Any:
            seen(name, place(first, **options))
            return original(first, *rest, **options)

        setattr(os, name, call)

    for name in _BY_PATH:
        watched(
            name,
            lambda path, dir_fd=None, **_: str(
                Path(path).absolute() if dir_fd is None else Path(path_of(dir_fd), path)
            ),
        )
    for name in _BY_DESCRIPTOR:
        watched(name, lambda descriptor, **_: path_of(descriptor))

    def opened(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            path, mode, flags = arguments
            if (isinstance(mode, str) and set(mode) & set("wax")) or (mode is None and flags & os.O_CREAT):
                seen("open", str(Path(path).absolute()))

    sys.addaudithook(opened)


def _append(log: str, line: str) -> None:
    with open(log, "a", encoding="utf-8") as file:  # noqa: PTH123 - nothing here may be counted
        file.write(line + "\n")


def no_room_in(path: str) -> None:
    """A disk that takes a file's name and none of its lines: the system's error names no file."""
    from galpaca.runs.metrics import MetricsFile

    start = MetricsFile.__init__

    def start_on_a_full_disk(self: Any, at: Path) -> None:
        start(self, at)
        if str(at) == path:
            self._file.close()
            self._file = open("/dev/full", "w", encoding="utf-8")  # noqa: PTH123, SIM115 - a device

    setattr(MetricsFile, "__init__", start_on_a_full_disk)  # noqa: B010


def terminate_at_step(step: int) -> None:
    """Asks the run to stop, as a scheduler would, when a step's figures have been written."""
    _signal_at(step, signal.SIGTERM)


def interrupt_twice_at_step(step: int) -> None:
    """Somebody who does not want to wait."""
    _signal_at(step, signal.SIGINT, signal.SIGINT)


def _signal_at(step: int, *numbers: signal.Signals) -> None:
    from galpaca.runs.lines import StepLine
    from galpaca.runs.metrics import MetricsFile

    write = MetricsFile.write

    def write_and_signal(self: MetricsFile, lines: Any) -> None:
        lines = list(lines)
        write(self, lines)
        if any(isinstance(line, StepLine) and line.step == step for line in lines):
            for number in numbers:
                os.kill(os.getpid(), number)

    MetricsFile.write = write_and_signal  # type: ignore[method-assign]


def signal_in_validation(batch: int, number: int, rank: int) -> None:
    """A signal to one rank in the midst of the first validation."""
    from galpaca.training.module import InstructionTuner

    validate = InstructionTuner.validation_step
    requested = False

    def step_and_signal(self: InstructionTuner, step: StepBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        nonlocal requested
        validate(self, step, batch_idx, dataloader_idx)
        if batch_idx == batch and self.global_rank == rank and not requested:
            requested = True
            os.kill(os.getpid(), number)

    InstructionTuner.validation_step = step_and_signal  # type: ignore[method-assign]


def signal_group_at_step(step: int, number: int) -> None:
    """To every process of the run, helpers included, as some schedulers do."""
    from galpaca.runs.lines import StepLine
    from galpaca.runs.metrics import MetricsFile

    write = MetricsFile.write

    def write_and_signal(self: MetricsFile, lines: Any) -> None:
        lines = list(lines)
        write(self, lines)
        if any(isinstance(line, StepLine) and line.step == step for line in lines):
            os.killpg(os.getpgid(0), number)

    MetricsFile.write = write_and_signal  # type: ignore[method-assign]


def signal_rank_at_step(step: int, number: int, rank: int) -> None:
    """To one rank alone, at the begin of a step."""

    def act(tuner: InstructionTuner, _: StepBatch, index: int) -> None:
        if index == step and tuner.global_rank == rank:
            os.kill(os.getpid(), number)

    _before_steps(act)


def suspend_at_step(step: int, seconds: float) -> None:
    """As a scheduler that gives the node to another job for a while."""

    def act(tuner: InstructionTuner, _: StepBatch, index: int) -> None:
        if index == step:
            wake = f"sleep {seconds}; kill -CONT {os.getpid()}"
            subprocess.Popen(["bash", "-c", wake], start_new_session=True)
            os.kill(os.getpid(), signal.SIGSTOP)

    _before_steps(act)


def keep_the_lock_at_step(step: int, backstop_seconds: float) -> None:
    """As an extension that waits and does not release Python's lock."""
    import ctypes

    from galpaca.training.callbacks import hang

    hang._BACKSTOP_SECONDS = backstop_seconds

    def keep_the_lock_before_step(_: InstructionTuner, __: StepBatch, index: int) -> None:
        if index == step:
            mutex, lock = ctypes.create_string_buffer(64), ctypes.PyDLL(None).pthread_mutex_lock
            lock(mutex)
            lock(mutex)  # which no signal interrupts

    _before_steps(keep_the_lock_before_step)


def note_modes(log: str) -> None:
    """Writes down, for each step, how many modules would leave dropout out."""
    _before_steps(lambda tuner, *_: _append(log, str(sum(not module.training for module in tuner.modules()))))


def slow_steps(seconds: float) -> None:
    """Each takes a while, and nothing of the processor."""
    _before_steps(lambda *_: time.sleep(seconds))


def sleep_in_step(step: int, rank: int) -> None:
    """A rank that hangs in its own code while the others wait for it."""

    def sleep_before_step(tuner: InstructionTuner, _: StepBatch, index: int) -> None:
        if index == step and tuner.global_rank == rank:
            time.sleep(600)

    _before_steps(sleep_before_step)


def wait_in_step(step: int, folder: str) -> None:
    """Rank 0 leaves a file ``waiting`` in a folder, and goes on when there is one called ``go``."""

    def act(tuner: InstructionTuner, _: StepBatch, index: int) -> None:
        if index == step and tuner.global_rank == 0:
            (Path(folder) / "waiting").touch()
            while not (Path(folder) / "go").exists():
                time.sleep(0.01)

    _before_steps(act)


def fail_and_linger(step: int, rank: int) -> None:
    """A rank that fails alone, and whose interpreter then waits for the others, as NCCL does when it is taken down."""
    import atexit

    def act(tuner: InstructionTuner, _: StepBatch, index: int) -> None:
        if index == step and tuner.global_rank == rank:
            atexit.register(time.sleep, 600)
            raise RuntimeError("this rank alone")

    _before_steps(act)


def add_in_any_order(step: int) -> None:
    """An operation for which torch has no other way, as a GPU may have some."""

    def act(_: InstructionTuner, batch: StepBatch, index: int) -> None:
        import torch

        if index == step:
            torch.use_deterministic_algorithms(True)
            torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))

    _before_steps(act)


def _before_steps(act: Callable[[InstructionTuner, StepBatch, int], None]) -> None:
    """Calls a function right before each step, with what the step gets."""
    from galpaca.training.module import InstructionTuner

    train = InstructionTuner.training_step

    def act_and_train(self: InstructionTuner, step: StepBatch, batch_idx: int) -> dict[str, StepOutcome]:
        act(self, step, batch_idx)
        return train(self, step, batch_idx)

    InstructionTuner.training_step = act_and_train  # type: ignore[method-assign]


def poison(step: int, rank: int, layer: int) -> None:
    """A layer that gives NaN for one rank's examples of one step, each time they come by; on that rank alone."""
    from galpaca.model.parts import plain_name
    from galpaca.training.module import InstructionTuner

    setup = InstructionTuner.on_train_start
    poisoned = False

    def mark(tuner: InstructionTuner, index: int) -> None:
        nonlocal poisoned
        poisoned = index == step and tuner.global_rank == rank

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        return output * float("nan") if poisoned else output

    def setup_and_hook(self: InstructionTuner) -> None:
        (fc1,) = (m for name, m in self.model.named_modules() if plain_name(name).endswith(f"layers.{layer}.fc1"))
        fc1.register_forward_hook(hook)
        setup(self)

    _before_micro_batches(mark)
    InstructionTuner.on_train_start = setup_and_hook  # type: ignore[method-assign]


def overflow(step: int, rank: int) -> None:
    """One value of what a single rank holds of the gradients, as if its product had left float16's range."""
    import torch

    from galpaca.training.module import InstructionTuner

    measure = InstructionTuner.on_before_optimizer_step

    def spoil_and_measure(self: InstructionTuner, optimizer: torch.optim.Optimizer) -> None:
        if self.trainer.global_step == step and self.global_rank == rank:
            gradients = (one.grad for group in optimizer.param_groups for one in group["params"])
            next(one for one in gradients if one is not None and one.numel()).view(-1)[0] = math.inf
        measure(self, optimizer)

    InstructionTuner.on_before_optimizer_step = spoil_and_measure  # type: ignore[method-assign]


def leave_out_updates(steps: list[int]) -> None:
    """Updates are not made, by the plainest means."""
    import torch
    from torch.optim import AdamW

    from galpaca.training.optimizers.piecewise_adamw import PiecewiseAdamW

    left_out = False

    def note(_: InstructionTuner, step: StepBatch, index: int) -> None:
        nonlocal left_out
        left_out = step.index in steps

    def unless(update: Any) -> Any:
        def step(self: Any, closure: Any = None) -> Any:
            if not left_out:
                return update(self, closure)
            with torch.enable_grad():
                return closure()

        return step

    _before_steps(note)
    for kind in (AdamW, PiecewiseAdamW):
        kind.step = unless(kind.step)  # type: ignore[method-assign]


def poison_from(step: int) -> None:
    """Every loss from a step on is NaN."""
    from galpaca.training.module import InstructionTuner

    forward = InstructionTuner.forward
    at = 0

    def note(_: InstructionTuner, index: int) -> None:
        nonlocal at
        at = index

    def poisoned(self: InstructionTuner, *given: Any) -> Any:
        return forward(self, *given) * (float("nan") if at >= step else 1)

    _before_micro_batches(note)
    InstructionTuner.forward = poisoned  # type: ignore[method-assign,assignment]


def _before_micro_batches(act: Callable[[InstructionTuner, int], None]) -> None:
    """Calls a function with the number of the step, right before each of its micro-batches."""
    from galpaca.training.module import InstructionTuner

    seed = InstructionTuner.seed_micro_batch

    def act_and_seed(self: InstructionTuner, step: int, micro_batch: int) -> None:
        act(self, step)
        seed(self, step, micro_batch)

    InstructionTuner.seed_micro_batch = act_and_seed  # type: ignore[method-assign]


def poison_and_terminate(step: int, rank: int, layer: int, terminate_at: int) -> None:
    poison(step, rank, layer)
    terminate_at_step(terminate_at)


def leave_the_network() -> None:
    """For namespaces of this process's own, as ``unshare -rn`` makes them: there is no network, not even loopback."""
    import ctypes

    new_user, new_network = 0x10000000, 0x40000000
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(new_user | new_network):
        raise OSError(ctypes.get_errno(), "unshare")
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(line)
