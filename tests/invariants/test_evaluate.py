"""``galpaca evaluate`` gives training's own figures, and lm-eval's are those of the model's log-likelihoods."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import Train, read_jsonl

from galpaca.cli import main
from galpaca.data.hashes import content_hash
from galpaca.data.records import Record
from galpaca.data.sequences import SPLIT_MARKER
from galpaca.data.split import VALIDATION, sides_of
from galpaca.inference.answer import answer
from galpaca.inference.any_model import load_any
from galpaca.inference.settings import Settings


def test_the_loss_on_held_out_records_is_the_runs_own(
    train: Train, tmp_path: Path, demo_records: list[dict[str, str]]
) -> None:
    records = demo_records[::6][:80]
    path = tmp_path / "records.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    done = train(f"data.path={path}", "data.val_fraction=0.4", "trainer.max_steps=6", "release.dtype=float32")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "test"
    [validation] = [line for line in read_jsonl(run / "metrics.jsonl") if "val_loss" in line][-1:]
    hashes = np.array([content_hash(Record.of(**record)) for record in records], np.uint64)
    is_held = sides_of(hashes, 0.4) == VALIDATION
    held_out = [record for record, held in zip(records, is_held, strict=True) if held]
    (tmp_path / "held.json").write_text(json.dumps(held_out), encoding="utf-8")
    assert main(["evaluate", str(run), "--records", str(tmp_path / "held.json"), "--max-length", "256"]) == 0
    [result] = (run / "model" / "evaluation").glob("records-held-*.json")
    content = json.loads(result.read_text())
    assert content["records"]["count"] == len(held_out)
    assert content["rows"][0]["loss"]["value"] == pytest.approx(validation["val_loss"], abs=1e-4)
    assert str(tmp_path) not in result.read_text()


@pytest.fixture
def model(run: Path, tmp_path: Path) -> Path:
    """A model of its own, since its card is written to."""
    shutil.copytree(run / "model", tmp_path / "model")
    return tmp_path / "model"


DOCS: list[dict[str, Any]] = [
    {"question": "What is the symbol of gold?", "choices": ["Au", "Ag", "Fe"], "answer": 0},
    {"question": "Which planet is the largest?", "choices": ["Mars", "Jupiter", "Venus"], "answer": 1},
    {
        "question": "Of what is [START_SMILES]The water is iron[END_SMILES]?",
        "choices": ["gluten", "silk", "haemoglobin"],
        "answer": 2,
    },
    {"question": "What do plants take up?", "choices": ["carbon dioxide", "helium", "gold"], "answer": 0},
]
CHOICE = {
    "task": "local_science",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc"}],
}
WRITES = {
    "task": "local_answers",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[answer]}}",
    "generation_kwargs": {"max_gen_toks": 12, "do_sample": False, "until": []},
    "metric_list": [{"metric": "exact_match"}],
}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Two task files over one local file of documents."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    for task in (CHOICE, WRITES):
        with_data = {**task, "dataset_kwargs": {"data_files": {"test": str(folder / "docs.jsonl")}}}
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(with_data))
    return folder


def log_likelihood(loaded: Any, context: str, continuation: str) -> float:
    """Of the continuation's tokens after those of the context, token after token."""
    reader = loaded.tokenizer
    [ids, before] = reader.encode([context + continuation, context])
    with torch.inference_mode():
        scores = loaded.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return sum(float(scores[place - 1, ids[place]]) for place in range(len(before), len(ids)))


@pytest.mark.slow
@pytest.mark.parametrize("instruct", [False, True])
def test_multiple_choice_is_that_of_the_models_log_likelihoods(model: Path, tasks: Path, instruct: bool) -> None:
    from galpaca.inference.harness import Tasks, task_rows

    loaded = load_any(str(model))
    to_be_had = Tasks(["local_science"], tasks)
    [found] = to_be_had.find()
    assert not found.generates
    results = to_be_had.run(loaded, ["local_science"], instruct=instruct, batch_size=3)
    right, mark = 0, loaded.tokenizer.mark
    for sample in results["samples"]["local_science"]:
        doc = sample["doc"]
        said = f"Question: {doc['question']}\nAnswer:"
        context, space = (loaded.template.prompts(Record.of(mark(said)))[0], "") if instruct else (mark(said), " ")
        scores = [log_likelihood(loaded, context, mark(space + choice)) for choice in doc["choices"]]
        assert [float(score) for [(score, _)] in sample["resps"]] == pytest.approx(scores, abs=1e-4)
        right += int(np.argmax(scores)) == doc["answer"]
    [row] = task_rows(results)
    assert row["value"] == pytest.approx(right / len(DOCS), abs=1e-6)
    assert (row["metric"], row["examples"]) == ("acc", len(DOCS))


M = SPLIT_MARKER
# Contexts and continuations that share a sequence, and as what the tokenizer is to read them, without the template.
SHARED = [
    (
        "Complete: [START_AMINO]MKV",
        "LA[END_AMINO]",
        f"Complete: [START_AMINO]{M}M{M}K{M}V{M}",
        f"{M}L{M}A{M}[END_AMINO]",
    ),
    (
        "Complete: [START_AMINO]MKV",
        "VVV[END_AMINO]",
        f"Complete: [START_AMINO]{M}M{M}K{M}V{M}",
        f"{M}V{M}V{M}V{M}[END_AMINO]",
    ),
    ("Is [START_DNA]AC[END_DNA]", "DNA", f"Is [START_DNA]{M}A{M}C{M}[END_DNA]", "DNA"),
    ("Write one.", "[START_SMILES]CO[END_SMILES]", "Write one.", f"[START_SMILES]{M}C{M}O{M}[END_SMILES]"),
]


@pytest.mark.slow
@pytest.mark.parametrize("instruct", [False, True])
def test_a_continuation_that_shares_a_sequence_with_its_context_is_scored_alone(model: Path, instruct: bool) -> None:
    """The context alone was read in word pieces, and in letters with its continuation: some of it was scored, too."""
    from lm_eval.api.instance import Instance

    from galpaca.inference.harness import harness_model

    loaded = load_any(str(model))
    harness = harness_model(loaded, batch_size=2)
    requests, expected = [], []
    for said, continuation, marked, marked_continuation in SHARED:
        context, head = said, marked
        if instruct:
            context = harness.apply_chat_template([{"role": "user", "content": said}])
            head = loaded.template.prompts(Record.of(marked))[0]
        requests.append(Instance("loglikelihood", {}, (context, continuation), 0))
        expected.append(log_likelihood(loaded, head, marked_continuation))
    assert [score for score, _ in harness.loglikelihood(requests)] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_a_document_begins_after_the_document_boundary(model: Path) -> None:
    """It began after ``<s>``, which GALACTICA has never seen."""
    from lm_eval.api.instance import Instance

    from galpaca.inference.harness import harness_model

    loaded = load_any(str(model))
    reader: Any = loaded.tokenizer
    assert reader.boundary_id == reader.hf.convert_tokens_to_ids("</s>") == 2
    harness = harness_model(loaded, batch_size=1)
    expected = log_likelihood(loaded, "</s>", "Water boils.")
    [(score, _)] = harness.loglikelihood([Instance("loglikelihood", {}, ("", "Water boils."), 0)])
    [rolling] = harness.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("Water boils.",), 0)])
    assert [score, rolling] == pytest.approx([expected] * 2, abs=1e-4)


@pytest.mark.slow
def test_written_answers_are_requested_in_the_template_and_end_where_the_model_ends(model: Path, tasks: Path) -> None:
    from galpaca.inference.harness import Tasks

    loaded = load_any(str(model))
    to_be_had = Tasks(["local_answers"], tasks)
    assert to_be_had.find()[0].generates
    results = to_be_had.run(loaded, ["local_answers"], instruct=True, batch_size=2)
    ours = answer(loaded, [Record.of(doc["question"]) for doc in DOCS], Settings(max_new_tokens=12))
    theirs = [sample["resps"][0][0] for sample in results["samples"]["local_answers"]]
    assert theirs == [one.text for one in ours]


@pytest.mark.slow
def test_results_are_kept_with_the_model_and_reported_in_its_card_once(model: Path, tasks: Path) -> None:
    before = (model / "README.md").read_text()
    line = ["evaluate", str(model), "--tasks", "local_science,local_answers", "--include-path", str(tasks)]
    assert main([*line, "--limit", "2"]) == 0
    once = (model / "README.md").read_text()
    kept = sorted(path.name for path in (model / "evaluation").iterdir())
    assert kept == ["task-local_answers-template-first2.json", "task-local_science-plain-first2.json"]
    assert main([*line, "--limit", "2"]) == 0
    assert (model / "README.md").read_text() == once
    assert once.count("| local_science | acc |") == 1
    assert "first 2 only" in once
    cut = re.sub(r"<!-- galpaca evaluate: begin -->.*<!-- galpaca evaluate: end -->\n\n", "", once, flags=re.DOTALL)
    assert cut.split("\n---\n", 1)[1] == before.split("\n---\n", 1)[1]
    assert all(str(tasks) not in path.read_text() for path in (model / "evaluation").iterdir())
