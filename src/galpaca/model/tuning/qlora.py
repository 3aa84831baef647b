"""QLoRA's settings: adapters on linear layers whose frozen matrices are in 4 bits."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from galpaca.errors import InputError, Problems
from galpaca.estimate.memory import Held
from galpaca.model.tuning.lora import Lora, layer_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from galpaca.model.families.family import Family
    from galpaca.model.tensors import Shapes, TensorSource
    from galpaca.model.tuning.method import TuningMethod


@dataclass(frozen=True)
class QLora(Lora):
    """QLoRA (Dettmers et al. 2023): as LoRA, and all linear layers' frozen matrices are quantized to NF4.

    The embedding and the head, which may be one matrix, stay in the compute dtype; scales are not quantized again.

    Attributes:
        rank: width of the adapters.
        alpha: the adapters' product is multiplied by ``alpha / rank``.
        dropout: probability that an input of an adapter is left out in training, besides the model's own dropout.
        targets: linear layers that get one, such as ``[q_proj, v_proj]``; default: all within the decoder layers.
    """

    # Half a byte, and a float32 scale for each 64. A product makes its matrix again: indices, float32, 16 bits.
    held: ClassVar[Held] = Held(linear=0.5 + 4 / 64, embedding=2.0, trains_all=False, scratch=10.0)
    timeline: ClassVar[str | None] = "qlora"

    def check(self, weight_dtype: str) -> None:
        if weight_dtype != "float32":
            raise InputError(
                f"tuning=qlora does not support weights in {weight_dtype}",
                where="precision",
                why="the 4-bit numbers are products of float32 scales",
                fix="precision=bf16-mixed, 16-mixed or 32-true; or tuning=lora",
            )

    def check_model(self, base: Shapes) -> None:
        with Problems() as problems:
            check_blocks(problems, self.family, base)
        super().check_model(base)

    def adapt(self, model: nn.Module) -> None:
        super().adapt(model)
        quantize_layers(model, self.family, but=self.layers)

    def _beside(self, layer: Any) -> nn.Module:
        from galpaca.model.tuning.nf4_linear import Nf4LoraLinear

        return Nf4LoraLinear.beside(layer, self.low_rank)

    def shapes(self, base: Shapes) -> Shapes:
        return quantized_shapes(self.family, super().shapes(base))

    def starting_weights(self, base: TensorSource, seed: int) -> TensorSource:
        from galpaca.model.tuning.tensors import FirstAdapters, QuantizedTensors

        shapes = self.shapes(base.shapes)
        return FirstAdapters(QuantizedTensors(base, quantized_shapes(self.family, base.shapes)), shapes, seed)

    def adapted_base(self, base: TensorSource, compute_dtype: torch.dtype) -> TensorSource:
        from galpaca.model.tuning.tensors import DequantizedTensors

        return super().adapted_base(DequantizedTensors(base, partial(is_quantized, self.family)), compute_dtype)

    def describe(self) -> str:
        return f"Q{super().describe()}, frozen matrices in NF4"

    def memory_advice(self) -> list[str]:
        return []


def in_four_bits(method: TuningMethod) -> QLora | None:
    """The adapters of a method, beside matrices in 4 bits; None where what it trains is no adapter."""
    config = method.adapter_config()
    if config is None:
        return None
    settings = (config["r"], config["lora_alpha"], config["lora_dropout"])
    return QLora(*settings, targets=config["target_modules"]).on(method.family)


def is_quantized(family: Family, name: str) -> bool:
    """Whether a parameter of the base is a matrix of a linear layer, which goes into 4 bits."""
    return name.endswith(".weight") and layer_of(name) in family.linear_layers


def quantized_shapes(family: Family, shapes: Shapes) -> Shapes:
    """With codes and scales in the place of matrices."""
    from galpaca.model.tuning.nf4 import BLOCK_VALUES

    quantized: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if is_quantized(family, name):
            stem, num_values = name.removesuffix(".weight"), math.prod(shape)
            quantized |= {f"{stem}.codes": (num_values // 2,), f"{stem}.scales": (num_values // BLOCK_VALUES,)}
        else:
            quantized[name] = shape
    return quantized


def check_blocks(problems: Problems, family: Family, base: Shapes) -> None:
    """Reports matrices that are no whole number of blocks, which no known model has."""
    from galpaca.model.tuning.nf4 import BLOCK_VALUES

    for name, shape in base.items():
        if is_quantized(family, name) and math.prod(shape) % BLOCK_VALUES:
            problems.add(
                f"the size of {name} is no multiple of {BLOCK_VALUES}: {' x '.join(map(str, shape))}",
                where="tuning",
                why="4-bit numbers share a scale in blocks",
                fix="tuning=lora",
            )


def quantize_layers(model: nn.Module, family: Family, but: Collection[str] = ()) -> None:
    """Puts ``Nf4Linear`` in the place of linear layers on the meta device, but for those of these names."""
    from torch import nn

    from galpaca.model.tuning.nf4_linear import Nf4Linear

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and name in family.linear_layers and name not in but:
                setattr(module, name, Nf4Linear.like(child))
