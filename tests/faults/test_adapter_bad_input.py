"""Mistakes around adapters: one clear error before anything is written, with a fix that works."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Galpaca, Train
from faults.test_bad_input import Problem, assert_nothing_half_written, assert_shows
from safetensors.torch import load_file, save_file
from transformers import OPTConfig, OPTForCausalLM

from galpaca.app.export import ExportOptions, export_run
from galpaca.errors import InputError
from galpaca.inference.places import find_model

Refused = Callable[..., str]


@pytest.fixture
def refused(train: Train, tmp_path: Path, base_model: Path) -> Refused:
    """Runs ``train.py`` on the small model, which must refuse; returns its message."""

    def run(*overrides: str) -> str:
        chosen = () if any(one.startswith("model.path") for one in overrides) else (f"model.path={base_model}",)
        done = train(*chosen, "data.max_length=64", *overrides)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert_nothing_half_written(tmp_path / "runs")
        return done.stderr

    return run


OF_TRAINING = {
    "an unknown layer": (
        ("tuning=lora", "tuning.targets=[q_proj,kproj]"),
        [Problem("tuning.targets", "not a linear layer of OPT's decoder: 'kproj'", "q_proj,k_proj,v_proj")],
    ),
    "the tied head": (
        ("tuning=lora", "tuning.targets=[lm_head]"),
        [Problem("tuning.targets", "'lm_head'", "q_proj,k_proj")],
    ),
    "the embedding": (
        ("tuning=qlora", "tuning.targets=[embed_tokens]"),
        [Problem("tuning.targets", "'embed_tokens'", "q_proj,k_proj")],
    ),
    "no layer": (
        ("tuning=lora", "tuning.targets=[]"),
        [Problem("tuning.targets", "nothing would train", "tuning.targets=null")],
    ),
    "a layer twice": (
        ("tuning=lora", "tuning.targets=[fc1,fc1]"),
        [Problem("tuning.targets", "names fc1 twice", "name it once")],
    ),
    "rank 0, and a dropout of 1": (
        ("tuning=lora", "tuning.rank=0", "tuning.dropout=1"),
        [Problem("tuning.rank", "at least 1", "tuning.rank"), Problem("tuning.dropout", "in [0, 1)", "tuning.dropout")],
    ),
    "a rank above the smaller side": (
        ("tuning=lora", "tuning.rank=65"),
        [Problem("tuning.rank", "must not exceed the smaller side of a layer, got 65", "tuning.rank=64 or less")],
    ),
    "lora under fsdp": (
        ("tuning=lora", "strategy=fsdp"),
        [Problem("strategy", "cannot shard frozen weights together with adapters", "strategy=single")],
    ),
    "qlora under fsdp": (
        ("tuning=qlora", "strategy=fsdp", "precision=32-true"),
        [Problem("strategy", "cannot shard frozen weights together with adapters", "strategy=ddp")],
    ),
    "qlora in float64": (
        ("tuning=qlora", "precision=64-true"),
        [Problem("precision", "tuning=qlora does not support weights in float64", "bf16-mixed")],
    ),
    "no merge of what is no adapter": (
        ("release.merge=false",),
        [Problem("release.merge", "leaves nothing to release", "release.merge=true")],
    ),
    "merged into something": (
        ("tuning=lora", "release.merge_into=base"),
        [Problem("release.merge_into", "'base'", "trained")],
    ),
    "an unknown key": (("tuning=lora", "+tuning.rnak=4"), [Problem("tuning.rnak", "unknown key", "tuning.rank")]),
    "a way of tuning that is none": (
        ("tuning._target_=galpaca.training.optimizers.adamw.AdamW",),
        [Problem("tuning._target_", "derived from TuningMethod", "conf/tuning/")],
    ),
}


@pytest.mark.parametrize("name", OF_TRAINING)
def test_a_configuration_that_cannot_be_is_refused(refused: Refused, name: str) -> None:
    overrides, problems = OF_TRAINING[name]
    assert_shows(refused(*overrides), *problems)


def test_problems_of_strategy_and_model_come_together(train: Train) -> None:
    done = train("tuning=lora", "strategy=fsdp")  # the small default model has random weights
    assert done.returncode == 2
    assert_shows(
        done.stderr,
        Problem("strategy", "cannot shard frozen weights", "strategy=single"),
        Problem("model.path", "random weights are none", "tuning=full"),
    )


def test_an_adapter_is_no_model_to_start_from(refused: Refused, adapted_run: Path) -> None:
    adapter = adapted_run / "lora" / "adapter"
    message = refused(f"model.path={adapter}", f"model.tokenizer={adapter}")
    assert_shows(message, Problem(str(adapter), "this is an adapter, not a model", "galpaca export RUN"))


def test_an_adapter_beside_merged_weights_is_refused(
    refused: Refused, galpaca: Galpaca, adapted_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "both"
    shutil.copytree(adapted_run / "lora" / "model", folder)
    shutil.copy(adapted_run / "lora" / "adapter" / "adapter_config.json", folder)
    message = refused(f"model.path={folder}")
    assert_shows(message, Problem(str(folder), "beside the weights of a whole model", "mv "))
    answered = galpaca("generate", folder, "--instruction", "Name a gas.")
    assert answered.returncode == 2
    assert_shows(answered.stderr, Problem(str(folder), "an adapter beside a whole model", "move adapter_config.json"))


def test_quantized_weights_are_no_base_for_full_tuning(refused: Refused, base_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "quantized"
    shutil.copytree(base_model, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    path.write_text(json.dumps({**config, "quantization_config": quantization}), encoding="utf-8")
    message = refused(f"model.path={folder}")
    assert_shows(message, Problem(str(folder), "the weights are quantized", "tuning=qlora"))


def copy_of(adapted_run: Path, tmp_path: Path, base: Path) -> Path:
    """A run whose checkpoints and metrics are those of ``lora``, half-way."""
    run = tmp_path / "runs" / "lora"
    shutil.copytree(adapted_run / "lora", run)
    for name in ("model", "adapter"):
        shutil.rmtree(run / name)
    path = run / "run.json"
    path.write_text(path.read_text(encoding="utf-8").replace(str(base), str(tmp_path / "base")), encoding="utf-8")
    return run


def flip(folder: Path) -> None:
    """2,000 values change their sign."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = "model.decoder.layers.0.fc1.weight"
    tensors[name].view(-1)[:2000].neg_()
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.slow
def test_a_base_that_changed_is_refused_at_each_start_and_at_export(
    train: Train, galpaca: Galpaca, base_model: Path, tmp_path: Path
) -> None:
    """It went unseen: what was trained beside one model would be put into another."""
    base = tmp_path / "base"
    shutil.copytree(base_model, base)
    chosen = (f"model.path={base}", "tuning=lora", "data.max_length=64", "checkpoint.every_steps=2")
    hook = {"hook": "faults.crash:terminate_at_step", "hook_arguments": (2,)}
    assert train(*chosen, **hook).returncode == 143
    before = sorted((tmp_path / "runs" / "test").rglob("*"))
    flip(base)
    again = train(*chosen)
    assert again.returncode == 2
    assert "base.fingerprint" in again.stderr
    assert sorted((tmp_path / "runs" / "test").rglob("*")) == before
    run = tmp_path / "runs" / "test"
    exported = galpaca("export", run, tmp_path / "out")
    assert exported.returncode == 2
    assert_shows(exported.stderr, Problem(str(base), "not the model that the adapters were trained with", "--base"))
    assert not (tmp_path / "out").exists()
    shutil.rmtree(base)
    shutil.copytree(base_model, base)
    assert train(*chosen).returncode == 0


def test_a_missing_base_is_named(train: Train, galpaca: Galpaca, base_model: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(base_model, base)
    assert train(f"model.path={base}", "tuning=lora", "data.max_length=64").returncode == 0
    run = tmp_path / "runs" / "test"
    record = run / "run.json"
    content = json.loads(record.read_text(encoding="utf-8"))
    content["weights"] |= {"path": "facebook/galactica-6.7b", "revision": "main", "commit": "1234abcd"}
    record.write_text(json.dumps(content), encoding="utf-8")
    shutil.rmtree(base)
    exported = galpaca("export", run, tmp_path / "out")
    assert exported.returncode == 2
    missing = "the frozen model is missing: facebook/galactica-6.7b (revision 1234abcd)"
    assert_shows(exported.stderr, Problem(str(base), missing, "--base FOLDER"))
    asked = galpaca("generate", run / "adapter", "--instruction", "Name a gas.")
    assert asked.returncode == 2
    assert_shows(asked.stderr, Problem(str(run / "adapter"), f"not on this machine: {base}", "--base FOLDER"))


def test_an_adapter_of_another_base_is_refused(
    galpaca: Galpaca, adapted_run: Path, base_model: Path, tmp_path: Path
) -> None:
    other, wider = tmp_path / "other", tmp_path / "wider"
    shutil.copytree(base_model, other)
    flip(other)
    adapter = adapted_run / "lora" / "adapter"
    asked = galpaca("generate", adapter, "--instruction", "Name a gas.", "--base", other)
    assert asked.returncode == 2
    assert_shows(
        asked.stderr, Problem(str(adapter), f"not the model that the adapter was trained with: {other}", "--base")
    )
    # PEFT's own adapters say nothing of their base; then the sizes must do.
    config = OPTConfig(**{**OPTForCausalLM.from_pretrained(base_model).config.to_dict(), "ffn_dim": 256})
    OPTForCausalLM(config).save_pretrained(wider)
    unsigned = tmp_path / "unsigned"
    shutil.copytree(adapter, unsigned)
    weights = unsigned / "adapter_model.safetensors"
    save_file(load_file(weights), weights, {"format": "pt"})
    asked = galpaca("generate", unsigned, "--instruction", "Name a gas.", "--base", wider)
    assert asked.returncode == 2
    assert_shows(asked.stderr, Problem(str(unsigned), "mismatched weight", "--base FOLDER"))


@pytest.mark.parametrize(
    ("missing", "what", "fix"),
    [
        ("adapter_config.json", "no adapter_config.json", "again"),
        ("adapter_model.safetensors", "missing or damaged", "again"),
    ],
)
def test_half_an_adapter_is_refused(
    galpaca: Galpaca, adapted_run: Path, tmp_path: Path, missing: str, what: str, fix: str
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(adapted_run / "lora" / "adapter", folder)
    (folder / missing).unlink()
    asked = galpaca("generate", folder, "--instruction", "Name a gas.")
    assert asked.returncode == 2
    assert_shows(asked.stderr, Problem(str(folder), what, fix))


def test_other_kinds_of_adapters_are_refused(galpaca: Galpaca, adapted_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(adapted_run / "lora" / "adapter", folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for changes, what in (
        ({"use_dora": True}, "use_dora=True"),
        ({"r": None}, "NoneType"),
        ({"target_modules": ["q_proj", "gate_proj"]}, "not a linear layer of OPT's decoder: 'gate_proj'"),
        ({"target_modules": None}, "NoneType"),
    ):
        path.write_text(json.dumps({**config, **changes}), encoding="utf-8")
        with pytest.raises(InputError, match="of a kind that is not read") as refused:
            find_model(str(folder)).opened(None)
        assert what in refused.value.what
        assert "merge_and_unload" in refused.value.fix
    asked = galpaca("generate", folder, "--instruction", "Name a gas.")
    assert asked.returncode == 2
    assert str(path) in asked.stderr


def test_commands_for_adapters_are_refused_where_there_are_none(
    galpaca: Galpaca, run: Path, adapted_run: Path, tmp_path: Path
) -> None:
    exported = galpaca("export", run, tmp_path / "out", "--adapter")
    assert exported.returncode == 2
    assert_shows(exported.stderr, Problem(str(run), "what was trained is no adapter", "galpaca export"))
    exported = galpaca("export", adapted_run / "lora", tmp_path / "out", "--adapter", "--dtype", "float16")
    assert exported.returncode == 2
    assert_shows(exported.stderr, Problem("--adapter", "--dtype is for whole models", "leave out --dtype"))
    asked = galpaca("generate", f"{adapted_run / 'lora'}@5", "--instruction", "Name a gas.")
    assert asked.returncode == 2
    assert_shows(asked.stderr, Problem(str(adapted_run / "lora"), "step 5 is not saved", "one of these"))
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_a_local_model_is_not_uploaded(
    adapted_run: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("galpaca.release.push.check_push", lambda problems, repository: None)  # you are logged in
    with pytest.raises(InputError, match="a folder of this machine") as refused:
        export_run(ExportOptions(adapted_run / "lora", tmp_path / "out", adapter=True, push="you/mine"))
    assert refused.value.where == str(base_model)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_the_base_that_is_not_there_is_refused(galpaca: Galpaca, adapted_run: Path) -> None:
    for model, what in ((adapted_run / "lora" / "adapter", "no such folder"), (f"{adapted_run / 'lora'}@8", "missing")):
        asked = galpaca("generate", model, "--instruction", "Name a gas.", "--base", "/nowhere")
        assert asked.returncode == 2
        assert_shows(asked.stderr, Problem("/nowhere", what, "--base FOLDER"))


def test_a_merged_model_without_room_is_released_and_said_to_be_unmeasured(
    train: Train, base_model: Path, tmp_path: Path
) -> None:
    chosen = (f"model.path={base_model}", "tuning=lora", "data.max_length=64", "data.val_fraction=0.1")
    done = train(*chosen, "trainer.max_steps=1", hook="faults.crash:no_room_for_a_merged_model", hook_arguments=())
    assert done.returncode == 0, done.stderr
    assert "warning: no validation loss of the merged model" in " ".join(done.stdout.split())
    card = (tmp_path / "runs" / "test" / "model" / "README.md").read_text(encoding="utf-8")
    assert "adapters are merged into" in card
    assert "validation loss, merged" not in card


@pytest.mark.slow
def test_a_learning_rate_of_full_tuning_is_a_warning(train: Train, base_model: Path, tmp_path: Path) -> None:
    chosen = (f"model.path={base_model}", "tuning=lora", "data.max_length=64", "trainer.max_steps=1")
    low = train("run.name=low", "optim.lr=2e-5", *chosen)
    assert low.returncode == 0, low.stderr
    assert re.search(r"warning +2e-05 is a rate of full tuning.*optim\.lr=2e-4", low.stdout)
    usual = train("run.name=usual", "optim.lr=2e-4", *chosen)
    assert "optim.lr=" not in usual.stdout
