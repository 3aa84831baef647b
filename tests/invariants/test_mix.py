"""Several sources: every step's examples as the shares say, on any number of ranks, resumed anywhere."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Train, read_jsonl

from galpaca.data.plan import StepPlan
from galpaca.data.shares import Share
from galpaca.data.spec import _OF_A_SOURCE

OWN, OTHER = Share("own", np.arange(0, 30), 2.0), Share("other", np.arange(30, 130), 0.25)
EPOCHS = 8


def plan(num_ranks: int = 1, seed: int = 7, shares: tuple[Share, ...] = (OWN, OTHER)) -> StepPlan:
    lengths = np.random.default_rng(0).integers(5, 60, 130)
    return StepPlan(lengths, lengths // 2, 16, 256, num_ranks, seed, shares=shares)


def epoch_of(one: StepPlan, epoch: int) -> list[int]:
    steps = range(epoch * one.steps_per_epoch, (epoch + 1) * one.steps_per_epoch)
    return [int(i) for step in steps for i in one.step_examples(step)]


def test_an_epoch_has_the_shares_and_no_more() -> None:
    mixed = plan()
    assert mixed.num_epoch_examples == 60 + 25
    assert mixed.steps_per_epoch == math.ceil(85 / 16)
    for epoch in range(EPOCHS):
        taken = Counter(epoch_of(mixed, epoch))
        assert {i: taken[i] for i in range(30)} == dict.fromkeys(range(30), 2)
        assert sum(taken[i] for i in range(30, 130)) == 25


def test_a_part_is_another_one_in_each_epoch_until_all_were_there() -> None:
    """A source's own order goes on from epoch to epoch."""
    parts = [[i for i in epoch_of(plan(), epoch) if i >= 30] for epoch in range(EPOCHS)]
    for first in (0, 4):
        four = [i for part in parts[first : first + 4] for i in part]
        assert sorted(four) == list(range(30, 130))
    assert [sorted(part) for part in parts[:4]] != [sorted(part) for part in parts[4:]]


def test_a_sources_part_does_not_depend_on_the_others() -> None:
    alone = plan(shares=(OTHER,))
    for epoch in range(EPOCHS):
        assert sorted(i for i in epoch_of(plan(), epoch) if i >= 30) == sorted(epoch_of(alone, epoch))


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_the_examples_of_every_step_are_the_same_on_any_number_of_ranks(num_ranks: int) -> None:
    one, several = plan(), plan(num_ranks)
    for step in range(3 * one.steps_per_epoch):
        packed = sorted(i for rank in several.step(step).micro_batches for micro_batch in rank for i in micro_batch)
        assert packed == sorted(int(i) for i in one.step_examples(step))


def test_a_step_is_the_same_whatever_was_asked_before() -> None:
    """Resuming is a number."""
    forward = [plan().step_examples(step).tolist() for step in range(18)]
    mixed = plan()
    assert [mixed.step_examples(step).tolist() for step in reversed(range(18))] == forward[::-1]
    assert [plan(seed=8).step_examples(step).tolist() for step in range(18)] != forward


@pytest.fixture
def sources(tmp_path: Path, demo_records: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    found = {"own": demo_records[:48], "other": demo_records[100:200]}
    for name, records in found.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(records), encoding="utf-8")
    return found


def mixed(tmp_path: Path, *further: str) -> list[str]:
    own = f"data.mix.own={{path: {tmp_path}/own.json, epochs: 2, val_fraction: 0.2, license: mit}}"
    other = f"data.mix.other={{path: {tmp_path}/other.json, epochs: 0.25, val_fraction: 0.1, template: science}}"
    steps = ["trainer.max_steps=12", "trainer.max_epochs=10", "trainer.val_every_steps=6", "checkpoint.every_steps=6"]
    return ["data.path=null", own, other, *steps, *further]


def test_a_run_of_a_mix_is_killed_and_resumed_in_its_bits(
    train: Train, tmp_path: Path, sources: dict[str, list[dict[str, str]]]
) -> None:
    """With a validation loss, a receipt, a licence and a line on the card for each source."""
    straight = train(*mixed(tmp_path, "run.name=straight"))
    assert straight.returncode == 0, straight.stderr
    kill = {"hook": "faults.crash:signal_rank_at_step", "hook_arguments": (8, 9, 0)}
    killed = train(*mixed(tmp_path, "run.name=again"), **kill)
    assert killed.returncode == -9
    resumed = train(*mixed(tmp_path, "run.name=again"))
    assert resumed.returncode == 0, resumed.stderr
    lines = {name: figures(tmp_path / "runs" / name) for name in ("straight", "again")}
    assert lines["straight"] == lines["again"]
    validations = [line for line in lines["straight"] if "val_loss" in line]
    assert [sorted(line) for line in validations] == [["step", "val_loss", "val_loss/other", "val_loss/own"]] * 2
    for line in validations:
        low, high = sorted((line["val_loss/own"], line["val_loss/other"]))
        assert low <= line["val_loss"] <= high
    record = json.loads((tmp_path / "runs" / "straight" / "run.json").read_text(encoding="utf-8"))
    assert [(one["name"], one["epochs"], one.get("license")) for one in record["sources"]] == [
        ("own", 2.0, "mit"),
        ("other", 0.25, None),
    ]
    assert [one["receipt"]["records"] for one in record["sources"]] == [48, 100]
    assert record["receipt"]["records"] == 148
    assert record["examples"]["validation"] > 0
    card = (tmp_path / "runs" / "straight" / "model" / "README.md").read_text(encoding="utf-8")
    assert "| source own | own.json: 48 records, 2 per epoch, license mit |" in card
    assert "| source other | other.json: 100 records, 0.25 per epoch, no license stated |" in card


def figures(run: Path) -> list[dict[str, Any]]:
    """Lines without what depends on the machine."""
    kept = ("step", "loss", "grad_norm", "lr", "tokens", "val_loss", "val_loss/own", "val_loss/other")
    return [{key: line[key] for key in kept if key in line} for line in read_jsonl(run / "metrics.jsonl")]


def test_each_sources_validation_loss_is_that_of_its_records(
    train: Train, tmp_path: Path, sources: dict[str, list[dict[str, str]]]
) -> None:
    from galpaca.data.encoding import RecordEncoder
    from galpaca.data.hashes import content_hash
    from galpaca.data.prompts import load_template
    from galpaca.data.records import Record
    from galpaca.data.split import VALIDATION, sides_of
    from galpaca.inference.any_model import load_any
    from galpaca.inference.losses import record_losses

    assert train(*mixed(tmp_path, "data.max_length=512")).returncode == 0
    [*_, last] = [line for line in figures(tmp_path / "runs" / "test") if "val_loss" in line]
    loaded = load_any(str(tmp_path / "runs" / "test"))
    for name, fraction, template in (("own", 0.2, "alpaca"), ("other", 0.1, "science")):
        records = [Record.of(one["instruction"], one["input"], one["output"]) for one in sources[name]]
        sides = sides_of(np.array([content_hash(record) for record in records], np.uint64), fraction)
        held_out = [record for record, side in zip(records, sides, strict=True) if side == VALIDATION]
        prompted = type(loaded)(**{**vars(loaded), "template": load_template(template)})
        assert isinstance(prompted.encoder, RecordEncoder)
        losses = record_losses(prompted, held_out)
        mean = sum(one.nll for one in losses) / sum(one.num_targets for one in losses)
        assert last[f"val_loss/{name}"] == pytest.approx(mean, rel=1e-4)


def test_every_key_of_a_source_works_in_a_mix(
    train: Train, tmp_path: Path, sources: dict[str, list[dict[str, str]]]
) -> None:
    """Tags of a source were refused, since the other sources have no such column."""
    rows = [{"q": one["instruction"], "mol": f"C{i}", "a": one["output"]} for i, one in enumerate(sources["own"])]
    (tmp_path / "own.json").write_text(json.dumps(rows), encoding="utf-8")
    own = {
        "path": f"{tmp_path}/own.json",
        "epochs": 1,
        "fields": "{instruction: q, input: mol, output: a}",
        "tags": "{mol: SMILES}",
        "template": "science",
        "template_date": "2025-01-02",
        "on_missing_input": "error",
        "on_empty": "drop",
        "on_empty_instruction": "drop",
        "on_truncation": "drop",
        "on_special_tokens": "error",
        "on_control_characters": "error",
        "val_path": f"{tmp_path}/other.json",
        "test_fraction": 0.1,
        "split_by": "mol",
        "split_kind": "value",
        "expected_records": 48,
        "license": "mit",
        "terms": "none",
    }
    held_out = [{"q": one["instruction"], "mol": "", "a": one["output"]} for one in sources["other"][:20]]
    (tmp_path / "other.json").write_text(json.dumps(held_out), encoding="utf-8")
    given = own | {
        "val_fraction": 0.0,
        "hub_id": "null",
        "hub_config": "null",
        "hub_revision": "null",
        "hub_split": "train",
    }
    assert given.keys() - {"epochs"} == _OF_A_SOURCE - {"epochs"}
    texts = ", ".join(f"{key}: {value}" for key, value in given.items())
    done = train("data.path=null", f"data.mix.own={{{texts}}}", "trainer.max_steps=1")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "runs" / "test" / "run.json").read_text(encoding="utf-8"))
    assert record["examples"]["validation"] == 20
    assert record["examples"]["test"] > 0


def test_a_source_that_moved_is_the_same_and_another_share_is_not(
    train: Train, tmp_path: Path, sources: dict[str, list[dict[str, str]]]
) -> None:
    assert train(*mixed(tmp_path, "trainer.max_steps=2", "trainer.val_every_steps=2")).returncode == 0
    moved = tmp_path / "elsewhere.json"
    (tmp_path / "own.json").rename(moved)
    again = [one.replace(f"{tmp_path}/own.json", str(moved)) for one in mixed(tmp_path, "trainer.max_steps=2")]
    assert train(*again).returncode == 0
    refused = train(*[one.replace("epochs: 2", "epochs: 3") for one in again])
    assert refused.returncode == 2
    assert "data.mix" in refused.stderr
