"""The gradient of a step is that of its examples, however they are packed; and no example sees another."""

import copy
import itertools

import numpy as np
import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from galpaca.data.collate import collate
from galpaca.data.encoding import EncodedExamples
from galpaca.data.plan import pack
from galpaca.data.receipt import Receipt
from galpaca.model.attention import PACKED_ATTENTION
from galpaca.model.compute import ComputeSpec, prepare_layers
from galpaca.model.loss import nll_sum, target_logits

VOCABULARY, PAD = 101, 1
TOLERANCE = 1e-10  # relative to the largest gradient of all, in float64


PLAIN = ComputeSpec()


def make_model(
    bias: bool = True,
    affine: bool = True,
    dtype: torch.dtype = torch.float64,
    compute: ComputeSpec = PLAIN,
    fast_attention: bool = False,
) -> OPTForCausalLM:
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        activation_function="gelu",
        dropout=0.0,
        attention_dropout=0.0,
        enable_bias=bias,
        layer_norm_elementwise_affine=affine,
    )
    model = OPTForCausalLM(config).to(dtype)
    for parameter in model.parameters():  # biases and norms begin at 0 and 1, where mistakes would not show
        torch.nn.init.normal_(parameter, std=0.2)
    model.set_attn_implementation(PACKED_ATTENTION)
    prepare_layers(model, compute, fast_attention=fast_attention)
    return model


def make_examples(seed: int, count: int = 12) -> EncodedExamples:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, 30, count)
    offsets = np.cumsum([0, *lengths])
    return EncodedExamples(
        tokens=generator.integers(3, VOCABULARY, offsets[-1]).astype(np.uint16),
        offsets=offsets,
        num_ignored=np.array([generator.integers(0, length + 1) for length in lengths], np.int32),
        content_hashes=np.zeros(count, np.uint64),
        record_indices=np.arange(count, dtype=np.int32),
        receipt=Receipt("test", 30),
    )


def gradients(model: OPTForCausalLM, examples: EncodedExamples, micro_batches: list[list[int]]) -> list[torch.Tensor]:
    model.zero_grad()
    for indices in micro_batches:
        nll_sum(model, collate(examples, indices, PAD)).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def assert_equal_gradients(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    largest = max(float(gradient.abs().max()) for gradient in one)
    for a, b in zip(one, other, strict=True):
        assert (a - b).abs().max() <= TOLERANCE * largest


@pytest.mark.parametrize(("bias", "affine"), list(itertools.product([True, False], repeat=2)))
def test_any_packing_gives_the_gradient_of_one_by_one(bias: bool, affine: bool) -> None:
    model, examples = make_model(bias, affine), make_examples(1)
    alone = gradients(model, examples, [[i] for i in range(len(examples))])
    for max_tokens in (30, 64, 10_000):
        micro_batches = pack(examples.lengths, 1, max_tokens)[0]
        assert_equal_gradients(alone, gradients(model, examples, micro_batches))


def test_one_by_one_is_what_transformers_computes() -> None:
    """With its own attention and its own loss, an example at a time."""
    model, examples = make_model(), make_examples(2)
    config = copy.deepcopy(model.config)
    config._attn_implementation = "sdpa"  # eager takes its softmax in float32, whatever the model's
    reference = OPTForCausalLM(config).double()
    reference.load_state_dict(model.state_dict())
    for index in range(len(examples)):
        ids = torch.from_numpy(examples.ids(index).astype(np.int64))[None]
        labels = ids.clone()
        labels[0, : examples.num_ignored[index]] = -100
        if (labels[0, 1:] != -100).any():
            logits = reference(ids).logits[0, :-1]
            torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="sum").backward()
    theirs = [parameter.grad for parameter in reference.parameters()]
    assert_equal_gradients(theirs, gradients(model, examples, [list(range(len(examples)))]))


def test_the_empty_micro_batch_adds_a_zero_connected_to_every_parameter() -> None:
    model, examples = make_model(), make_examples(3)
    loss = nll_sum(model, collate(examples, [], PAD))
    assert loss.item() == 0.0
    loss.backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("seed", range(10))
def test_changing_an_example_changes_no_bit_of_another(seed: int) -> None:
    """For a random packing, a random example and a random token of it, in float32."""
    generator = np.random.default_rng(seed)
    model, examples = make_model(dtype=torch.float32).eval(), make_examples(seed)
    examples.num_ignored[:] = 1
    order = generator.permutation(len(examples))
    changed = int(generator.integers(len(examples)))
    with torch.no_grad():
        before = target_logits(model, collate(examples, order, PAD))
        at = int(examples.offsets[changed] + generator.integers(examples.lengths[changed]))
        examples.tokens[at] = 3 + (examples.tokens[at] - 3 + 1) % (VOCABULARY - 3)
        after = target_logits(model, collate(examples, order, PAD))
    owner = np.repeat(order, examples.lengths[order] - 1)
    assert torch.equal(before[owner != changed], after[owner != changed])
    if at < examples.offsets[changed + 1] - 1:  # the last token predicts nothing
        assert not torch.equal(before[owner == changed], after[owner == changed])
