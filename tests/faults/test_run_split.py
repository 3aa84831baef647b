"""The records of a run by what they were for, written and measured; and no page claims what was not checked."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Train, read_jsonl

from galpaca.cli import main

SMILES = ["c1ccccc1", "Cc1ccccc1", "CCO", "C1CCCCC1", "OC1CCCCC1", "c1ccncc1"]


@pytest.fixture
def table(tmp_path: Path, demo_records: list[dict[str, str]]) -> Path:
    """Records with a molecule and a number, five of each molecule."""
    path = tmp_path / "table.jsonl"
    rows = [
        {**record, "molecule": SMILES[i % 6] + f".[Na+].{i // 12}", "n": i}
        for i, record in enumerate(demo_records[:240])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def molecule(number: int) -> str:
    return "C" * (number // 12 % 5) + SMILES[number % 6]


def short(table: Path, *further: str) -> list[str]:
    return [f"data.path={table}", "trainer.max_steps=2", "data.val_fraction=0.2", "data.test_fraction=0.2", *further]


def files(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {path.stem: read_jsonl(path) for path in folder.glob("*.jsonl")}


def test_a_run_is_written_as_its_records_were(train: Train, table: Path, tmp_path: Path) -> None:
    done = train(*short(table))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "runs" / "test" / "run.json").read_text(encoding="utf-8"))
    assert main(["split", str(tmp_path / "runs" / "test"), "--out", str(tmp_path / "out")]) == 0
    written = files(tmp_path / "out")
    rows = read_jsonl(table)
    assert sorted(written) == ["test", "train", "validation"]
    assert sorted(row["n"] for side in written.values() for row in side) == [row["n"] for row in rows]
    assert all(row == rows[row["n"]] for side in written.values() for row in side)
    assert {side: len(found) for side, found in written.items()} == {
        side: record["examples"][side] for side in ("train", "validation", "test")
    }
    again = subprocess.run(
        [sys.executable, "-m", "galpaca", "split", str(tmp_path / "runs" / "test"), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_a_run_with_relative_paths_is_split_from_anywhere(
    train: Train, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train(*short(Path(table.name)), "run.root=runs")
    assert done.returncode == 0, done.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["split", "../runs/test", "--out", "out"]) == 0
    assert files(elsewhere / "out").keys() == {"train", "validation", "test"}


@pytest.mark.parametrize("kind", ["value", "scaffold"])
def test_no_value_is_on_two_sides(kind: str, train: Train, table: Path, tmp_path: Path) -> None:
    """In any order of records; and further records move none."""
    from galpaca.data.grouping import scaffold_of

    name_of: Callable[[Any], str] = scaffold_of() if kind == "scaffold" else str
    sides: dict[str, set[str]] = {}
    placed: list[dict[int, str]] = []
    rows = read_jsonl(table)
    orders = [rows, rows[::-1], [*rows[::2], *rows[1::2]], [*rows, {**rows[0], "instruction": "new", "n": 999}]]
    for number, order in enumerate(orders):
        table.write_text("".join(json.dumps(row) + "\n" for row in order), encoding="utf-8")
        name = f"run.name=r{number}"
        split = ["data.split_by=molecule", f"data.split_kind={kind}", "data.val_fraction=0.3", "data.test_fraction=0.3"]
        done = train(*short(table, name, *split))
        assert done.returncode == 0, done.stderr
        assert main(["split", str(tmp_path / "runs" / f"r{number}"), "--out", str(tmp_path / f"out{number}")]) == 0
        written = files(tmp_path / f"out{number}")
        for side, found in written.items():
            for row in found:
                sides.setdefault(name_of(row["molecule"]), set()).add(side)
        placed.append({row["n"]: side for side, found in written.items() for row in found})
    assert all(len(found) == 1 for found in sides.values()), sides
    assert len({side for found in sides.values() for side in found}) == 3
    assert all({n: later[n] for n in placed[0]} == placed[0] for later in placed)


def test_validation_records_of_their_own(train: Train, table: Path, tmp_path: Path) -> None:
    rows = read_jsonl(table)
    for name, part in (("a", rows[:200]), ("b", rows[200:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    own = [f"data.path={tmp_path}/a.jsonl", f"data.val_path={tmp_path}/b.jsonl", "trainer.max_steps=2"]
    done = train(*own, "data.val_fraction=0")
    assert done.returncode == 0, done.stderr
    assert main(["split", str(tmp_path / "runs" / "test"), "--out", str(tmp_path / "out")]) == 0
    written = files(tmp_path / "out")
    assert {side: [row["n"] for row in found] for side, found in written.items()} == {
        "train": list(range(200)),
        "validation": list(range(200, 240)),
    }
    assert [line for line in read_jsonl(tmp_path / "runs" / "test" / "metrics.jsonl") if "val_loss" in line]


def test_held_out_records_that_are_nearly_trained_on_are_counted(train: Train, tmp_path: Path, table: Path) -> None:
    rows = read_jsonl(table)[:100]
    copies = [{**row, "output": row["output"].upper() + " !"} for row in rows]
    table.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *copies]), encoding="utf-8")
    assert train(*short(table)).returncode == 0
    counts = json.loads((tmp_path / "runs" / "test" / "run.json").read_text(encoding="utf-8"))["examples"]
    assert 0 < counts["near_duplicates"] <= counts["shared_prompts"] < counts["validation"] + counts["test"]


def test_losses_say_what_was_trained_on_and_what_was_not_checked(
    train: Train, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*short(table)).returncode == 0
    run, out = tmp_path / "runs" / "test", tmp_path / "results"
    counts = json.loads((run / "run.json").read_text(encoding="utf-8"))["examples"]
    for side, name in (("test", "test"), ("val", "validation"), ("train", "train")):
        assert main(["evaluate", str(run), "--split", side, "--out", str(out)]) == 0
        [found] = [json.loads(path.read_text(encoding="utf-8")) for path in out.glob(f"records-{side}-*.json")]
        assert found["records"]["count"] == counts[name]
        assert found["records"]["source"] == f"test ({name})"
        assert found["records"]["trained_on"] == (counts["train"] if side == "train" else 0)
    copied = tmp_path / "elsewhere"
    (run / "model").rename(copied)
    assert main(["evaluate", str(copied), "--records", str(table), "--out", str(out)]) == 0
    assert "not checked" in capsys.readouterr().out
    page, data = tmp_path / "page.html", tmp_path / "page.json"
    copied.rename(run / "model")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"instruction": "Name a gas."}\n', encoding="utf-8")
    options = ["--prompts", str(prompts), "--max-new-tokens", "2", "--out", str(page), "--json", str(data)]
    assert main(["compare", f"a={run}", f"b={run}", "--records", str(table), *options]) == 0
    assert json.loads(data.read_text(encoding="utf-8"))["records"]["trained_on"] == dict.fromkeys("ab", counts["train"])
    assert f"a was trained on {counts['train']} of these records" in page.read_text(encoding="utf-8")
    assert main(["compare", f"a={run}", f"b={run}", "--split", "test", *options]) == 0
    text = page.read_text(encoding="utf-8")
    assert "a was trained on none of these records" in text
    assert "held-out records</h2>" not in text


def test_records_that_have_changed_since_are_refused(train: Train, table: Path, tmp_path: Path) -> None:
    assert train(*short(table)).returncode == 0
    table.write_text(table.read_text(encoding="utf-8").replace("the", "teh"), encoding="utf-8")
    assert main(["split", str(tmp_path / "runs" / "test"), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "compare", "generate", "inspect"])
def test_a_command_names_its_own_options_among_all_problems(
    command: str, tmp_path: Path, tokenizer_folder: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of several problems, those of the records kept the configuration's keys, which the command does not take."""
    records = tmp_path / "records.csv"
    records.write_text("question,reply\nName a gas.,Neon.\n", encoding="utf-8")
    given = {
        "evaluate": ["evaluate", str(tmp_path / "nothing"), "--records", str(records)],
        "compare": ["compare", str(run), str(tmp_path / "nothing"), "--records", str(records), "--out", "x.html"],
        "generate": ["generate", str(run), "--file", str(records), "--out", str(tmp_path / "out.jsonl")],
        "inspect": ["inspect", str(records), "--tokenizer", str(tokenizer_folder)],
    }[command]
    assert main(given) == 2
    message = capsys.readouterr().err
    assert "--field instruction=question" in message
    assert "data." not in message
