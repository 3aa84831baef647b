"""The gradient of a step is that of its examples, however they are packed; and no example sees another."""

import copy
from dataclasses import replace
from typing import Any

import families
import numpy as np
import pytest
import torch
from families import FAMILIES, FORMS, PLAIN_OPT, Tiny
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from galpaca.data.collate import IGNORED_ID, collate
from galpaca.data.examples import EncodedExamples, labels_of, spans_behind
from galpaca.data.plan import pack
from galpaca.data.receipt import Receipt
from galpaca.data.sizes import Sizes
from galpaca.model.compute import prepare_layers
from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.loss import nll_sum, target_logits

VOCABULARY, PAD = 101, 1
TOLERANCE = 1e-10  # relative to the largest gradient of all, in float64


PLAIN = ComputeSpec()
SIZES = families.Sizes(VOCABULARY)


def make_model(
    tiny: Tiny = PLAIN_OPT,
    dtype: torch.dtype = torch.float64,
    compute: ComputeSpec = PLAIN,
    fast_attention: bool = False,
) -> Any:
    model = tiny.model(SIZES, std=0.2, dtype=dtype)
    prepare_layers(model, tiny.family, compute, fast_attention=fast_attention)
    return model


def layers_of(model: Any, tiny: Tiny) -> Any:
    return model.get_submodule(tiny.family.layers)


def make_examples(seed: int, count: int = 12) -> EncodedExamples:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, 30, count)
    offsets = np.cumsum([0, *lengths])
    return EncodedExamples(
        tokens=generator.integers(3, VOCABULARY, offsets[-1]).astype(np.uint16),
        offsets=offsets,
        **spans_behind([generator.integers(0, length + 1) for length in lengths], lengths),
        content_hashes=np.zeros(count, np.uint64),
        prompt_hashes=np.arange(count, dtype=np.uint64),
        near_hashes=np.arange(count, dtype=np.uint64),
        record_indices=np.arange(count, dtype=np.int32),
        receipt=Receipt("test", 30),
    )


def gradients(model: Any, examples: EncodedExamples, micro_batches: list[list[int]]) -> list[torch.Tensor]:
    model.zero_grad()
    for indices in micro_batches:
        nll_sum(model, collate(examples, indices, PAD)).backward()
    return [gradient.clone() for gradient in gradients_of(model)]


def gradients_of(model: Any) -> list[torch.Tensor]:
    """Of all parameters, in their order."""
    found = []
    for parameter in model.parameters():
        assert parameter.grad is not None
        found.append(parameter.grad)
    return found


def assert_equal_gradients(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    largest = max(float(gradient.abs().max()) for gradient in one)
    for a, b in zip(one, other, strict=True):
        assert (a - b).abs().max() <= TOLERANCE * largest


@pytest.mark.parametrize("tiny", FORMS, ids=lambda tiny: tiny.name)
def test_any_packing_gives_the_gradient_of_one_by_one(tiny: Tiny) -> None:
    model, examples = make_model(tiny), make_examples(1)
    alone = gradients(model, examples, [[i] for i in range(len(examples))])
    for max_tokens in (30, 64, 10_000):
        micro_batches = pack(examples.lengths, 1, max_tokens)[0]
        assert_equal_gradients(alone, gradients(model, examples, micro_batches))


@pytest.mark.parametrize("tiny", FORMS, ids=lambda tiny: tiny.name)
def test_one_by_one_is_what_transformers_computes(tiny: Tiny) -> None:
    """With its own attention, positions and loss, an example at a time."""
    model, examples = make_model(tiny), make_examples(2)
    config = copy.deepcopy(model.config)
    config._attn_implementation = "sdpa"  # eager takes its softmax in float32, whatever the model's
    reference: Any = AutoModelForCausalLM.from_config(config).double()
    reference.load_state_dict(model.state_dict())
    for index in range(len(examples)):
        ids = torch.from_numpy(examples.ids(index).astype(np.int64))[None]
        labels = torch.tensor([labels_of(examples, index)])
        if (labels[0, 1:] != -100).any():
            logits = reference(ids).logits[0, :-1]
            torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="sum").backward()
    assert_equal_gradients(gradients_of(reference), gradients(model, examples, [list(range(len(examples)))]))


@pytest.mark.parametrize("tiny", FAMILIES, ids=lambda tiny: tiny.name)
def test_the_empty_micro_batch_adds_a_zero_connected_to_every_parameter(tiny: Tiny) -> None:
    model, examples = make_model(tiny), make_examples(3)
    loss = nll_sum(model, collate(examples, [], PAD))
    assert loss.item() == 0.0
    loss.backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("sizes", [None, Sizes(8, 1_024, 13, 32)], ids=["packed", "padded"])
@pytest.mark.parametrize("tiny", FORMS, ids=lambda tiny: tiny.name)
@pytest.mark.parametrize("seed", range(5))
def test_changing_an_example_changes_no_bit_of_another(seed: int, tiny: Tiny, sizes: Sizes | None) -> None:
    """For a random packing, a random example and a random token of it, in float32."""
    model = make_model(tiny, dtype=torch.float32).eval()
    assert_no_leak(model, seed, sizes)


@pytest.mark.parametrize("tiny", FAMILIES, ids=lambda tiny: tiny.name)
@pytest.mark.parametrize("seed", range(5))
def test_dropout_of_attention_weights_stays_within_an_example(seed: int, tiny: Tiny) -> None:
    """In training: the same random numbers, another token, and the other examples' logits keep every bit."""
    model = make_model(tiny, dtype=torch.float32)
    without = assert_no_leak(model, seed)
    dropping = make_model(replace(tiny, special={**tiny.special, "attention_dropout": 0.5}), dtype=torch.float32)
    model = dropping.train()
    assert not torch.equal(assert_no_leak(model, seed), without)


def assert_no_leak(model: Any, seed: int, sizes: Sizes | None = None) -> torch.Tensor:
    """Changes a token; returns the logits before that."""
    generator = np.random.default_rng(seed)
    examples = make_examples(seed)
    examples = replace(examples, **spans_behind(np.ones(len(examples)), examples.lengths))
    order = generator.permutation(len(examples))
    changed = int(generator.integers(len(examples)))

    def logits() -> torch.Tensor:
        torch.manual_seed(seed)
        micro_batch = collate(examples, order.tolist(), PAD, sizes)
        with torch.no_grad():
            return target_logits(model, micro_batch)[micro_batch.target_ids != IGNORED_ID]

    before = logits()
    at = int(examples.offsets[changed] + generator.integers(examples.lengths[changed]))
    examples.tokens[at] = 3 + (examples.tokens[at] - 3 + 1) % (VOCABULARY - 3)
    after = logits()
    owner = np.repeat(order, examples.lengths[order] - 1)
    assert torch.equal(before[owner != changed], after[owner != changed])
    if at < examples.offsets[changed + 1] - 1:  # the last token predicts nothing
        assert not torch.equal(before[owner == changed], after[owner == changed])
    return before


class _HostReads(TorchDispatchMode):
    """Counts values that the host reads from tensors: on a GPU it waits for each."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("tiny", FAMILIES, ids=lambda tiny: tiny.name)
def test_a_micro_batch_reads_nothing_from_the_device(tiny: Tiny) -> None:
    """transformers looked for packed texts in the positions that Llama gives it, which waits for a GPU."""
    model, examples = make_model(tiny, dtype=torch.float32), make_examples(6)
    with _HostReads() as reads:
        nll_sum(model, collate(examples, list(range(len(examples))), PAD)).backward()
    assert reads.count == 0


@pytest.mark.parametrize("tiny", FAMILIES, ids=lambda tiny: tiny.name)
@pytest.mark.parametrize("how", ["selective", "full"])
def test_what_is_computed_again_has_the_same_bits(how: str, tiny: Tiny) -> None:
    """With dropout: backward draws the numbers that forward drew."""
    examples = make_examples(5)
    found = []
    dropping = replace(tiny, special={**tiny.special, "attention_dropout": 0.3})
    for recompute in ("none", how):
        compute = ComputeSpec(activation_checkpointing=recompute)
        model = make_model(dropping, dtype=torch.float32, compute=compute).train()
        for layer in layers_of(model, tiny):
            layer._checkpoint_wrapped_module.dropout = 0.3
        torch.manual_seed(7)
        found.append(gradients(model, examples, [[0, 1, 2, 3], [4, 5, 6]]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
