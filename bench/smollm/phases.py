"""The phases of the measurement: what each is made of, and what it finds."""

from __future__ import annotations

import gc
import json
import shutil
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from bench import convert_gguf
from bench.figures import known
from bench.smollm import prose, scoring
from bench.smollm.commands import shown, train, train_overrides
from bench.smollm.fetch import FILE_NAME, PACKAGE, SHA256, fetch
from bench.smollm.models import BEFORE_ALPACA, BEFORE_FOUR_BITS, compare, labelled, make_without_template
from bench.smollm.phase import Found, Phase
from bench.smollm.plan import PROSE, QUESTIONS, Plan, Tuning
from bench.smollm.split import CATEGORIES, TEST_SHARE, in_categories, read_records, split, write_records
from bench.smollm.tiny import VERSION as TINY_VERSION
from bench.smollm.tiny import write_tiny_llama
from galpaca.files.checksums import file_facts
from galpaca.runs.lines import StepLine
from galpaca.runs.metrics import read_metrics

_WARM_UP_STEPS = 1


def digest(file: Path) -> str:
    return file_facts(file).sha256


def model_phases(plan: Plan) -> list[Phase]:
    """The model's folder, as it came and without its template."""

    def fetched(_: dict[str, Found]) -> Found:
        fetch(plan.root / FILE_NAME)
        return {"package": PACKAGE, "file": FILE_NAME, "sha256": SHA256}

    def converted(_: dict[str, Found]) -> Found:
        shutil.rmtree(plan.base, ignore_errors=True)
        facts = convert_gguf.convert(plan.root / FILE_NAME, plan.base)
        make_without_template(plan.base, plan.without_template)
        return {"name": facts.name, "license": facts.license, "parameters": facts.parameters, "kinds": facts.kinds}

    def random(_: dict[str, Found]) -> Found:
        shutil.rmtree(plan.base, ignore_errors=True)
        write_tiny_llama(plan.base)
        make_without_template(plan.base, plan.without_template)
        return {"name": "tiny", "license": "none", "parameters": 0, "kinds": "random weights"}

    folders = (plan.base, plan.without_template)
    if plan.tiny:
        return [Phase("model", (), ["tiny", TINY_VERSION], random, folders)]
    return [
        Phase("fetch", (), SHA256, fetched, (plan.root / FILE_NAME,)),
        Phase("model", ("fetch",), ["float32", convert_gguf.VERSION], converted, folders),
    ]


def records_phase(plan: Plan) -> Phase:
    def made(_: dict[str, Found]) -> Found:
        train_side, test_side = split(read_records(plan.data)[: plan.sizes.records])
        write_records(plan.train_file, train_side)
        write_records(plan.test_file, in_categories(test_side))
        write_records(plan.prompts_file, shown_prompts(plan))
        counts = [one["category"] for one in in_categories(test_side)]
        return {
            "source": plan.data.name,
            "sha256": digest(plan.data),
            "train": len(train_side),
            "test": len(test_side),
            "test_share": TEST_SHARE,
            "categories": {name: {"what": what, "test": counts.count(name)} for name, what in CATEGORIES.items()},
        }

    files = (plan.train_file, plan.test_file, plan.prompts_file)
    inputs = [digest(plan.data), TEST_SHARE, plan.sizes.records, plan.sizes.prompts]
    return Phase("records", (), inputs, made, files)


def shipped_prompts() -> list[dict[str, str]]:
    """galpaca's own prompts, which are in no record."""
    text = (resources.files("galpaca") / "inference" / "prompts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def shown_prompts(plan: Plan) -> list[dict[str, str]]:
    """Those that are answered side by side."""
    prompts = shipped_prompts()
    return prompts[:: len(prompts) // plan.sizes.prompts][: plan.sizes.prompts]


def replayed_prompts(plan: Plan) -> list[dict[str, str]]:
    """Those whose answers may be replayed: none that is shown, since a tuning would have read it."""
    shown = shown_prompts(plan)
    return [one for one in shipped_prompts() if one not in shown][: plan.sizes.replayed]


def replay_phase(plan: Plan) -> Phase:
    """Answers of the model before to prompts of no record: what a tuning may replay, so that less is forgotten."""
    prompts = replayed_prompts(plan)

    def answered(_: dict[str, Found]) -> Found:
        from galpaca.data.records import Record
        from galpaca.inference.answer import answer
        from galpaca.inference.any_model import load_any
        from galpaca.inference.settings import Settings

        questions = [Record.of(one["instruction"], one["input"]) for one in prompts]
        limit = plan.sizes.answer_tokens * 2
        answers = answer(load_any(str(plan.base)), questions, Settings(max_new_tokens=limit), batch_size=8)
        # An answer that was cut off would teach the model to stop there.
        whole = [
            (one, given) for one, given in zip(prompts, answers, strict=True) if given.finish == "end" or plan.tiny
        ]
        fields = ({"instruction": one["instruction"], "input": one["input"], "output": a.text} for one, a in whole)
        write_records(plan.replay_file, list(fields))
        return {"prompts": len(prompts), "whole_answers": len(whole)}

    return Phase("replayed", ("model",), prompts, answered, (plan.replay_file,))


def tuning_phase(tuning: Tuning, plan: Plan) -> Phase:
    run = plan.run_of(tuning)

    def tuned(_: dict[str, Found]) -> Found:
        train(tuning, plan)
        return {
            **tuning._asdict(),
            "command": shown([sys.executable, "train.py", *train_overrides(tuning, plan)], plan),
            **speed(run / "metrics.jsonl"),
        }

    inputs = shown(train_overrides(tuning, plan), plan)
    before = ("model", "records", "replayed") if tuning.replays else ("model", "records")
    return Phase(tuning.name, before, inputs, tuned, (run / "model",))


def speed(metrics: Path) -> Found:
    """Of a run's steps after the first: tokens a second; and the losses of the first and last of them."""
    steps = [line for line in read_metrics(metrics) if isinstance(line, StepLine)]
    timed = steps[_WARM_UP_STEPS:]
    return {
        "steps": len(steps),
        "examples": sum(step.examples for step in steps),
        "tokens": sum(step.tokens for step in steps),
        "target_tokens": sum(step.target_tokens for step in steps),
        "tokens_per_second": sum(step.tokens for step in timed) / sum(known(step.step_seconds) for step in timed),
        "step_seconds": sum(known(step.step_seconds) for step in steps),
        "training_loss": [known(step.loss) for step in steps],
    }


def measuring_phases(plan: Plan, tunings: Sequence[Tuning]) -> list[Phase]:
    """Losses and answers of the model before and after each tuning."""
    models = labelled(plan, tunings)
    after = ("model", "records", *(tuning.name for tuning in tunings))
    sizes = plan.sizes
    # Merged into weights that were rounded to NF4, so what they lost is not of the tuning alone.
    in_four_bits = [tuning.name for tuning in tunings if tuning.method == "qlora"]

    def losses(_: dict[str, Found]) -> Found:
        options = [f"--records={plan.test_file}", f"--prompts={plan.prompts_file}"]
        return compare("losses", models, [*options, f"--max-new-tokens={sizes.answer_tokens}"], plan)

    def questions(_: dict[str, Found]) -> Found:
        asked = plan.root / "records" / QUESTIONS.name
        asked.write_text("\n".join(questions_of(plan)) + "\n", encoding="utf-8")
        options = [f"--prompts={asked}", f"--max-new-tokens={sizes.short_answer_tokens}"]
        return scored(compare("questions", models, options, plan), asked)

    def plain_text(_: dict[str, Found]) -> Found:
        passages = prose.read_passages(PROSE)[: sizes.passages]
        # Asked in whatever template, the model before is the same.
        found = {label: measured_prose(path, passages) for label, path in models if label != BEFORE_ALPACA}
        if in_four_bits:
            found[BEFORE_FOUR_BITS] = measured_prose(plan.base, passages, four_bits=True)
        rows = prose.compared(list(found.values()))
        to_four_bits = {
            name: prose.compared([found[BEFORE_FOUR_BITS], found[name]])[1]["difference"] for name in in_four_bits
        }
        return {
            "passages": len(passages),
            "words": sum(len(one.split()) for one in passages),
            "models": [{"label": label, **row} for label, row in zip(found, rows, strict=True)],
            "to_before_in_4_bits": to_four_bits,
        }

    return [
        Phase("losses", after, [sizes.answer_tokens], losses),
        Phase(
            "questions",
            after,
            [digest(QUESTIONS), sizes.questions, sizes.short_answer_tokens, scoring.VERSION],
            questions,
        ),
        Phase("prose", after, [digest(PROSE), sizes.passages, in_four_bits], plain_text),
    ]


def questions_of(plan: Plan) -> list[str]:
    lines = QUESTIONS.read_text(encoding="utf-8").splitlines()
    count = plan.sizes.questions
    return lines if count is None else lines[:: len(lines) // count][:count]


def measured_prose(model: Path, passages: Sequence[str], *, four_bits: bool = False) -> list[prose.PassageLoss]:
    from galpaca.inference.any_model import load_any
    from galpaca.inference.settings import WeightOptions

    found = prose.passage_losses(load_any(str(model), weights=WeightOptions(four_bits=four_bits)), passages)
    gc.collect()  # before the next one needs the memory
    return found


def scored(content: dict[str, Any], asked: Path) -> Found:
    """Every answer with its verdict, and how many are right."""
    questions = [json.loads(line) for line in asked.read_text(encoding="utf-8").splitlines()]
    rows = []
    for question, given in zip(questions, content["questions"], strict=True):
        texts = [one["answer"] for one in given["answers"]]
        right = [scoring.is_right(text, question["references"]) for text in texts]
        at_once = [scoring.is_right(scoring.first_sentence(text), question["references"]) for text in texts]
        kept = {key: question[key] for key in ("category", "instruction", "references")}
        rows.append({**kept, "answers": texts, "right": right, "right_at_once": at_once})
    categories = [row["category"] for row in rows]

    def shares(verdict: str) -> list[dict[str, Any]]:
        return scoring.shares(categories, [[row[verdict][m] for row in rows] for m in range(len(content["models"]))])

    return {
        "models": [one["label"] for one in content["models"]],
        "max_new_tokens": content["prompts"]["max_new_tokens"],
        "mean_words": [one["mean_words"] for one in content["answer_figures"][0]["models"]],
        "shares": shares("right"),
        "shares_at_once": shares("right_at_once"),
        "questions": rows,
    }
