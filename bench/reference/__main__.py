"""``python -m bench.reference``: GALACTICA 125m on Alpaca's records, 200 steps of ``train.py`` beside a plain loop.

The loop (``plain.py``) is padded, takes the loss of ``transformers`` and imports nothing of galpaca. Losses, gradient
norms, learning rates and counts of tokens are compared step by step. Needs a network or the Hub's cache for the model
and the records, or ``--model FOLDER --data FILE``; ``--tiny`` needs neither.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.reference.compare import TOLERANCES, compare, whole_lines
from bench.reference.plain import Job
from bench.results import REPOSITORY, RESULTS
from bench.session import OutOfTimeError, Session
from galpaca.app.rehearsal.child import Child

_MODEL, _RECORDS = "facebook/galactica-125m", "tatsu-lab/alpaca"
_DEMO = REPOSITORY / "src" / "galpaca" / "demo"
_SEED, _LR, _STEP = 42, 2e-5, 128
_LAST_LINES = 25


def main() -> int:
    given = arguments()
    folder = Path(tempfile.mkdtemp(prefix="galpaca-reference-"))
    session = ReferenceSession(given)
    job = make_job(given, folder)
    session.about = asdict(job)
    program = Programs(folder, session)
    session.run("galpaca", lambda: program.galpaca(given, job), session.runs, "galpaca")
    lack = None if "galpaca" in session.runs else "galpaca's own run did not come to its end"
    session.run("plain", lambda: program.plain(job), session.runs, "plain", lack=lack)
    lack = lack if program.plain_steps() else lack or "the plain loop made no step"
    session.run("compared", lambda: program.compared(given.precision, job), session.runs, "compared", lack=lack)
    print("\n".join(session.problems()))
    print(f"written: {session.save()}")
    if session.failures or "compared" not in session.runs:
        print(f"kept: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.reference", description=__doc__)
    parser.add_argument("--model", default=_MODEL, help="folder or Hub id (%(default)s)")
    parser.add_argument("--data", default=_RECORDS, help="JSON file of Alpaca's form, or that Hub id (%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="(%(default)s)")
    parser.add_argument("--devices", type=int, default=1, help="of galpaca; the loop has one (%(default)s)")
    parser.add_argument("--strategy", help="single, or fsdp for several devices")
    parser.add_argument("--precision", choices=TOLERANCES, default="32-true", help="(%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, demo's records, two processes of the CPU")
    parser.add_argument("--minutes", type=float, default=30.0, help="compare what was done by then (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    given = parser.parse_args()
    if given.tiny:
        given.devices, given.strategy, given.steps = 2, given.strategy or "ddp", min(given.steps, 12)
        given.data = str(_DEMO / "records.json")
    given.strategy = given.strategy or ("single" if given.devices == 1 else "fsdp")
    given.accelerator = "gpu" if torch.cuda.is_available() and not given.tiny else "cpu"
    if given.data != _RECORDS and not Path(given.data).is_file():
        parser.error(f"--data: no such file: {given.data}")
    return given


def make_job(given: argparse.Namespace, folder: Path) -> Job:
    """What both train, by the plain loop's words."""
    model = str(_tiny_model(folder / "start")) if given.tiny else given.model
    return Job(
        model=model,
        records=given.data,
        device="cuda:0" if given.accelerator == "gpu" else "cpu",
        autocast="bfloat16" if given.precision == "bf16-mixed" else "",
        num_steps=given.steps,
        max_length=128 if given.tiny else 512,
        examples_per_step=8 if given.tiny else _STEP,
        lr=1e-3 if given.tiny else _LR,
        seed=_SEED,
        per_micro_batch=4 if given.tiny else 16,
    )


def _tiny_model(folder: Path) -> Path:
    """Random weights, float16 on disk as GALACTICA's are, and the demo's tokenizer."""
    from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

    torch.manual_seed(1)
    config = OPTConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(_DEMO / "tokenizer")),
        hidden_size=64,
        word_embed_proj_dim=64,
        ffn_dim=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        activation_function="gelu",
    )
    OPTForCausalLM(config).half().save_pretrained(folder)
    shutil.copytree(_DEMO / "tokenizer", folder, dirs_exist_ok=True)
    return folder


class ReferenceSession(Session):
    """A session that writes down what both trained, and their steps."""

    def __init__(self, given: argparse.Namespace) -> None:
        name = f"reference-{'tiny' if given.tiny else '125m' if given.model == _MODEL else 'own'}-{given.precision}"
        super().__init__(given.minutes, given.out, name, program="reference")
        self.runs: dict[str, Any] = {}
        self.about: dict[str, Any] = {}
        self.ways = {key: getattr(given, key) for key in ("accelerator", "devices", "strategy", "precision")}

    def figures(self) -> dict[str, Any]:
        return {"configuration": {**self.ways, **self.about}, **self.runs, **super().figures()}


class Programs:
    """Both trainings, each in a process of its own, so that neither takes the other's memory.

    Args:
        folder: of their files.
        session: whose time they have.
    """

    def __init__(self, folder: Path, session: Session) -> None:
        self.folder, self.session = folder, session
        self.metrics, self.lines = folder / "runs" / "reference" / "metrics.jsonl", folder / "plain.jsonl"

    def galpaca(self, given: argparse.Namespace, job: Job) -> dict[str, Any]:
        """``train.py``, without dropout."""
        began = time.monotonic()
        code = self._run("galpaca.train", overrides(given, job, self.folder))
        if code is None:
            raise OutOfTimeError(self._printed("galpaca.train"))
        if code:
            raise RuntimeError(f"train.py ended with {code}: {self._printed('galpaca.train')}")
        return {"lines": whole_lines(self.metrics), "seconds": time.monotonic() - began}

    def plain(self, job: Job) -> dict[str, Any]:
        """The loop, until it has ended or time is up."""
        began, description = time.monotonic(), self.folder / "job.json"
        description.write_text(json.dumps(asdict(job)), encoding="utf-8")
        code = self._run("bench.reference.plain", [str(description), str(self.lines)])
        if code not in (0, None):
            raise RuntimeError(f"the loop ended with {code}: {self._printed('bench.reference.plain')}")
        return {"lines": self.plain_steps(), "seconds": time.monotonic() - began, "ended": code == 0}

    def plain_steps(self) -> list[dict[str, Any]]:
        return whole_lines(self.lines)

    def compared(self, precision: str, job: Job) -> dict[str, Any]:
        return compare(whole_lines(self.metrics), self.plain_steps(), precision, job.num_steps)

    def _run(self, module: str, words: Sequence[str]) -> int | None:
        """Its exit code; None if time was up first."""
        paths = [str(REPOSITORY / "src"), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        child = Child([sys.executable, "-m", module, *words], environment, self._log(module), 1)
        try:
            while (code := child.poll()) is None and self.session.seconds_left > 0:
                time.sleep(0.05)
            return code
        finally:
            child.kill()

    def _log(self, module: str) -> Path:
        return self.folder / f"{module}.log"

    def _printed(self, module: str) -> str:
        return "\n".join(self._log(module).read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:])


def overrides(given: argparse.Namespace, job: Job, folder: Path) -> list[str]:
    """``train.py``'s words for the same."""
    data = ["data=alpaca"] if job.records == _RECORDS else ["data=local", f"data.path={job.records}"]
    return [
        *("model=galactica-125m", f"model.path={job.model}", "model.dropout=0.0", *data),
        *(f"data.max_length={job.max_length}", f"batch.examples={job.examples_per_step}", f"seed={job.seed}"),
        *(f"optim.lr={job.lr}", f"trainer={given.accelerator}", f"trainer.devices={given.devices}"),
        *(f"trainer.max_steps={job.num_steps}", "trainer.max_epochs=10000", f"strategy={given.strategy}"),
        *(f"precision={given.precision}", "samples.prompts=null", "logger=local", "checkpoint.keep_last=1"),
        *(f"checkpoint.every_steps={job.num_steps}", f"run.root={folder / 'runs'}", "run.name=reference"),
    ]


if __name__ == "__main__":
    sys.exit(main())
