"""Memory of a step by arithmetic: counts that are known, and what experiments say of theirs."""

import math
import re

import pytest
from conftest import REPOSITORY

from galpaca.app.config.composition import compose
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
from galpaca.model.tuning.method import TuningMethod
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


@pytest.mark.parametrize("name", ["galpaca1b_lora", "galpaca67b_lora", "galpaca67b_qlora", "galpaca30b_qlora"])
def test_an_experiment_of_adapters_says_what_the_arithmetic_says(name: str) -> None:
    config, _ = compose([f"+experiment={name}"])
    method: TuningMethod = config.tuning.method
    assert isinstance(method, Lora)
    model = TrainedModel(shape_of(str(config.model.path).rpartition("/")[2]), method.held, method.rank)
    kind = Kind("opt", "single", method.timeline or "", "wide", config.compute.activation_checkpointing)
    memory = step_memory(kind, model, Fullest.of(config.batch.max_tokens))
    header = (REPOSITORY / "conf" / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    said = re.search(r"# Memory: (\d+) GiB \(not measured", header)
    assert said
    assert int(said[1]) == math.ceil(memory.total / GIB)
    card = re.search(r"on one GPU of (\d+) GB", header)
    assert card
    assert memory.total < int(card[1]) * 10**9


def test_parts_add_up_and_recomputation_trades_memory() -> None:
    totals = []
    for how in ("none", "selective", "full"):
        model = TrainedModel(shape_of("galactica-6.7b"), Lora.held, rank=16)
        memory = step_memory(Kind("opt", "single", "lora", "wide", how), model, Fullest.of(4096))
        assert memory.total == pytest.approx(sum(vars(memory).values()))
        totals.append(memory.total)
    assert totals == sorted(totals, reverse=True)
