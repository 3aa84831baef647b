"""A step's gradient is that of its examples one by one: on any number of processes, in any of the project's ways."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import MadeOnce, run_ranks
from families import FAMILIES_AT_LENGTH, Tiny
from invariants.gradients.toy import NUM_STEPS, SEED, STEP_EXAMPLES, make_examples, make_model
from invariants.gradients.ways import REDUCED_ONCE, WAYS, Way

from galpaca.data.examples import labels_of
from galpaca.data.plan import StepPlan

WORKER = Path(__file__).parent / "gradients" / "worker.py"


@cache
def reference(tiny: Tiny) -> list[dict[str, torch.Tensor]]:
    """Plain ``transformers`` in float64, its own attention and labels, one example after the other."""
    examples = make_examples()
    plan = StepPlan(examples.lengths, examples.num_targets, STEP_EXAMPLES, 10_000, 1, SEED)
    steps = []
    for step in range(NUM_STEPS):
        model = make_model(tiny).double()
        model.set_attn_implementation("sdpa")
        chosen = plan.step_examples(step)
        num_targets = sum(int(examples.num_targets[i]) for i in chosen)
        for index in chosen:
            ids = torch.from_numpy(examples.ids(index).astype("int64"))[None]
            labels = torch.tensor([labels_of(examples, index)])
            logits = model(ids).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="sum")
            (loss / num_targets).backward()
        gradients = {}
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            gradients[name] = parameter.grad
        steps.append(gradients)
    return steps


@pytest.fixture
def computed(made_once: MadeOnce, server: str) -> Callable[[int, Tiny], Path]:
    """A family's gradients of all the ways for a number of processes, under gloo."""

    def compute(num_ranks: int, tiny: Tiny) -> Path:
        def make(folder: Path) -> None:
            run_ranks(server, [sys.executable, str(WORKER), str(folder), tiny.name], folder, num_ranks)

        return made_once(f"gradients-{num_ranks}-{tiny.name}", make)

    return compute


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("tiny", FAMILIES_AT_LENGTH, ids=lambda tiny: tiny.name)
def test_the_gradient_is_that_of_the_examples_one_by_one(
    computed: Callable[[int, Tiny], Path], way: Way, tiny: Tiny
) -> None:
    """Both of a full step and of a last one with fewer examples than ranks."""
    found = torch.load(computed(way.num_ranks, tiny) / f"{way.name}.pt", weights_only=True)
    assert len(found) == NUM_STEPS
    for ours, theirs in zip(found, reference(tiny), strict=True):
        assert ours.keys() == theirs.keys()
        largest = max(float(gradient.abs().max()) for gradient in theirs.values())
        for name, gradient in theirs.items():
            difference = float((ours[name].double() - gradient).abs().max())
            assert difference <= way.tolerance * largest, f"{name}: {difference / largest:.1e}"


@pytest.mark.parametrize("way", REDUCED_ONCE, ids=lambda way: way.name)
@pytest.mark.parametrize("tiny", FAMILIES_AT_LENGTH, ids=lambda tiny: tiny.name)
def test_ranks_reduce_gradients_in_float32(computed: Callable[[int, Tiny], Path], way: Way, tiny: Tiny) -> None:
    """Each rank's are float16; their sum would be, too, were it taken in that."""
    gradients, _ = torch.load(computed(2, tiny) / f"{way.name}.pt", weights_only=True)
    rounded = sum(int((one.half().float() != one).sum()) for one in gradients.values())
    assert rounded > sum(one.numel() for one in gradients.values()) / 4
