"""LoRA and QLoRA against PEFT and bitsandbytes in a plain loop that packs nothing."""

import json
from pathlib import Path

import pytest
import torch
from conftest import Train, read_jsonl
from families import FAMILIES_AT_LENGTH, Tiny
from parity.flat_run import OVERRIDES, save_model
from parity.peft_run import peft_run
from safetensors.torch import load_file

from galpaca.model.tuning.lora import Lora
from galpaca.model.tuning.qlora import QLora

STEPS = 50
LR = 3e-3
# Relative, over all steps. In float64 nothing but another order of sums is left.
TOLERANCES = {"64-true": 1e-10, "32-true": 1e-4}


@pytest.fixture(scope="module")
def records_file(tmp_path_factory: pytest.TempPathFactory, demo_records: list[dict[str, str]]) -> Path:
    path = tmp_path_factory.mktemp("records") / "records.json"
    path.write_text(json.dumps(demo_records[::12][:37]), encoding="utf-8")
    return path


@pytest.mark.parametrize("tiny", FAMILIES_AT_LENGTH, ids=lambda tiny: tiny.name)
@pytest.mark.parametrize(("tuning", "precision"), [("lora", "64-true"), ("lora", "32-true"), ("qlora", "32-true")])
def test_losses_norms_and_rates_equal_those_of_peft(
    train: Train,
    tmp_path: Path,
    tokenizer_folder: Path,
    records_file: Path,
    tiny: Tiny,
    tuning: str,
    precision: str,
) -> None:
    model_folder = save_model(tmp_path / "model", tokenizer_folder, tiny)
    done = train(
        f"model.path={model_folder}",
        *OVERRIDES,
        f"tuning={tuning}",
        f"precision={precision}",
        "tuning.dropout=0",
        f"data.path={records_file}",
        f"trainer.max_steps={STEPS}",
        f"optim.lr={LR}",
    )
    assert done.returncode == 0, done.stderr
    ours = read_jsonl(tmp_path / "runs" / "test" / "metrics.jsonl")
    method = (QLora if tuning == "qlora" else Lora)(dropout=0.0).on(tiny.family)
    dtype = torch.float64 if precision == "64-true" else torch.float32
    theirs, adapted = peft_run(
        model_folder, tokenizer_folder, records_file, STEPS, method, lr=LR, four_bits=tuning == "qlora", dtype=dtype
    )
    assert len(ours) == len(theirs) == STEPS
    assert ours[-1]["loss"] < ours[0]["loss"] - 0.05, "adapters should have learned"
    for line, expected in zip(ours, theirs, strict=True):
        for key in ("loss", "grad_norm", "lr"):
            assert line[key] == pytest.approx(expected[key], rel=TOLERANCES[precision]), f"{key} of step {line['step']}"
    saved = load_file(tmp_path / "runs" / "test" / "adapter" / "adapter_model.safetensors")
    trained = {name.replace(".default", ""): tensor for name, tensor in adapted.named_parameters() if "lora_" in name}
    assert saved.keys() == trained.keys()
    for name, tensor in saved.items():
        theirs_rounded = trained[name].detach().float()
        torch.testing.assert_close(tensor, theirs_rounded, rtol=0, atol=1e-3 * tensor.abs().max().item())
