"""What adapters start as: PEFT's distribution, and a function of seed and name."""

import math

import torch
from torch import Tensor, nn

from galpaca.model.tuning.lora import Lora
from galpaca.model.tuning.low_rank import LoraLinear, LowRank
from galpaca.model.tuning.tensors import read_whole

NAMES = ("layers.0.fc1.weight", "layers.1.fc1.weight", "layers.0.q_proj.weight")


class Base:
    """A base of which nothing is read."""

    shapes = dict.fromkeys(NAMES, (96, 400))

    def read(self, name: str, start: int, out: Tensor) -> None:
        raise AssertionError(f"reads {name}")


def first(seed: int) -> dict[str, Tensor]:
    source = Lora().starting_weights(Base(), seed)
    return {name: read_whole(source, name) for name in Lora().trained_shapes(source.shapes)}


def test_a_is_uniform_and_b_is_zero() -> None:
    for name, tensor in first(1).items():
        if ".lora_B." in name:
            assert tensor.shape == (96, 16)
            assert not tensor.count_nonzero()
        else:
            bound = 1 / math.sqrt(400)
            assert tensor.shape == (16, 400)
            assert tensor.abs().max() <= bound
            assert abs(tensor.std() - bound / math.sqrt(3)) < 0.02 * bound


def test_every_layer_and_every_seed_has_its_own_and_any_range_of_it() -> None:
    one, again, other = first(1), first(1), first(2)
    matrices = [tensor for name, tensor in one.items() if ".lora_A." in name]
    assert len({tuple(tensor.flatten()[:8].tolist()) for tensor in matrices}) == len(NAMES)
    for name, tensor in one.items():
        assert torch.equal(tensor, again[name])
        assert ".lora_B." in name or not torch.equal(tensor, other[name])
    piece = torch.empty(57)
    name = "layers.1.fc1.lora_A.weight"
    Lora().starting_weights(Base(), 1).read(name, 1000, piece)
    assert torch.equal(piece, one[name].flatten()[1000:1057])


def test_dropout_leaves_out_inputs_of_the_adapter_alone_and_in_training_alone() -> None:
    layer = LoraLinear.beside(nn.Linear(400, 96), LowRank(4, 2.0, 0.5))
    layer.lora_A.weight = nn.Parameter(torch.ones(4, 400))
    layer.lora_B.weight = nn.Parameter(torch.ones(96, 4))
    inputs = torch.ones(3, 400)
    base = torch.nn.functional.linear(inputs, layer.weight, layer.bias)
    torch.testing.assert_close(layer.eval()(inputs) - base, torch.full((3, 96), 4 * 400 * 2.0))
    torch.manual_seed(0)
    dropped = (layer.train()(inputs) - base)[:, 0] / (4 * 2.0)
    assert len(set(dropped.tolist())) == 3, "each row of inputs has its own mask"
    assert all(340 < value < 460 for value in dropped.tolist()), "what is left is scaled up"
