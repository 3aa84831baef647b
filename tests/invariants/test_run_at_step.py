"""A step of a run answers as the folder that is exported of it, without one being written."""

from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, Started, completed

from galpaca.errors import InputError
from galpaca.inference.any_model import load_any
from galpaca.inference.loading import load
from galpaca.inference.settings import WeightOptions

IDS = torch.arange(4, 44)[None]


def logits(name: str, *, four_bits: bool = False) -> torch.Tensor:
    with torch.inference_mode():
        return load(name, weights=WeightOptions(four_bits)).model(input_ids=IDS).logits


@pytest.mark.parametrize("step", [2, 4])
def test_its_logits_are_those_of_the_exported_folder(run: Path, tmp_path: Path, server: str, step: int) -> None:
    """The checkpoint of two FSDP processes, which have a part of the weights each."""
    checkpoint = run / "checkpoints" / f"step-{step:08d}"
    line = ["python", str(REPOSITORY / "src/galpaca/__main__.py"), "export", str(checkpoint), str(tmp_path / "out")]
    done = completed(Started(server, line, tmp_path))
    assert done.returncode == 0, done.stderr
    assert torch.equal(logits(f"{run}@{step}"), logits(str(tmp_path / "out")))


def test_it_is_another_model_for_what_is_cached(run: Path) -> None:
    """Answers and losses are kept by fingerprint: those of another step, or of 4 bits, must not be taken."""
    models = [load_any(f"{run}@2"), load_any(f"{run}@4"), load_any(str(run)), load_any(f"{run}@4", weights=FOUR_BITS)]
    assert len({one.fingerprint for one in models}) == len(models)
    assert models[0].max_new_tokens == models[2].max_new_tokens


FOUR_BITS = WeightOptions(four_bits=True)


def test_4_bits_are_near_and_not_the_same(run: Path) -> None:
    exact, quantized = logits(str(run)), logits(str(run), four_bits=True)
    assert 0 < (exact - quantized).abs().max() < 0.5 * exact.abs().max()


def test_a_step_that_is_not_saved_is_refused_with_those_that_are(run: Path) -> None:
    with pytest.raises(InputError, match="step 3 is not saved") as refused:
        load(f"{run}@3")
    assert refused.value.why == "saved steps: 2, 4"
