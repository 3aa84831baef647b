"""4-bit numbers against bitsandbytes, and products of them: in ranges, recomputed, compiled."""

from functools import partial
from typing import Any

import bitsandbytes.functional as bnb
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from galpaca.model.families.opt import OPT
from galpaca.model.tuning.low_rank import LowRank
from galpaca.model.tuning.nf4 import codes_of, dequantize, scales_of
from galpaca.model.tuning.nf4_linear import Nf4Linear, Nf4LoraLinear
from galpaca.model.tuning.qlora import quantized_shapes
from galpaca.model.tuning.tensors import DequantizedTensors, QuantizedTensors

SHAPES = ((64, 64), (192, 320), (7, 128))


class Tensors:
    """A source of tensors in memory."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def read(self, name: str, start: int, out: Tensor) -> None:
        out.copy_(self.tensors[name].flatten()[start : start + out.numel()])


def values(shape: tuple[int, int], scale: float = 0.02) -> Tensor:
    torch.manual_seed(sum(shape))
    matrix = torch.randn(shape) * scale
    matrix[0, :64] = 0.0  # a block of zeros
    matrix[-1, -64:] = 1e-30
    matrix[-1, -1] = 3.0  # one value outweighs its block
    return matrix.half().float()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-4, 0.02, 10.0])
def test_codes_scales_and_values_are_those_of_bitsandbytes(shape: tuple[int, int], scale: float) -> None:
    matrix = values(shape, scale)
    theirs, state = bnb.quantize_4bit(matrix, quant_type="nf4", blocksize=64)
    flat = matrix.flatten()
    assert torch.equal(codes_of(flat), theirs.flatten())
    assert torch.equal(scales_of(flat), state.absmax)
    assert torch.equal(dequantize(codes_of(flat), scales_of(flat)).view(shape), bnb.dequantize_4bit(theirs, state))


@pytest.mark.parametrize("kind", ["codes", "scales"])
def test_ranges_are_those_of_the_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galpaca.model.tuning.tensors._CHUNK_VALUES", 256)
    matrix, name = values((192, 320)), "layers.0.fc1.weight"
    base = Tensors({name: matrix, "layers.0.fc1.bias": torch.ones(192)})
    source = QuantizedTensors(base, quantized_shapes(OPT, base.shapes))
    assert source.shapes.keys() == {"layers.0.fc1.codes", "layers.0.fc1.scales", "layers.0.fc1.bias"}
    whole = {"codes": codes_of, "scales": scales_of}[kind](matrix.flatten())
    assert source.shapes[f"layers.0.fc1.{kind}"] == tuple(whole.shape)
    for start, stop in ((0, len(whole)), (0, 1), (31, 33), (100, 101), (129, 700), (len(whole) - 5, len(whole))):
        found = torch.empty(stop - start, dtype=whole.dtype)
        source.read(f"layers.0.fc1.{kind}", start, found)
        assert torch.equal(found, whole[start:stop]), (start, stop)
    restored = DequantizedTensors(base, lambda wanted: wanted == name)
    expected = dequantize(codes_of(matrix.flatten()), scales_of(matrix.flatten()))
    for start, stop in ((0, matrix.numel()), (1, 2), (63, 65), (250, 520), (matrix.numel() - 3, matrix.numel())):
        found = torch.empty(stop - start)
        restored.read(name, start, found)
        assert torch.equal(found, expected[start:stop]), (start, stop)


def nf4_layer(cls: Any, matrix: Tensor, bias: Tensor) -> Any:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0])
    made = cls.like(layer) if cls is Nf4Linear else cls.beside(layer, LowRank(4, 2.0, 0.0))
    made.bias = nn.Parameter(bias)
    made.codes = nn.Parameter(codes_of(matrix.flatten()), requires_grad=False)
    made.scales = nn.Parameter(scales_of(matrix.flatten()), requires_grad=False)
    if cls is Nf4LoraLinear:
        torch.manual_seed(3)
        made.lora_A.weight = nn.Parameter(torch.randn(4, matrix.shape[1]) * 0.1)
        made.lora_B.weight = nn.Parameter(torch.randn(matrix.shape[0], 4) * 0.1)
    return made


def test_a_layer_computes_with_the_dequantized_matrix() -> None:
    matrix, bias = values((192, 320)), torch.randn(192)
    layer = nf4_layer(Nf4Linear, matrix, bias)
    inputs, again = (torch.randn(5, 320).requires_grad_() for _ in range(2))
    again.data.copy_(inputs.data)
    dense = dequantize(layer.codes, layer.scales).view(192, 320)
    ours, theirs = layer(inputs), linear(again, dense, bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(inputs.grad, again.grad, rtol=1e-5, atol=1e-5)


def gradients(layer: Any, inputs: Tensor, how: Any) -> list[Tensor]:
    leaf = inputs.clone().requires_grad_()
    for parameter in layer.parameters():
        parameter.grad = None
    loss = how(layer, leaf).square().sum()
    # Memory that was given back is overwritten: a dequantized matrix that is read from there would show.
    overwritten = [torch.full((192 * 192,), float("nan")) for _ in range(16)]
    loss.backward()
    assert len(overwritten) == 16
    return [leaf.grad, layer.lora_A.weight.grad, layer.lora_B.weight.grad, layer.bias.grad]


def plain(layer: Any, inputs: Tensor) -> Tensor:
    return layer(layer(inputs))


def full(layer: Any, inputs: Tensor) -> Tensor:
    return checkpoint(plain, layer, inputs, use_reentrant=False)


def selective(layer: Any, inputs: Tensor) -> Tensor:
    contexts = partial(create_selective_checkpoint_contexts, [torch.ops.aten.mm.default])
    return checkpoint(plain, layer, inputs, use_reentrant=False, context_fn=contexts)


@pytest.mark.parametrize("how", [full, selective, torch.compile(plain, backend="aot_eager", fullgraph=True)])
def test_recomputed_and_compiled_layers_have_the_gradients_of_plain_ones(how: Any) -> None:
    """A dequantized matrix is neither lost nor stale, though the next layer's takes the same memory."""
    layer = nf4_layer(Nf4LoraLinear, values((192, 192)), torch.randn(192))
    inputs = torch.randn(5, 192)
    expected = gradients(layer, inputs, plain)
    for found, one in zip(gradients(layer, inputs, how), expected, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-5, atol=1e-6)


def test_nothing_of_the_size_of_the_matrix_is_kept_for_backward() -> None:
    layer = nf4_layer(Nf4LoraLinear, values((192, 320)), torch.randn(192))
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.randn(5, 320).requires_grad_())
    of_the_layer = {parameter.data_ptr() for parameter in layer.parameters()}
    assert any(tensor.data_ptr() == layer.codes.data_ptr() for tensor in kept)
    assert all(tensor.numel() < 192 * 320 / 4 for tensor in kept if tensor.data_ptr() not in of_the_layer)
