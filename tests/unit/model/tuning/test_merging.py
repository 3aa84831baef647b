"""Adapters merged into their base, against PEFT and against the model that was trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from parity.flat_run import save_model
from parity.peft_run import peft_model
from torch import Tensor
from transformers import OPTForCausalLM

from galpaca.model.build import parameter_shapes
from galpaca.model.families.opt import OPT
from galpaca.model.folder_tensors import FolderTensors
from galpaca.model.parts import fill, materialize_all, whole_parts
from galpaca.model.tensors import Overlaid
from galpaca.model.tuning.lora import Lora
from galpaca.model.tuning.low_rank import LoraLinear
from galpaca.model.tuning.qlora import QLora
from galpaca.model.tuning.tensors import MERGED_ROWS, read_whole


class Trained:
    """Adapters as if they had been trained."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def read(self, name: str, start: int, out: Tensor) -> None:
        generator = torch.Generator().manual_seed(sum(name.encode()))
        out.copy_(torch.randn(self.shapes[name], generator=generator).mul(0.05).flatten()[start : start + out.numel()])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), tokenizer_folder)


def adapters(method: Lora, folder: Path) -> Trained:
    return Trained(dict(method.trained_shapes(method.shapes(FolderTensors(folder, OPT, tied_head=True).shapes))))


def test_merged_weights_are_those_of_peft(folder: Path) -> None:
    """In one block of rows to the bit; a product of more rows may have other bits than those of its parts."""
    method = Lora(dropout=0.0)
    trained = adapters(method, folder)
    theirs = peft_model(folder, method)
    for name, parameter in theirs.named_parameters():
        plain = name.removeprefix("base_model.model.").replace(".default", "")
        if plain in trained.shapes:
            parameter.data.copy_(read_whole(trained, plain))
    merged: Any = theirs.merge_and_unload()
    ours = method.released(FolderTensors(folder, OPT, tied_head=True), trained, torch.float32)
    adapted = 0
    for name, expected in merged.named_parameters():
        found = read_whole(ours, name)
        assert expected.shape[0] <= MERGED_ROWS or "embed" in name
        assert torch.equal(found, expected), name
        adapted += not torch.equal(found, read_whole(FolderTensors(folder, OPT, tied_head=True), name))
    assert adapted == 2 * 6


def test_tall_matrices_are_merged_in_blocks_of_rows_and_read_in_any_ranges() -> None:
    method = Lora(targets=["fc1"])
    rows, width = 3 * MERGED_ROWS + 17, 96
    base = Trained({"fc1.weight": (rows, width)})
    trained = Trained(dict(method.trained_shapes(method.shapes(base.shapes))))
    merged = method.released(base, trained, torch.float32)
    whole = read_whole(merged, "fc1.weight")
    a, b = (read_whole(trained, f"fc1.lora_{one}.weight") for one in "AB")
    expected = read_whole(base, "fc1.weight") + (b @ a) * 2.0
    torch.testing.assert_close(whole, expected, rtol=1e-6, atol=1e-6)
    for start, stop in ((0, 1), (100, 40_000), (rows * width - 7, rows * width)):
        found = torch.empty(stop - start)
        merged.read("fc1.weight", start, found)
        assert torch.equal(found, whole.flatten()[start:stop])


@pytest.mark.parametrize("method", [Lora(dropout=0.0), QLora(dropout=0.0), Lora(targets=["q_proj", "fc2"], rank=3)])
@pytest.mark.parametrize("compute_dtype", [torch.float32, torch.bfloat16])
def test_the_merged_model_answers_as_the_trained_one(folder: Path, method: Lora, compute_dtype: torch.dtype) -> None:
    """Merged into the weights as they were in training: rounded, or in 4 bits."""
    trained, files = adapters(method, folder), FolderTensors(folder, OPT, tied_head=True)
    config = OPTForCausalLM.from_pretrained(folder).config
    with torch.device("meta"):
        tuned = OPTForCausalLM(config).eval()
        plain = OPTForCausalLM(config).eval()
    method.prepare(tuned, compute_dtype)
    assert parameter_shapes(tuned) == {**method.shapes(files.shapes)}
    assert tuned.lm_head.weight is tuned.model.decoder.embed_tokens.weight
    put(tuned, Overlaid(method.starting_weights(files, seed=0), trained))
    put(plain, method.released(files, trained, compute_dtype))
    for parameter in tuned.parameters():  # in float32 from here on, so that nothing but the merge is compared
        if parameter.dtype == compute_dtype:
            parameter.data = parameter.data.float()
    ids = torch.arange(40)[None] % config.vocab_size
    with torch.no_grad():
        ours, theirs = plain(ids).logits, tuned(ids).logits
    # In 4 bits the trained model's matrix is rounded to the dtype of its input, here float32.
    tolerance = 1e-5 if not isinstance(method, QLora) or compute_dtype == torch.float32 else 2e-2
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def put(model: Any, source: Any) -> None:
    materialize_all(model, torch.device("cpu"))
    fill(whole_parts(model), source)


def test_what_products_use_is_in_the_compute_dtype_and_the_rest_in_float32(folder: Path) -> None:
    config = OPTForCausalLM.from_pretrained(folder).config
    with torch.device("meta"):
        model = OPTForCausalLM(config)
    Lora().prepare(model, torch.float16)
    for name, parameter in model.named_parameters():
        is_adapter = ".lora_" in name
        narrow = parameter.dim() > 1 and not is_adapter and "embed_positions" not in name
        assert parameter.dtype == (torch.float16 if narrow else torch.float32), name
    assert sum(isinstance(module, LoraLinear) for module in model.modules()) == 12
