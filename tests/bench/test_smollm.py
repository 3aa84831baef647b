"""``bench.smollm``: its phases, its verdicts and its page; what its figures say of a random model means nothing."""

import json
import random
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import DEMO, REPOSITORY, Started, completed

from bench.results import RESULTS
from bench.smollm import __main__ as smollm
from bench.smollm import commands, kills, phases, prose, scoring
from bench.smollm.clients import CLIENTS
from bench.smollm.page import page
from bench.smollm.peers_section import peers_section
from bench.smollm.plan import MORE, PROSE, QUESTIONS, Plan, Tuning
from bench.smollm.split import CATEGORIES, category_of, split
from galpaca.errors import GalpacaError
from galpaca.runs.folder import RunFolder


def _record(instruction: str, input: str = "", output: str = "x") -> dict[str, str]:
    return {"instruction": instruction, "input": input, "output": output}


def test_no_prompt_is_on_both_sides_and_more_records_move_none() -> None:
    records = [_record(f"question {number % 300}", output=str(number)) for number in range(400)]
    train, test = split(records, share=0.2)
    assert len(train) + len(test) == 400
    assert not {one["instruction"] for one in train} & {one["instruction"] for one in test}
    assert 40 < len(test) < 120
    assert split(records[:100], share=0.2)[1] == [one for one in test if int(one["output"]) < 100]


def test_each_form_of_a_record_has_its_category() -> None:
    found = [
        category_of(_record("Sort these.", "c, a, b")),
        category_of(_record("What is it?", output="y" * 100)),
        category_of(_record("Write: a poem", output="y" * 101)),
        category_of(_record("Why is it?", output="y" * 101)),
    ]
    assert found == list(CATEGORIES)


@pytest.mark.parametrize(
    ("answer", "references", "right"),
    [
        ("It is Au.", ["Au"], True),
        ("au revoir", ["Au"], False),
        ("the AUTUMN", ["autumn"], True),
        ("about 1.7 or 7,000 or 17", ["7"], False),
        ("It is 7.", ["7"], True),
        ("seven", ["7", "seven"], True),
        ("CO₂ and water", ["CO2", "CO₂"], True),
        ("", ["x"], False),
        ("It freezes at -100 or −100.", ["100"], False),
        ("It is 1/2.", ["2"], False),
        ("It is 2/3.", ["2"], False),
        ("between 5-7", ["7"], False),
        ("It boils at 100C.", ["100"], True),
        ("It boils at 100°C.", ["100"], True),
        ("the 7th, 7x4 and 2⁵", ["7", "2"], False),
        ("two hundred", ["100", "one hundred"], False),
    ],
)
def test_a_reference_must_stand_in_the_answer_by_itself(answer: str, references: list[str], right: bool) -> None:
    assert scoring.is_right(answer, references) is right


@pytest.mark.parametrize(
    ("answer", "first"),
    [
        ("It is 7. Others say 8.", "It is 7."),
        ("Au\n\nAu is gold.", "Au"),
        ("The answer is:\n\n42\nIt was 43.", "The answer is:\n\n42"),
        ("1. Mercury. 2. Venus", "Mercury."),
        ("Neil A. Armstrong walked there. Aldrich followed.", "Neil A. Armstrong walked there."),
        ("  about 3.14 of it", "about 3.14 of it"),
        ("", ""),
    ],
)
def test_of_an_answer_the_first_sentence_is_judged_too(answer: str, first: str) -> None:
    assert scoring.first_sentence(answer) == first


def test_a_share_of_all_or_none_has_an_interval_with_a_width() -> None:
    """The bootstrap's had none. Of Wilson's, each bound is a share that lies 1.96 of its deviations away."""
    for right, count in ((0, 10), (10, 10), (7, 20)):
        found = scoring.wilson(right, count)
        assert found.low is not None
        assert found.high is not None
        for bound in {found.low, found.high} - {found.value}:
            deviations = (found.value - bound) / (bound * (1 - bound) / count) ** 0.5
            assert abs(deviations) == pytest.approx(1.96, abs=1e-3)
        assert found.high - found.low > 0.2
    assert scoring.wilson(0, 10).low == 0
    assert scoring.wilson(10, 10).high == 1


def test_shares_of_right_answers_are_paired() -> None:
    before, after = [True, False, False, False], [True, True, True, False]
    rows = scoring.shares(["a", "a", "b", "b"], [before, after])
    assert [(row["category"], row["questions"]) for row in rows] == [("all", 4), ("a", 2), ("b", 2)]
    first, second = rows[0]["models"]
    assert (first["right"], second["right"]) == (1, 3)
    assert rows[1]["models"][1]["share"]["low"] < 1, "two of two right are no certainty"
    assert second["difference"]["value"] == pytest.approx(0.5)
    assert second["changed"] == {"gained": 2, "lost": 0, "p": 0.5}
    assert scoring.changes([True] * 10, [False] * 10)["p"] == pytest.approx(2 / 2**10)


def test_questions_have_references_that_they_do_not_give_away() -> None:
    questions = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    assert 60 <= len(questions) <= 100
    assert len({one["instruction"] for one in questions}) == len(questions)
    for one in questions:
        assert one["references"]
        assert not scoring.is_right(one["instruction"], one["references"]), one


def test_prose_is_read_without_its_heading() -> None:
    passages = prose.read_passages(PROSE)
    assert sum(len(one.split()) for one in passages) > 2_000
    assert passages[0].startswith("A candle flame")
    assert not any("galpaca" in one for one in passages)


def test_no_prompt_that_is_shown_is_replayed(tmp_path: Path) -> None:
    """All of them were replayed, so a tuning had read answers to what the page shows as prompts of no record."""
    for plan in (Plan(tmp_path, tmp_path), Plan(tmp_path, tmp_path, tiny=True)):
        shown, replayed = phases.shown_prompts(plan), phases.replayed_prompts(plan)
        assert shown
        assert replayed
        assert not [one for one in shown if one in replayed]


def test_the_model_is_made_anew_with_another_version_of_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders with wrong tokens would have been taken as done."""
    plan = Plan(tmp_path, tmp_path)
    before = phases.model_phases(plan)[1].inputs
    assert before != "float32"
    monkeypatch.setattr("bench.convert_gguf.VERSION", 99)
    assert phases.model_phases(plan)[1].inputs != before


def test_others_have_the_range_of_their_ratio_and_galpaca_its_budget() -> None:
    losses = [2.0, 1.5]
    found = {
        "examples_per_second": {"galpaca": 3.0, "trainer": 2.0},
        "ratio": {"trainer": 1.5},
        "ratio_range": {"trainer": [1.4, 1.75]},
        "losses": {"galpaca": losses, "trainer": losses},
        "repeats": [{}, {}, {}],
        **{"steps": 8, "examples_per_step": 16, "mean_tokens": 100.0, "max_tokens": 2048, "max_length": 512},
    }
    text = "\n".join(peers_section(found))
    assert "galpaca, micro-batches of at most 2,048 tokens" in text
    assert "1.50 x (1.40 to 1.75)" in text
    assert "Medians of 3 repeats" in text


_LINE = json.dumps({"step": 3, "loss": 6.0, "examples": 4, "tokens": 90, "target_tokens": 70, "step_seconds": 0.5})


def _run_that(then: str, folder: RunFolder, seconds: float) -> int:
    """Kills, at moments up to so many seconds, a run that writes a step's line and goes on as said."""
    folder.path.mkdir(parents=True)
    script = f"""
import pathlib, sys, time
file = pathlib.Path({str(folder.metrics)!r})
file.parent.mkdir(parents=True, exist_ok=True)
started = file.parent.parent / "started"
number = int(started.read_text()) + 1 if started.exists() else 1
started.write_text(str(number))
file.write_text({_LINE!r} + chr(10))
{then}
"""
    return kills.kill([sys.executable, "-c", script], folder, random.Random(0), seconds)


def test_a_run_that_ended_before_its_moment_is_not_counted(tmp_path: Path) -> None:
    """It was counted as killed, although nothing had happened to it."""
    assert _run_that("if number == 2: time.sleep(60)", RunFolder(tmp_path / "a", "run"), 1.0) == 3
    assert (tmp_path / "a" / "started").read_text(encoding="utf-8") == "2"
    with pytest.raises(GalpacaError, match="ended before, 5 times"):
        _run_that("", RunFolder(tmp_path / "b", "run"), 1.0)
    with pytest.raises(GalpacaError, match="exit code 7"):
        _run_that("sys.exit(7)", RunFolder(tmp_path / "c", "run"), 1.0)


def _stand_in(tuning: Tuning, plan: Plan) -> None:
    """A training of no time: the model of before, other by a little, and two steps' lines."""
    from safetensors.torch import load_file, save_file

    folder = plan.run_of(tuning) / "model"
    shutil.copytree(plan.base, folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"] *= 1.5
    save_file(weights, file, {"format": "pt"})
    line = {"loss": 6.0, "examples": 16, "tokens": 900, "target_tokens": 700, "step_seconds": 0.5}
    lines = [json.dumps({"step": number, **line}) for number in (1, 2)]
    (folder.parent / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *words: str) -> None:
    folders = (f"--root={tmp_path / 'root'}", f"--out={tmp_path / 'out'}", f"--data={DEMO / 'records.json'}")
    monkeypatch.setattr(sys, "argv", ["bench.smollm", "--tiny", *folders, *words])


def _forked(monkeypatch: pytest.MonkeyPatch, server: str) -> list[list[str]]:
    """Commands are forked, and remembered."""
    typed: list[list[str]] = []

    def fork(command: list[str], *, cwd: Path, env: Mapping[str, str]) -> Any:
        typed.append(command)
        done = completed(Started(server, command, cwd, env))
        print(done.stdout, done.stderr)
        return done

    monkeypatch.setattr(commands, "subprocess", SimpleNamespace(run=fork))
    return typed


@pytest.mark.slow
def test_phases_are_kept_and_the_page_says_what_they_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    """All but the training itself, for which something stands in."""
    typed = _forked(monkeypatch, server)
    monkeypatch.setattr(phases, "train", _stand_in)
    _type(monkeypatch, tmp_path)
    assert smollm.main() == 0
    assert len(typed) == 2, "galpaca compare, with records and with questions"
    figures_file, page_file = sorted((tmp_path / "out").iterdir())
    text, figures = page_file.read_text(encoding="utf-8"), json.loads(figures_file.read_text(encoding="utf-8"))
    assert str(tmp_path) not in text + json.dumps(figures)
    assert "dequantized from 4 bits" in text
    assert "*Instruct*" in text
    labels = [one["label"] for one in figures["losses"]["models"]]
    assert labels == ["before", "before-in-alpaca", "full"]
    templates = [one["template"] for one in figures["losses"]["models"]]
    assert templates[1] == "alpaca"
    assert "chat template" in templates[0]
    assert figures["prose"]["models"][1]["difference"]["value"] != 0
    assert figures["tunings"][0]["tokens_per_second"] == 1_800

    assert smollm.main() == 0
    assert len(typed) == 2, "what is done is not done again"
    _type(monkeypatch, tmp_path, "--more", "seeds")
    assert smollm.main() == 0
    figures = json.loads(figures_file.read_text(encoding="utf-8"))
    assert [one["name"] for one in figures["tunings"]] == ["full", *(one.name for one in MORE["seeds"])]
    assert figures["command"] == "python -m bench.smollm --tiny --more seeds"


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(("qlora", "kills", "clients"), marks=pytest.mark.slow, id="some"),
        pytest.param(tuple(MORE), marks=pytest.mark.endurance, id="all"),
    ],
)
def test_everything_with_a_tiny_model(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    """Trainings and peers as typed; peers train the same."""
    _forked(monkeypatch, server)
    is_there = all(folder is None or folder.is_dir() for folder in CLIENTS.values())
    _type(monkeypatch, tmp_path, "--more", *(name for name in more if name != "clients" or is_there))
    assert smollm.main() == 0
    figures = json.loads(next((tmp_path / "out").glob("*.json")).read_text(encoding="utf-8"))
    assert len(figures["tunings"]) == 1 + sum(len(MORE[name]) for name in more)
    assert [one["same_bits"] for one in figures["kills"]["runs"]] == [True]
    prose_models = [one["label"] for one in figures["prose"]["models"]]
    assert prose_models[0] == "before"
    assert prose_models[-1] == "before-in-4-bits", "what QLoRA began with"
    assert figures["prose"]["models"][-1]["difference"]["value"] != 0
    assert figures["prose"]["to_before_in_4_bits"].keys() == {"qlora"}
    if is_there:
        assert 0 <= figures["clients"]["ended"] <= figures["clients"]["questions"]
        for client in figures["clients"]["clients"]:
            assert set(client["equal"].values()) == {figures["clients"]["questions"]}
    losses = figures["losses"]["records"]["loss"][0]["models"]
    assert losses[2]["nats_per_token"]["value"] < losses[0]["nats_per_token"]["value"], "tuned beside before"
    if "replay" in more:
        text = next((tmp_path / "out").glob("*.md")).read_text(encoding="utf-8")
        assert "so its epoch has" in text, "replaying takes steps"
    if "peers" in more:
        assert figures["peers"]["largest_loss_difference"] < 1e-4
        assert len(figures["peers"]["repeats"]) == 2


def test_what_cannot_be_measured_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _type(monkeypatch, tmp_path, "--only=losses")
    assert smollm.main() == 2
    assert "must come before" in capsys.readouterr().out
    _type(monkeypatch, tmp_path, "--data=missing.json")
    assert smollm.main() == 2
    assert "there are no such records" in capsys.readouterr().out


def test_committed_pages_say_what_their_figures_say() -> None:
    for file in RESULTS.glob("*_smollm_*.md"):
        figures = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        assert file.read_text(encoding="utf-8") == page(figures)


def test_commands_of_the_page_have_no_paths_of_this_machine(tmp_path: Path) -> None:
    plan = Plan(tmp_path, tmp_path / "records.json")
    text = commands.shown([sys.executable, "train.py", *commands.train_overrides(MORE["replay"][0], plan)], plan)
    assert text.startswith(
        "python train.py +experiment=own_records model.path=ROOT/SmolLM2-135M-Instruct-dequantized-from-4-bits "
    )
    assert not re.search(rf"{re.escape(str(tmp_path))}|{re.escape(str(REPOSITORY))}", text)
