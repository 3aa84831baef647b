"""LoRA's settings: adapters on linear layers of a frozen model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from galpaca.errors import Problems
from galpaca.estimate.memory import Held
from galpaca.model.tuning.method import TuningMethod

if TYPE_CHECKING:
    import torch
    from torch import nn

    from galpaca.model.families.family import Family
    from galpaca.model.tensors import Shapes, TensorSource
    from galpaca.model.tuning.low_rank import LowRank

# Those of adapters are ten times full tuning's (Schulman et al. 2025, "LoRA Without Regret").
_USUAL_LR = 5e-5


@dataclass(frozen=True)
class Lora(TuningMethod):
    """LoRA (Hu et al. 2021): the model is frozen, and beside each of some linear layers a low-rank product is trained.

    Attributes:
        rank: width of the adapters.
        alpha: the adapters' product is multiplied by ``alpha / rank``.
        dropout: probability that an input of an adapter is left out in training, besides the model's own dropout.
        targets: linear layers that get one, such as ``[q_proj, v_proj]``; default: all within the decoder layers.
    """

    keeps_base: ClassVar[bool] = True
    mixes_dtypes: ClassVar[bool] = True
    # No gradient of the frozen weights: 2 forward, 2 for the gradient of what comes in.
    flops_per_weight: ClassVar[int] = 4
    held: ClassVar[Held] = Held(linear=2.0, embedding=2.0, trains_all=False, scratch=0.0)
    timeline: ClassVar[str | None] = "lora"

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        with Problems() as problems:
            problems.check_at_least_one("tuning.", {"rank": self.rank})
            problems.check_number("tuning.alpha", self.alpha, "> 0", "tuning.alpha=32, or twice the rank")
            problems.check_number("tuning.dropout", self.dropout, "in [0, 1)", "tuning.dropout=0.05")
            if self.targets is not None and not self.targets:
                fix = "tuning.targets=null for all linear layers, or some of them"
                problems.add("names no layer, so nothing would train", where="tuning.targets", fix=fix)
            for name in dict.fromkeys(self.layers):
                if self.layers.count(name) > 1:
                    problems.add(f"names {name} twice", where="tuning.targets", fix="name it once")

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the linear layers that get an adapter."""
        return self.family.linear_layers if self.targets is None else tuple(self.targets)

    def on(self, family: Family) -> Self:
        bound = super().on(family)
        fix = f"tuning.targets=null for all, or some of tuning.targets=[{','.join(family.linear_layers)}]"
        with Problems() as problems:
            for name in bound.layers:
                if name not in family.linear_layers:
                    what = f"not a linear layer of {family.title}'s decoder: {name!r}"
                    is_of_tokens = f".{name}." in f".{family.embedding} .{family.head}"
                    why = "the head may be the embedding's matrix, and both stay as they are" if is_of_tokens else ""
                    problems.add(what, where="tuning.targets", why=why, fix=fix)
        return bound

    @property
    def low_rank(self) -> LowRank:
        from galpaca.model.tuning.low_rank import LowRank

        return LowRank(self.rank, self.alpha / self.rank, self.dropout)

    def check_model(self, base: Shapes) -> None:
        with Problems() as problems:
            adapted = self._adapted(base)
            if not adapted:
                what = f"no matrix of the model belongs to {', '.join(self.layers)}"
                problems.add(what, where="tuning.targets", fix="name linear layers that the model has")
            smallest = min(((min(base[name]), name) for name in adapted), default=(self.rank, ""))
            if self.rank > smallest[0]:
                problems.add(
                    f"must not exceed the smaller side of a layer, got {self.rank}",
                    where="tuning.rank",
                    why=f"{smallest[1]} is {' x '.join(map(str, base[smallest[1]]))}",
                    fix=f"tuning.rank={smallest[0]} or less; 8 to 64 are usual",
                )

    def _adapted(self, shapes: Shapes) -> list[str]:
        """Names of the matrices that get an adapter."""
        return [name for name in shapes if layer_of(name) in self.layers and name.endswith(".weight")]

    def prepare(self, model: nn.Module, compute_dtype: torch.dtype) -> None:
        from galpaca.model.tuning.frozen import freeze

        freeze(model, self.family, compute_dtype)
        self.adapt(model)

    def adapt(self, model: nn.Module) -> None:
        """Puts adapted layers in the place of linear ones, what is new on the meta device; dtypes stay."""
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if name in self.layers:
                    setattr(module, name, self._beside(child))

    def _beside(self, layer: Any) -> nn.Module:
        from galpaca.model.tuning.low_rank import LoraLinear

        return LoraLinear.beside(layer, self.low_rank)

    def trained(self, name: str) -> bool:
        return ".lora_A." in name or ".lora_B." in name

    def shapes(self, base: Shapes) -> Shapes:
        from galpaca.model.tuning.low_rank import A, B

        shapes = dict(base)
        for name in self._adapted(base):
            rows, width = base[name]
            stem = name.removesuffix(".weight")
            shapes |= {f"{stem}.{A}": (self.rank, width), f"{stem}.{B}": (rows, self.rank)}
        return shapes

    def starting_weights(self, base: TensorSource, seed: int) -> TensorSource:
        from galpaca.model.tuning.tensors import FirstAdapters

        return FirstAdapters(base, self.shapes(base.shapes), seed)

    def adapted_base(self, base: TensorSource, compute_dtype: torch.dtype) -> TensorSource:
        """The base as it was in training."""
        from galpaca.model.tuning.frozen import frozen_dtype
        from galpaca.model.tuning.tensors import RoundedTensors

        return RoundedTensors(base, lambda name: frozen_dtype(self.family, name, base.shapes[name], compute_dtype))

    def released(
        self, base: TensorSource, trained: TensorSource, compute_dtype: torch.dtype, *, original: bool = False
    ) -> TensorSource:
        from galpaca.model.tuning.tensors import MergedTensors

        under = base if original else self.adapted_base(base, compute_dtype)
        return MergedTensors(under, trained, self.alpha / self.rank)

    def adapter_config(self) -> dict[str, Any] | None:
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": list(self.layers),
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
        }

    def describe(self) -> str:
        is_all = set(self.layers) == set(self.family.linear_layers)
        where = "all linear layers" if is_all else ", ".join(self.layers)
        return f"LoRA of rank {self.rank}, alpha {self.alpha:g}, dropout {self.dropout:g}, on {where}"

    def lr_advice(self, lr: float) -> str:
        if lr >= _USUAL_LR:
            return ""
        return f"{lr:g} is a rate of full tuning; adapters are usually tuned with ten times that: optim.lr=2e-4"

    def memory_advice(self) -> list[str]:
        return ["tuning=qlora (the frozen model in 4 bits: slower, and another recipe, so needs a new run.name)"]

    def recipe(self) -> Mapping[str, Any]:
        return {**self.values(), "targets": sorted(self.layers)}


def layer_of(name: str) -> str:
    """The module that a parameter belongs to, ``fc1`` for ``model.decoder.layers.0.fc1.weight``."""
    return name.rpartition(".")[0].rpartition(".")[2]
