"""A step of a run on a card and with ranks that are not there: the project's own model, strategy and optimizer, on fake
tensors, under Lightning. What it would allocate is counted, operation by operation.

Run by ``python -m galpaca.fake_cuda CARD galpaca.app.estimate.traced`` with a ``Trace`` as JSON, its argument or its
standard input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import PreTrainedModel

    from galpaca.app.config.schema import Config
    from galpaca.data.collate import MicroBatch, StepBatch
    from galpaca.fake_cuda.live import LiveBytes

    Watch = Callable[[PreTrainedModel, LiveBytes], None] | None


_EXAMPLE_TOKENS = 120


@dataclass(frozen=True)
class Trace:
    """What is traced.

    Attributes:
        overrides: of the run, as its command has them.
        config: content of the model's ``config.json``.
        num_tokens, num_targets, num_examples, longest_tokens: of each micro-batch, as after padding.
        micro_batches: how many each step has on a rank. The first step has no moments yet, and compiles; the last
            one counts.
    """

    overrides: list[str]
    config: dict[str, Any]
    num_tokens: int
    num_targets: int
    num_examples: int
    longest_tokens: int
    micro_batches: Sequence[int] = (2, 2)


@dataclass(frozen=True)
class Traced:
    """What a rank would allocate, in bytes.

    Attributes:
        start: when training starts: weights.
        between: after a step, before its gradients are freed.
        backward: at most from the step's start until all its gradients are there.
        update: at most during the update.
    """

    start: int
    between: int
    backward: int
    update: int

    @property
    def peak(self) -> int:
        return max(self.backward, self.update)


def trace(request: Trace, count: Callable[[FakeTensorMode], LiveBytes] | None = None, watch: Watch = None) -> Traced:
    """Some steps; the last one's bytes count.

    Args:
        count: makes what counts.
        watch: called with the model and what counts, when the model is ready to be trained.
    """
    from galpaca.app.config.composition import compose
    from galpaca.model.families.known import family_of

    config, _ = compose(request.overrides)
    content = dict(request.config)
    model_type = content.pop("model_type")
    family = family_of(model_type, "model.config", config.model.family)
    config = config.on(family)
    _as_first_of_many(config)
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoConfig

    from galpaca.app.train.prepared_model import prepare_model
    from galpaca.fake_cuda.live import LiveBytes
    from galpaca.model.build import build_model
    from galpaca.training.trainer import make_trainer

    described: Any = AutoConfig.for_model(model_type, **content)
    family.configure(described, config.model)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, (count or LiveBytes)(mode) as live:
        model = build_model(described, family)
        prepare_model(model, config)
        if watch is not None:
            watch(model, live)
        strategy, precision = config.strategy.factory.make(config.trainer.accelerator, config.precision)
        marks = _marks(live)
        trainer: Any = make_trainer(strategy, precision, replace(config.trainer, val_every_steps=None), [marks])
        trainer._teardown = lambda: None  # there is nothing to move to the host
        tuner = _tuner(model, config, len(request.micro_batches))
        trainer.fit(tuner, train_dataloaders=_Steps(request, config.trainer.num_ranks))
    return Traced(**marks.found)


def _as_first_of_many(config: Config) -> None:
    """Has this process be the first of a run's ranks, as torchrun's first is."""
    import torch

    from galpaca.fake_cuda.ranks import become_first_of

    devices, num_ranks = config.trainer.devices, config.trainer.num_ranks
    torch.cuda.device_count = lambda: devices
    if num_ranks > 1:
        os.environ |= {"TORCHELASTIC_RUN_ID": "traced", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
        os.environ |= {"WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(devices)}
        os.environ |= dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK"), "0")
        become_first_of(num_ranks)


def _tuner(model: Any, config: Config, num_steps: int) -> Any:
    from galpaca.training.module import InstructionTuner

    class Placed(InstructionTuner):
        """One whose parameters are where they belong; Lightning would move them once more, for nothing."""

        def to(self, *_: Any, **__: Any) -> Any:
            return self

    method = config.tuning.method
    return Placed(model, config.optim, num_steps=num_steps, seed=config.seed, tuning=method)


def _marks(live: LiveBytes) -> Any:
    """A callback that notes what is allocated by the parts of a step."""
    import lightning as L

    class Marks(L.Callback):
        def __init__(self) -> None:
            self.found: dict[str, int] = {}

        def on_train_start(self, *_: Any) -> None:
            self.found["start"] = live.now

        def on_train_batch_start(self, *_: Any) -> None:
            live.restart()

        def on_before_optimizer_step(self, *_: Any) -> None:
            self.found["backward"] = live.restart()

        def on_train_batch_end(self, *_: Any) -> None:
            self.found["update"], self.found["between"] = live.restart(), live.now

    return Marks()


class _Steps:
    """Batches of nothing but sizes."""

    def __init__(self, request: Trace, num_ranks: int) -> None:
        self._request, self._num_ranks = request, num_ranks

    def __iter__(self) -> Iterator[StepBatch]:
        from galpaca.data.collate import StepBatch

        request = self._request
        for index, count in enumerate(request.micro_batches):
            planned: Any = SimpleNamespace(index=index, num_target_tokens=request.num_targets * self._num_ranks)
            yield StepBatch(planned, [self._micro_batch() for _ in range(count)], 0)

    def _micro_batch(self) -> MicroBatch:
        import torch

        from galpaca.data.collate import MicroBatch

        def ids(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=torch.int64, device="cuda")

        request = self._request
        return MicroBatch(
            input_ids=ids(1, request.num_tokens),
            position_ids=ids(1, request.num_tokens),
            cu_seqlens=torch.empty(request.num_examples + 1, dtype=torch.int32, device="cuda"),
            lengths=_lengths(request.num_tokens),
            longest_tokens=request.longest_tokens,
            target_rows=ids(request.num_targets),
            target_ids=ids(request.num_targets),
        )


def _lengths(num_tokens: int) -> tuple[int, ...]:
    """Of examples as long as Alpaca's are on average."""
    whole, rest = divmod(num_tokens, _EXAMPLE_TOKENS)
    return (*(_EXAMPLE_TOKENS,) * whole, *((rest,) if rest else ()))


def main() -> None:
    request = sys.argv[1] if len(sys.argv) > 1 else sys.stdin.read()
    print(json.dumps(asdict(trace(Trace(**json.loads(request))))))


if __name__ == "__main__":
    main()
