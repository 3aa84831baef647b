"""Memory of a step by arithmetic: counts that are known, and what experiments say of theirs."""

import math
import re

import experiment_headers
import pytest

from galpaca.app.config.schema import config_folder
from galpaca.app.config.shapes import shape_of
from galpaca.estimate.flops import Tuned, step_flops
from galpaca.estimate.memory import (
    Fullest,
    TrainedModel,
    num_adapter_weights,
    num_linear,
    num_parameters,
    step_memory,
)
from galpaca.estimate.timeline import Kind
from galpaca.model.families.opt import OPT
from galpaca.model.tuning.lora import Lora
from galpaca.model.tuning.qlora import QLora, quantized_shapes

# As the models' cards and files have them.
PUBLISHED = {
    "galactica-125m": 125_030_400,
    "galactica-1.3b": 1_315_201_024,
    "galactica-6.7b": 6_657_359_872,
    "galactica-30b": 29_972_590_592,
    "galactica-120b": 121_341_747_200,
    "smollm2-135m": 134_515_008,
    "smollm2-1.7b": 1_711_376_384,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
}
GIB = 1 << 30


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_published(name: str) -> None:
    assert num_parameters(shape_of(name)) == PUBLISHED[name]


def test_every_shape_that_is_shipped_is_looked_at() -> None:
    assert {path.stem for path in (config_folder() / "model").glob("*.json")} == PUBLISHED.keys()


def test_adapters_and_4_bit_weights_are_as_the_methods_make_them() -> None:
    one = shape_of("galactica-6.7b")
    hidden, ffn = one.hidden_size, one.ffn_size
    sides = {**dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj"), (hidden, hidden)), "fc1": (ffn, hidden)}
    shapes = {f"layers.0.{name}.weight": shape for name, shape in {**sides, "fc2": (hidden, ffn)}.items()}
    trained = Lora().trained_shapes(Lora().shapes(shapes))
    assert one.num_layers * sum(map(math.prod, trained.values())) == num_adapter_weights(one, 16)
    bytes_each = {"codes": 1, "scales": 4}
    held = sum(
        math.prod(shape) * bytes_each[name.rpartition(".")[2]] for name, shape in quantized_shapes(OPT, shapes).items()
    )
    assert one.num_layers * held == QLora.held.linear * num_linear(one)


def test_a_frozen_weight_takes_two_thirds_of_the_operations_of_a_trained_one() -> None:
    one, tokens = shape_of("galactica-6.7b"), 1000
    adapters = num_adapter_weights(one, 16)
    flops = step_flops(one, tokens, 0, Tuned(Lora.flops_per_weight, adapters))
    assert flops == (4 * one.matmul_parameters + 6 * adapters) * tokens
    assert flops < 0.68 * step_flops(one, tokens, 0)


@pytest.mark.parametrize("name", experiment_headers.MACHINES)
def test_an_experiment_fits_the_card_that_its_header_names(name: str) -> None:
    header = (config_folder() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    assert re.search(r"^#   memory .*: (fits|tight)$", header, re.MULTILINE), header


def test_parts_add_up_and_recomputation_trades_memory() -> None:
    totals = []
    for how in ("none", "selective", "full"):
        model = TrainedModel(shape_of("galactica-6.7b"), Lora.held, rank=16)
        memory = step_memory(Kind("opt", "single", "lora", "wide", how), model, Fullest.of(4096))
        assert memory.total == pytest.approx(sum(vars(memory).values()))
        totals.append(memory.total)
    assert totals == sorted(totals, reverse=True)
