"""``bench.predictions``: its terms add up, follow what was counted, and say what does not fit."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import predictions
from bench.predictions import CARDS, ONE_CARD, Way, memory, per_unit, planned, predict, table

A100, _, H200 = CARDS
FULL = ONE_CARD[0]
UNIT = per_unit()


def test_6_7b_on_one_h200_is_what_was_worked_out_by_hand() -> None:
    """1.15 to 1.2 s and 52 to 54 % (2026-11-28): products, the bytes of each kind over 4.3 TB/s, and gaps."""
    found = predict(H200, 1, FULL, UNIT)
    assert found.seconds == pytest.approx(1.2, abs=0.05)
    assert found.mfu == pytest.approx(0.53, abs=0.02)
    assert found.seconds == found.products + found.moved + found.exposed + found.transfers + found.gaps
    without = predict(H200, 1, replace(FULL, recomputation="none"), UNIT)
    counted_gb = 305 + 318 + 248 + 266
    assert without.moved == pytest.approx(counted_gb * 1e9 / (0.9 * 4.8e12), rel=0.05)


def test_more_cards_hold_less_each_and_a_faster_one_is_faster() -> None:
    whole, quarter = memory(FULL, 1), memory(FULL, 4)
    assert quarter.optimizer_state == whole.optimizer_state / 4
    assert quarter.total < whole.total
    assert predict(H200, 4, FULL, UNIT).links > 0
    assert predict(H200, 1, FULL, UNIT).links == 0
    for way in ONE_CARD:
        assert predict(H200, 1, way, UNIT).seconds < predict(A100, 1, way, UNIT).seconds
    full = predict(H200, 1, replace(FULL, recomputation="full"), UNIT)
    assert full.products == pytest.approx(4 / 3 * predict(H200, 1, FULL, UNIT).products, rel=0.02)


def test_moments_on_the_host_leave_their_memory_to_the_card_and_take_their_way() -> None:
    """6.7B in full on one card of 80 GB, at 53 GB each way a step."""
    on_card = replace(FULL, recomputation="full")
    on_host = replace(on_card, on_host=True)
    less = memory(on_card, 1).total - memory(on_host, 1).total
    assert less == pytest.approx(6_657_359_872 * 8, rel=0.05)
    assert memory(on_host, 1).total < A100.memory_gib * 2**30 < memory(on_card, 1).total
    longer = predict(A100, 1, on_host, UNIT).seconds - predict(A100, 1, on_card, UNIT).seconds
    assert longer == pytest.approx(1.05 * 53.26e9 / 24e9, rel=0.01)


def test_smaller_micro_batches_are_more_of_them() -> None:
    tokens, four, _ = planned(1, 4_096)
    assert tokens == pytest.approx(15_400, rel=0.02)
    assert planned(1, 8_192)[1] < four < planned(1, 2_048)[1]
    assert planned(4, 4_096)[1] == pytest.approx(1.1, abs=0.1)


def test_what_does_not_fit_is_said_instead_of_a_time() -> None:
    shown = table([predict(A100, 1, FULL, UNIT), predict(H200, 1, FULL, UNIT)]).splitlines()
    assert shown[2].endswith("| needs 114 of 79 |")
    assert "needs" not in shown[3]
    assert len({line.count("|") for line in shown}) == 1


def test_bytes_are_the_newest_that_were_counted(tmp_path: Path) -> None:
    """On one card, in bf16-mixed, in micro-batches of 4,096 tokens; without them there is no prediction."""
    with pytest.raises(SystemExit, match=r"python -m bench\.bytes"):
        per_unit(tmp_path)
    gigabytes = {"elementwise": 610.0, "casts": 159.0, "accumulation": 0.0, "norm": 26.6, "update": 186.0}
    row = {"shape": "6.7b", "precision": "bf16-mixed", "strategy": "single", "tokens_per_micro_batch": 4_096}
    nothing = dict.fromkeys(gigabytes, 0.0)
    rows = [
        {**row, "moments": "float32", "gigabytes": gigabytes},
        {**row, "moments": "bfloat16", "gigabytes": {**gigabytes, "update": 133.0}},
        {**row, "moments": "float32", "strategy": "fsdp", "gigabytes": nothing},
        {**row, "moments": "float32", "tokens_per_micro_batch": 8_192, "gigabytes": nothing},
    ]
    (tmp_path / "2026-11-29_bytes_cpu.json").write_text(json.dumps({"rows": []}), encoding="utf-8")
    (tmp_path / "2026-11-30_bytes_cpu.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    found = per_unit(tmp_path)
    assert found.elementwise == pytest.approx(610 / 327.1 * UNIT.elementwise, rel=1e-3)
    assert found.casts == pytest.approx(159 / 319.1 * UNIT.casts, rel=1e-3)
    assert found.accumulation == 0
    assert found.update["float32"] == pytest.approx(212.6e9 / 6_657_359_872, rel=1e-3)
    assert found.update["bfloat16"] == pytest.approx(159.6e9 / 6_657_359_872, rel=1e-3)
    assert found.source == "2026-11-30_bytes_cpu.json"


def test_its_terms_are_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["predictions", f"--out={tmp_path}"])
    assert predictions.main() == 0
    assert "est., not measured" in capsys.readouterr().out
    (path,) = tmp_path.glob("*_predictions_*.json")
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert len(rows) == len(CARDS) * (len(ONE_CARD) + len(predictions.FOUR_CARDS))
    assert rows[0]["memory"]["optimizer_state"] > 0
    (adapters,) = [way for way in ONE_CARD if way.name == "6.7b LoRA"]
    assert isinstance(adapters, Way)
    assert adapters.rank == 16
