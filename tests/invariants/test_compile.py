"""Compiled layers compute what plain ones do, in one program for all sizes of micro-batches.

The attention kernel takes a GPU; on a CPU a stand-in with its arguments takes its place, and all else is as there.
"""

import numpy as np
import pytest
import torch
from families import FAMILIES, PLAIN_OPT, Tiny
from invariants import cpu_varlen
from invariants.test_step import PAD, assert_equal_gradients, make_examples, make_model
from torch._dynamo.utils import counters
from torch._inductor import config as inductor

from galpaca.data.collate import collate
from galpaca.data.plan import StepPlan
from galpaca.data.sizes import choose_sizes
from galpaca.model import attention
from galpaca.model.compute_spec import RECOMPUTATIONS, ComputeSpec
from galpaca.model.loss import nll_sum

NUM_STEPS = 6


@pytest.fixture
def varlen_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", cpu_varlen.varlen_attn)
    monkeypatch.setattr(attention, "_can_use_varlen", lambda query, dropout: True)
    torch._dynamo.reset()
    counters.clear()


def gradients_and_graphs(
    compute: ComputeSpec, dtype: torch.dtype = torch.float64, tiny: Tiny = PLAIN_OPT
) -> tuple[list, list[int]]:
    """The gradient over several steps of one to three micro-batches, and the compiler's count after each of them."""
    examples = make_examples(4, count=40)
    plan = StepPlan(examples.lengths, examples.num_targets, 9, 64, 1, 0)
    sizes = choose_sizes(plan)
    model = make_model(tiny, dtype=dtype, compute=compute, fast_attention=True)
    graphs, seen = [], set()
    for index in range(NUM_STEPS):
        for chosen in plan.step(index).micro_batches[0]:
            micro_batch = collate(examples, chosen, PAD, sizes)
            seen.add((micro_batch.input_ids.shape[1], len(micro_batch.target_rows)))
            nll_sum(model, micro_batch).backward()
            graphs.append(counters["stats"]["unique_graphs"])
    assert len(seen) > 5, "the test means little without several sizes"
    return [parameter.grad for parameter in model.parameters()], graphs


@pytest.mark.usefixtures("varlen_on_cpu")
@pytest.mark.parametrize("how", RECOMPUTATIONS)
@pytest.mark.parametrize("tiny", FAMILIES, ids=lambda tiny: tiny.name)
def test_one_program_for_all_sizes(how: str, tiny: Tiny) -> None:
    """Two graphs, of the layers and of the last one, both there after the first micro-batch."""
    compute = ComputeSpec(compile=True, compile_backend="aot_eager", activation_checkpointing=how)
    compiled, graphs = gradients_and_graphs(compute, tiny=tiny)
    assert set(graphs) == {2}
    plain, _ = gradients_and_graphs(ComputeSpec(compile=False, activation_checkpointing=how), tiny=tiny)
    assert_equal_gradients(plain, compiled)


@pytest.mark.usefixtures("varlen_on_cpu")
@pytest.mark.slow
def test_the_default_back_end_computes_the_same() -> None:
    """Without the vectors of CPUs, which no GPU has and which take g++ as long as all else."""
    with inductor.patch({"cpp.vec_isa_ok": False}):  # pytest's own patch would take the setting away at its end
        compiled, graphs = gradients_and_graphs(ComputeSpec(compile=True))
    assert set(graphs) == {2}
    plain, _ = gradients_and_graphs(ComputeSpec(compile=False))
    assert_equal_gradients(plain, compiled)


@pytest.mark.usefixtures("varlen_on_cpu")
def test_an_empty_micro_batch_needs_no_program_of_its_own() -> None:
    """A rank without examples must not compile while the others wait."""
    examples = make_examples(4)
    sizes = choose_sizes(StepPlan(examples.lengths, examples.num_targets, 4, 64, 1, 0))
    model = make_model(compute=ComputeSpec(compile=True, compile_backend="aot_eager"), fast_attention=True)
    for chosen in ([0, 1], [2], [], [3], np.flatnonzero(examples.num_targets == 0).tolist()):
        nll_sum(model, collate(examples, chosen, PAD, sizes)).backward()
    assert counters["stats"]["unique_graphs"] == 2


def test_a_break_in_the_graph_is_refused() -> None:
    """On the fast path: compiled in pieces, a layer loses its speed and nobody sees."""
    model = make_model(compute=ComputeSpec(compile=True, compile_backend="aot_eager"), fast_attention=True)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        nll_sum(model, collate(make_examples(4), [0], PAD))
