"""What is released of adapters: read by PEFT and by transformers, merged and alone, and what galpaca itself answers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Started, Train, completed
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, OPTForCausalLM

from galpaca.data.records import Record
from galpaca.inference.answer import answer
from galpaca.inference.loading import Loaded, load
from galpaca.inference.settings import Settings, WeightOptions

IDS = torch.arange(4, 44)[None]
# Merged in float32 and rounded once to float32 on disk.
TOLERANCE = 1e-5
Galpaca = Callable[..., Any]


@pytest.fixture
def galpaca(tmp_path: Path, server: str) -> Galpaca:
    def run(*arguments: object) -> Any:
        return completed(Started(server, ["python", "-m", "galpaca", *map(str, arguments)], tmp_path))

    return run


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=IDS).logits


def loaded(name: Path | str, **how: Any) -> Loaded:
    return load(str(name), weights=WeightOptions(**how))


def test_peft_and_transformers_read_the_adapter_as_it_was_trained(adapted_run: Path, base_model: Path) -> None:
    adapter = adapted_run / "lora" / "adapter"
    base = OPTForCausalLM.from_pretrained(base_model, dtype=torch.float32)
    untouched = logits(base)
    expected = logits(loaded(f"{adapted_run / 'lora'}@8").model)
    assert (expected - untouched).abs().max() > 1e-2, "adapters should have changed the model"
    readers: dict[str, Any] = {
        "PeftModel": PeftModel.from_pretrained(base, adapter),
        "AutoPeftModelForCausalLM": AutoPeftModelForCausalLM.from_pretrained(adapter, dtype=torch.float32),
        "from_pretrained of the adapter": AutoModelForCausalLM.from_pretrained(adapter, dtype=torch.float32),
        "from_pretrained of the merged": OPTForCausalLM.from_pretrained(adapted_run / "lora" / "model"),
        "galpaca, the adapter": loaded(adapter).model,
        "galpaca, the run": loaded(adapted_run / "lora").model,
    }
    for name, model in readers.items():
        assert (logits(model) - expected).abs().max() < TOLERANCE, name
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == str(base_model)
    assert len(settings["target_modules"]) == 6


def test_an_adapter_names_its_base_wherever_it_is_read(
    train: Train, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path of training's folder would be none of the reader's."""
    (tmp_path / "base").symlink_to(base_model)
    done = train("model.path=base", "tuning=lora", "data.max_length=64", "trainer.max_steps=1")
    assert done.returncode == 0, done.stderr
    adapter = tmp_path / "runs" / "test" / "adapter"
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == str(tmp_path / "base")
    monkeypatch.chdir("/")
    assert logits(loaded(adapter).model).isfinite().all()


def test_merged_4_bit_weights_are_those_of_training_or_those_of_the_files(
    adapted_run: Path, base_model: Path, tmp_path: Path, galpaca: Galpaca
) -> None:
    run = adapted_run / "qlora"
    in_training = logits(loaded(f"{run}@8", four_bits=True).model)
    merged = logits(OPTForCausalLM.from_pretrained(run / "model"))
    torch.testing.assert_close(merged, in_training, rtol=0, atol=TOLERANCE)
    done = galpaca("export", run, tmp_path / "original", "--merge-into", "original")
    assert done.returncode == 0, done.stderr
    original = logits(OPTForCausalLM.from_pretrained(tmp_path / "original"))
    peft = PeftModel.from_pretrained(OPTForCausalLM.from_pretrained(base_model, dtype=torch.float32), run / "adapter")
    torch.testing.assert_close(original, logits(peft), rtol=0, atol=TOLERANCE)
    assert (original - merged).abs().max() > 10 * TOLERANCE
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    losses = record["merged"]
    for folder, name, words in (
        (run / "model", "trained", "as they were in training"),
        (tmp_path / "original", "original", "as they are in their files"),
    ):
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert f"| adapters are merged into | the frozen weights {words}, in float32, rounded once |" in card
        assert f"| validation loss, merged into the weights {words} | {losses[name]:.4f} |" in card
    assert losses["trained"] == pytest.approx(record["final"]["val_loss"], rel=1e-5)
    assert losses["original"] != losses["trained"]


def test_an_adapter_is_exported_alone_and_from_any_step(adapted_run: Path, tmp_path: Path, galpaca: Galpaca) -> None:
    run = adapted_run / "lora"
    done = galpaca("export", run / "checkpoints" / "step-00000004", tmp_path / "alone", "--adapter")
    assert done.returncode == 0, done.stderr
    early, late = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "alone", run / "adapter"))
    assert early.keys() == late.keys()
    assert all(not torch.equal(early[name], late[name]) for name in early)
    torch.testing.assert_close(
        logits(loaded(tmp_path / "alone").model), logits(loaded(f"{run}@4").model), rtol=0, atol=TOLERANCE
    )


def test_a_moved_base_is_found_where_it_is_said_to_be(
    adapted_run: Path, base_model: Path, tmp_path: Path, galpaca: Galpaca
) -> None:
    run = tmp_path / "run"
    shutil.copytree(adapted_run / "lora", run)
    path = run / "run.json"
    moved = str(tmp_path / "gone")
    path.write_text(path.read_text(encoding="utf-8").replace(str(base_model), moved), encoding="utf-8")
    refused = galpaca("export", run, tmp_path / "out")
    assert refused.returncode == 2
    assert f"the frozen model is missing: {moved}" in refused.stderr
    assert "--base FOLDER" in refused.stderr
    done = galpaca("export", run, tmp_path / "out", "--base", base_model)
    assert done.returncode == 0, done.stderr
    answered = galpaca("generate", f"{run}@4", "--instruction", "Name a gas.", "--base", base_model)
    assert answered.returncode == 0, answered.stderr


def test_answers_in_batches_are_those_of_one_by_one_and_of_the_command(adapted_run: Path, galpaca: Galpaca) -> None:
    folder = adapted_run / "lora" / "model"
    questions = ["Name a gas.", "What is the boiling point of water at sea level?", "Why?"]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model: Any = OPTForCausalLM.from_pretrained(folder)
    own = loaded(folder)
    prompts = own.prompt_ids([Record.of(one) for one in questions])
    batch = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    together = model.generate(**batch, max_new_tokens=8, min_new_tokens=8)[:, batch["input_ids"].shape[1] :]
    for number, ids in enumerate(prompts):
        alone = model.generate(torch.tensor([ids]), max_new_tokens=8, min_new_tokens=8)[0, len(ids) :]
        assert torch.equal(alone, together[number])
    settings = Settings(max_new_tokens=8)
    for name in (folder, adapted_run / "lora" / "adapter", f"{adapted_run / 'lora'}@8"):
        one_by_one = [answer(loaded(name), [Record.of(one)], settings)[0].text for one in questions]
        assert [one.text for one in answer(loaded(name), [Record.of(one) for one in questions], settings)] == one_by_one
        command = galpaca("generate", name, "--instruction", questions[1], "--max-new-tokens", 8)
        assert command.stdout.rstrip("\n") == one_by_one[1].rstrip("\n")


def test_without_merging_the_adapter_is_all_and_the_run_answers(
    adapted_run: Path, tmp_path: Path, galpaca: Galpaca
) -> None:
    """A finished run is left alone; one whose release is asked for otherwise is released again, not trained."""
    run = tmp_path / "runs" / "lora"
    shutil.copytree(adapted_run / "lora", run)
    shutil.rmtree(run / "model")
    done = galpaca("generate", run, "--instruction", "Name a gas.", "--max-new-tokens", 4)
    assert done.returncode == 0, done.stderr
    expected = galpaca("generate", adapted_run / "lora", "--instruction", "Name a gas.", "--max-new-tokens", 4)
    assert done.stdout == expected.stdout
    state = galpaca("runs", run, "--json")
    assert state.returncode == 0, state.stderr
