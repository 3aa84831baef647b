"""The page: everything that was found, in Markdown, made of nothing but the figures of the JSON file beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.smollm.answers import answers_section, questions_section
from bench.smollm.cells import difference, interval, table, wrapped
from bench.smollm.holds_section import clients_section, kills_section
from bench.smollm.peers_section import peers_section
from galpaca.formatting import format_duration

Figures = Mapping[str, Any]

_MORE = {"peers": peers_section, "kills": kills_section, "clients": clients_section}
_BEFORE = {
    "before": "before, asked in its own chat template",
    "before-in-alpaca": "before, asked in Alpaca's template",
    "before-in-4-bits": "before in 4 bits (NF4)",
}


def page(figures: Figures) -> str:
    """The whole page."""
    sections = [
        _head(figures),
        _losses(figures),
        questions_section(figures["questions"]),
        _prose(figures),
        _speed(figures),
        *(section(figures[name]) for name, section in _MORE.items() if figures.get(name)),
        answers_section(figures["losses"]),
        _how(figures),
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _head(figures: Figures) -> list[str]:
    model, records, full = figures["model"], figures["records"], figures["tunings"][0]
    return [
        f"# {figures['title']}, {figures['date'][:10]}",
        "",
        *wrapped(
            f"The model ({model['parameters']:,} parameters; license {model['license']}) is an *Instruct* model: it "
            f"follows instructions before it is tuned. It was **dequantized from 4 bits** ({model['kinds']}), so it is "
            "not the model that its authors published, and answers worse than that. What tuning gains here is on "
            "records of Alpaca's kind; it is not a first ability to follow instructions."
        ),
        "",
        *wrapped(
            f"One epoch over {records['train']} of {records['train'] + records['test']} real Alpaca records, "
            f"{full['steps']} steps; {records['test']} records, chosen by a hash of their prompts, are the test. The "
            "learning rate of full tuning was chosen on records outside of the test. That of adapters was not: it is "
            "ten times the one of full tuning, as in conf/recipe/alpaca_lora.yaml. "
            f"{figures['cores']} CPU cores ({figures['processor']}), torch {figures['packages']['torch']}, "
            f"transformers {figures['packages']['transformers']}. Intervals are of 95 %, by bootstrap over records, "
            "questions or passages, of shares Wilson's. Each is for its figure alone, uncorrected for how many there "
            "are, and none covers other seeds."
        ),
    ]


def _label(label: str) -> str:
    return _BEFORE.get(label, label)


def _losses(figures: Figures) -> list[str]:
    losses, kinds = figures["losses"], figures["records"]["categories"]
    labels = [one["label"] for one in losses["models"]]
    found = losses["records"]
    lines = [
        "## Loss on the test records",
        "",
        *wrapped(
            f"Nats per target token on {found['count']} records that no tuning has read{_checked(found)}; below each, "
            "the paired difference to the model before, asked in its own template."
        ),
        "",
    ]
    rows = []
    for row in found["loss"]:
        cells = [interval(of_model["nats_per_token"]) for of_model in row["models"]]
        deltas = [difference(of_model["nats_per_token"]["difference"]) for of_model in row["models"][1:]]
        rows.append([f"**{row['category']}**", row["records"], *cells])
        rows.append(["difference", "", "", *deltas])
    lines += table(["category", "records", *map(_label, labels)], rows)
    if len(kinds) > 1:
        lines += ["", *(f"- {name}: {kind['what']}." for name, kind in kinds.items())]
    return lines


def _checked(records: Mapping[str, Any]) -> str:
    """What ``galpaca compare`` found of these records in those that each model was trained on."""
    known = {label: count for label, count in records.get("trained_on", {}).items() if count is not None}
    told = ", ".join(f"{label}: {count}" for label, count in known.items())
    return f" (looked up in what was trained on, {told})" if told else ""


def _prose(figures: Figures) -> list[str]:
    found = figures["prose"]
    rows = [
        [
            _label(one["label"]).partition(",")[0],
            interval(one["nats_per_token"]),
            difference(one["difference"]) if "difference" in one else "",
        ]
        for one in found["models"]
    ]
    return [
        "## Loss on plain science prose: what is forgotten",
        "",
        *wrapped(
            f"Nats per token on {found['passages']} passages ({found['words']:,} words) of bench/smollm/prose.md, as "
            "plain text without a template. A higher loss than before is what tuning on instructions costs."
            + _four_bits(found)
            + _replay(figures)
        ),
        "",
        *table(["model", "nats per token", "difference"], rows),
    ]


def _four_bits(found: Mapping[str, Any]) -> str:
    return "".join(
        f" {name} is merged into weights that were rounded to NF4: beside the model before in those 4 bits its "
        f"difference is {difference(to_it)}."
        for name, to_it in found["to_before_in_4_bits"].items()
    )


def _replay(figures: Figures) -> str:
    tunings = {one["name"]: one for one in figures["tunings"]}
    if "full-replay" not in tunings:
        return ""
    replay, full = tunings["full-replay"], tunings["full"]
    return (
        f" full-replay had {figures['replayed']['whole_answers']} of the model's own answers from before among its "
        "records, to those of galpaca's built-in prompts that are not shown below. They are beside the others, so its "
        f"epoch has {replay['steps']} steps and {replay['examples']:,} examples where full has {full['steps']} and "
        f"{full['examples']:,}."
    )


def _speed(figures: Figures) -> list[str]:
    rows = [
        [
            one["name"],
            one["method"],
            f"{one['lr']:g}",
            one["seed"],
            one["steps"],
            f"{one['tokens']:,}",
            f"{one['tokens_per_second']:.0f}",
            format_duration(one["step_seconds"]),
            f"{one['training_loss'][0]:.3f} to {one['training_loss'][-1]:.3f}",
        ]
        for one in figures["tunings"]
    ]
    headings = ["run", "tuning", "lr", "seed", "steps", "tokens", "tokens/s", "of all steps", "training loss"]
    return [
        "## Tunings",
        "",
        *wrapped(
            f"Float32, {figures['threads']} threads, {figures['examples_per_step']} examples per step, packed; tokens "
            "of prompts count. Speeds leave out the first step."
        ),
        "",
        *table(headings, rows),
    ]


def _how(figures: Figures) -> list[str]:
    return [
        "## How it was measured",
        "",
        f"`{figures['command']}`, commit {figures['commit']}. ROOT is the folder of `--root`.",
        "",
        *table(["phase", "time"], [[name, format_duration(seconds)] for name, seconds in figures["seconds"].items()]),
        "",
        *_commands(figures["tunings"]),
    ]


def _commands(tunings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in tunings:
        yield f"    {one['command']}"
