"""The tuned folder in other programs: versions of ``transformers`` that know nothing of galpaca."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.results import REPOSITORY
from bench.smollm.commands import environment, galpaca
from bench.smollm.phase import Found, Phase
from bench.smollm.plan import FULL, Plan
from galpaca.errors import GalpacaError

_SCRIPT = REPOSITORY / "tests" / "clients" / "answers.py"
# Of the environment, and what ``make clients`` installs beside it.
CLIENTS = {"transformers 5": None, "transformers 4.57": Path(sys.prefix) / "clients" / "transformers-4.57.1"}
_WAYS = ("single", "batched", "pipeline", "chat pipeline")
# Enough for many answers to end by themselves, which clients must do at the same token.
_ANSWER_TOKENS = 64


def clients_phase(plan: Plan) -> Phase:
    """Answers to a few prompts in four ways of each client, beside those of ``galpaca generate``."""

    def compared(_: dict[str, Found]) -> Found:
        prompts = json.loads(plan.prompts_file.read_text(encoding="utf-8"))
        questions = [one["instruction"] for one in prompts if not one["input"]]
        given = _generated(plan, questions)
        expected, ended = [one["answer"].strip() for one in given], sum(one["finish"] == "end" for one in given)
        rows = []
        for name, folder in CLIENTS.items():
            if folder is not None and not folder.is_dir():
                raise GalpacaError(f"{name} is not installed", where=str(folder), fix="make clients")
            found = _answers(plan, questions, folder)
            equal = {way: sum(a.strip() == b for a, b in zip(found[way], expected, strict=True)) for way in _WAYS}
            rows.append({"client": f"transformers {found['version']}", "equal": equal})
        return {"questions": len(questions), "answer_tokens": _ANSWER_TOKENS, "ended": ended, "clients": rows}

    return Phase("clients", ("records", FULL.name), _ANSWER_TOKENS, compared)


def _generated(plan: Plan, questions: list[str]) -> list[dict[str, Any]]:
    asked, out = plan.root / "clients.jsonl", plan.root / "clients-answers.jsonl"
    asked.write_text("".join(json.dumps({"instruction": one, "input": ""}) + "\n" for one in questions), "utf-8")
    out.unlink(missing_ok=True)
    model = str(plan.run_of(FULL) / "model")
    galpaca(["generate", model, f"--file={asked}", f"--out={out}", f"--max-new-tokens={_ANSWER_TOKENS}"])
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def _answers(plan: Plan, questions: list[str], client: Path | None) -> dict[str, Any]:
    line = [sys.executable, str(_SCRIPT), str(plan.run_of(FULL) / "model"), json.dumps(questions), str(_ANSWER_TOKENS)]
    variables = environment() if client is None else {**environment(), "PYTHONPATH": str(client)}
    done = subprocess.run(line, capture_output=True, text=True, env=variables)
    if done.returncode:
        raise GalpacaError(f"{_SCRIPT.name} failed: {done.stderr.strip().splitlines()[-1]}", fix="try it alone")
    return dict(json.loads(done.stdout.splitlines()[-1]))
