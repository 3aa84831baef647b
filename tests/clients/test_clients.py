"""A released folder answers alike in every client that reads it, one prompt at a time and in batches."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO, MadeOnce, Started, command, completed
from families import Tiny
from parity.flat_run import save_model

from galpaca.data.records import Record
from galpaca.inference.loading import load
from galpaca.model.families.llama import Llama

HERE = Path(__file__).parent
QUESTIONS = (
    "What is the chemical symbol of gold?",
    "Name a noble gas.",
    "What is the SI unit of force, and how is it written in base units of that system?",
    "Which star is closest to the Earth?",
    "What is [START_SMILES]CC(=O)O[END_SMILES] used for, and [START_AMINO]MKV[END_AMINO]?",
    "Continue this molecule: [START_SMILES]CC(=O)N",
)
# Of the environment, and those that ``make clients`` has installed beside it.
OTHERS = {"transformers 5": None, "transformers 4.57": Path(sys.prefix) / "clients" / "transformers-4.57.1"}


# A Llama whose positions turn by other frequencies than a reader's defaults: an answer shows who knows of them.
_STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LLAMA = Tiny("llama-client", Llama(), {"rope_parameters": _STRETCHED})
KINDS = {"opt": None, "llama": LLAMA}


@pytest.fixture(scope="session")
def run_of(run: Path, made_once: MadeOnce, server: str, tokenizer_folder: Path) -> Callable[[str], Path]:
    """The folder of a finished run of a kind of model."""

    def made(kind: str) -> Path:
        tiny = KINDS[kind]
        return run if tiny is None else made_once(f"client-{kind}", partial(train_from, tiny)) / "runs" / "test"

    def train_from(tiny: Tiny, folder: Path) -> None:
        model = save_model(folder / "base", tokenizer_folder, tiny)
        how = (f"model.path={model}", "data.max_length=128", "trainer.max_steps=40", "trainer.max_epochs=20")
        line = command(folder, tokenizer_folder, DEMO / "records.json", *how, "optim.lr=1e-2")
        done = completed(Started(server, line, folder))
        assert done.returncode == 0, done.stderr

    return made


def greedy(run: Path, folder: Path) -> list[str]:
    """Answers of ``galpaca generate``."""
    prompts, out = folder / "prompts.jsonl", folder / "answers.jsonl"
    prompts.write_text("".join(json.dumps({"instruction": one, "input": ""}) + "\n" for one in QUESTIONS), "utf-8")
    line = [sys.executable, "-m", "galpaca", "generate", str(run / "model"), "--file", str(prompts), "--out", str(out)]
    subprocess.run([*line, "--max-new-tokens", "12"], check=True, capture_output=True)
    return [json.loads(text)["answer"] for text in out.read_text(encoding="utf-8").splitlines()]


def answers_of(client: Path | None, folder: Path) -> dict[str, Any]:
    environment = {**os.environ}
    if client is not None:
        environment["PYTHONPATH"] = str(client)
    line = [sys.executable, str(HERE / "answers.py"), str(folder), json.dumps(QUESTIONS)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_asking_gives_the_same_answers(
    run_of: Callable[[str], Path], tmp_path: Path, kind: str, name: str
) -> None:
    """transformers 4 gave OPT token types, which it refuses, and padded where answers begin: they were fragments. The
    positions of a Llama it turned by frequencies of its own, since it reads other keys than version 5 writes.
    """
    run = run_of(kind)
    expected = greedy(run, tmp_path)
    client = OTHERS[name]
    if client is not None and not client.is_dir():
        pytest.skip(f"{client} is not there: make clients")
    found = answers_of(client, run / "model")
    # Sequences too reach the model as they do in galpaca, a token for each character.
    own = load(str(run / "model"))
    assert found["ids"] == own.prompt_ids([Record.of(question) for question in QUESTIONS])
    assert found["version"].startswith(name.split()[1])
    for way in ("single", "batched", "pipeline", "chat pipeline"):
        assert [one.strip() for one in found[way]] == [one.strip() for one in expected], way
    assert found["longest"] == found["positions"], "a text may be no longer than the model's positions"
