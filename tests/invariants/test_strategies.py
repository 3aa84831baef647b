"""The number of processes and the way they share the model change the training by rounding at most."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Train, command, read_jsonl, run_ranks
from families import FAMILIES_AT_LENGTH, PLAIN_LLAMA, Sizes, Tiny
from safetensors.torch import load_file
from transformers import AutoTokenizer

from galpaca.files.checksums import facts_of
from galpaca.runs.checkpoints import read_manifest

TOLERANCE = 1e-4  # relative, over 20 steps in float32 without dropout

STEPS = 20
COMMON = (
    "model.dropout=0.0",
    f"trainer.max_steps={STEPS}",
    "trainer.max_epochs=100",
    "optim.lr=1e-3",
    "batch.max_tokens=256",
)


def losses(folder: Path) -> list[float]:
    return [float(line["loss"]) for line in read_jsonl(folder / "metrics.jsonl") if "loss" in line]


@pytest.mark.parametrize("tiny", FAMILIES_AT_LENGTH, ids=lambda tiny: tiny.name)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "fsdp2"])
def test_two_processes_equal_one(train: Train, tmp_path: Path, strategy: str, tiny: Tiny) -> None:
    """Also where a step's last examples leave a rank without any: 40 records, 7 a step, the sixth step has 5."""
    for name, *overrides in (
        ("one", "strategy=single"),
        ("two", f"strategy={strategy}", "trainer.devices=2"),
    ):
        done = train(f"run.name={name}", "batch.examples=7", *tiny.overrides, *COMMON, *overrides)
        assert done.returncode == 0, done.stderr
    one, two = (losses(tmp_path / "runs" / name) for name in ("one", "two"))
    assert len(one) == STEPS
    assert two == pytest.approx(one, rel=TOLERANCE)


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_a_rank_without_examples_takes_part(train: Train, tmp_path: Path, strategy: str) -> None:
    """An epoch's last step has one example: one of two ranks adds a zero that is connected to the parameters."""
    for name, *overrides in (
        ("one", "strategy=single"),
        ("two", f"strategy={strategy}", "trainer.devices=2"),
    ):
        done = train(f"run.name={name}", "batch.examples=13", *COMMON, "trainer.max_steps=6", *overrides)
        assert done.returncode == 0, done.stderr
    one, two = (losses(tmp_path / "runs" / name) for name in ("one", "two"))
    assert two == pytest.approx(one, rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "fsdp2"])
def test_rotary_positions_are_the_same_however_parameters_get_their_memory(
    train: Train, tmp_path: Path, tokenizer_folder: Path, strategy: str
) -> None:
    """Weights that are large enough for positions to count: with those of random initialization no loss shows them."""
    vocabulary = len(AutoTokenizer.from_pretrained(tokenizer_folder))
    PLAIN_LLAMA.model(Sizes(vocabulary, positions=128), std=0.4).save_pretrained(tmp_path / "model")
    common = (f"model.path={tmp_path / 'model'}", "data.max_length=128", "trainer.max_steps=2", "optim.lr=1e-4")
    for name, *overrides in (
        ("one", "strategy=single"),
        ("two", f"strategy={strategy}", "trainer.devices=2"),
    ):
        done = train(f"run.name={name}", *common, *overrides)
        assert done.returncode == 0, done.stderr
    one, two = (losses(tmp_path / "runs" / name) for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-5)


def test_more_ranks_than_examples_a_step_are_refused(train: Train) -> None:
    done = train("strategy=ddp", "trainer.devices=9")
    assert done.returncode == 2
    assert "9 ranks share a step of 8 examples" in done.stderr
    assert "trainer.devices=8 at most" in done.stderr


def test_few_examples_for_each_rank_are_said(train: Train) -> None:
    done = train("strategy=ddp", "trainer.devices=2", "batch.examples=6", "trainer.max_steps=1")
    assert done.returncode == 0, done.stderr
    assert "3 a rank in each step are too few" in done.stdout
    assert "too few" not in train("run.name=one", "batch.examples=6", "trainer.max_steps=1").stdout


HYBRID = {
    "fsdp": ("strategy=fsdp", "strategy.sharding_strategy=HYBRID_SHARD"),
    "fsdp2": ("strategy=fsdp2", "strategy.hybrid=true"),
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", HYBRID)
def test_shards_within_a_node_and_copies_between_nodes(
    train: Train, tmp_path: Path, tokenizer_folder: Path, records_file: Path, server: str, strategy: str
) -> None:
    """Two times two processes that take themselves for two nodes: the same losses, and copies share the writing."""
    done = train("run.name=one", *COMMON)
    assert done.returncode == 0, done.stderr
    hybrid = (*HYBRID[strategy], "trainer.devices=2", "trainer.num_nodes=2")
    line = command(tmp_path, tokenizer_folder, records_file, "run.name=four", *COMMON, *hybrid)
    run_ranks(server, line, tmp_path, 4, per_node=2)
    one, four = (losses(tmp_path / "runs" / name) for name in ("one", "four"))
    assert four == pytest.approx(one, rel=TOLERANCE)
    weights, others = (load_file(tmp_path / "runs" / name / "model" / "model.safetensors") for name in ("one", "four"))
    assert all(torch.allclose(weights[name], others[name], atol=1e-4) for name in weights)


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_trains_under_fsdp(train: Train, tmp_path: Path, precision: str, strategy: str) -> None:
    """The project's default on GPUs, on two CPU processes: it learns, and 16-mixed scales its loss."""
    done = train(
        f"strategy={strategy}",
        "trainer.devices=2",
        f"precision={precision}",
        "batch.examples=2",
        "optim.lr=1e-2",
        "trainer.max_steps=4",
    )
    assert done.returncode == 0, done.stderr
    lines = read_jsonl(tmp_path / "runs" / "test" / "metrics.jsonl")
    assert lines[-1]["loss"] < lines[0]["loss"]
    if precision == "16-mixed":
        assert all(line["loss_scale"] >= 1 and line["skipped"] is False for line in lines)


def test_the_loss_scale_goes_on_under_another_strategy(train: Train, tmp_path: Path) -> None:
    """Lightning keeps it under the name of the strategy's own plugin: started anew, it skipped steps until it fit."""
    tiny = ("precision=16-mixed", "batch.examples=2", "trainer.max_steps=4")
    hook = {"hook": "faults.crash:terminate_at_step", "hook_arguments": (1,)}
    stopped = train(*tiny, "strategy=single", **hook)
    assert stopped.returncode == 143, stopped.stderr
    trainer = tmp_path / "runs" / "test" / "checkpoints" / "step-00000002" / "trainer.json"
    state = json.loads(trainer.read_text(encoding="utf-8"))
    assert state["precision"]["scale"] == 65536.0
    # As after some overflows.
    state["precision"]["scale"] = 1024.0
    trainer.write_text(json.dumps(state), encoding="utf-8")
    reseal(trainer.parent)
    done = train(*tiny, "strategy=fsdp", "trainer.devices=2")
    assert done.returncode == 0, done.stderr
    lines = read_jsonl(tmp_path / "runs" / "test" / "metrics.jsonl")
    assert [line["loss_scale"] for line in lines] == [65536.0, 65536.0, 1024.0, 1024.0]


def reseal(checkpoint: Path) -> None:
    """Makes a checkpoint whole again after a change of its files."""
    manifest = read_manifest(checkpoint)
    files = facts_of(checkpoint / name for name in manifest.files)
    (checkpoint / "manifest.json").write_text(replace(manifest, files=files).to_json(), encoding="utf-8")


@pytest.mark.slow
def test_copies_of_the_model_stay_alike_with_bfloat16_moments(train: Train, tmp_path: Path) -> None:
    """Rounded at random, by numbers that are a rank's own, two copies would part: each rank's release would differ.

    Rank 1's weights are not saved; but as soon as copies part, gradients are those of two models, and losses too.
    """
    for name, *overrides in (
        ("one", "strategy=single"),
        ("two", "strategy=ddp", "trainer.devices=2"),
    ):
        done = train(f"run.name={name}", "batch.examples=8", *COMMON, "optim.moments_dtype=bfloat16", *overrides)
        assert done.returncode == 0, done.stderr
    one, two = (losses(tmp_path / "runs" / name) for name in ("one", "two"))
    assert two == pytest.approx(one, rel=TOLERANCE)
