"""How a model was made, as a paragraph for a paper."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from galpaca.app.train.machines import taken_steps
from galpaca.app.train.recipe_templates import in_words, used_templates
from galpaca.errors import InputError
from galpaca.release.citations import citations
from galpaca.runs.checkpoints import Manifest
from galpaca.runs.lines import SystemLine, parse_line
from galpaca.runs.metrics import whole_lines
from galpaca.runs.record_fields import ExampleCounts, ReleaseFacts, RunContent, Start

# Lines of the machine that are further apart belong to two starts.
_SAME_START_SECONDS = 60.0


def methods(content: RunContent, manifest: Manifest, metrics: Path, system: Path, tuning: str) -> str:
    """Recipe, seed, hardware, hours, and energy where it was read, of one checkpoint.

    Args:
        metrics, system: the run's ``metrics.jsonl`` and ``system.jsonl``.
        tuning: which parameters were trained, in words.

    Raises:
        InputError: the manifest's recipe lacks a setting.
    """
    try:
        return _paragraph(content, manifest, metrics, system, tuning)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"the recipe of step {manifest.step} is damaged: {error}"
        raise InputError(what, where=metrics.parent, fix="restore its manifest.json, or name another step") from None


def _paragraph(content: RunContent, manifest: Manifest, metrics: Path, system: Path, tuning: str) -> str:
    release, settings = content.release or ReleaseFacts(), manifest.recipe.settings
    examples, plan = content.examples or ExampleCounts(), content.plan
    held_out = (examples.validation or 0) + (examples.test or 0)
    epochs = f" ({manifest.step / plan.steps_per_epoch:.2f} epochs)" if plan else ""
    versions = ", ".join(
        f"{name} {content.last_start.versions[name]}"
        for name in ("galpaca", "torch", "transformers")
        if name in content.last_start.versions
    )
    sentences = [
        f"{release.base_model or 'A model of random weights'} ({content.parameters or manifest.num_parameters:,} "
        f"parameters) was tuned on {examples.train:,} records of {release.dataset or 'its data'}"
        + (f", {held_out:,} more being held out" if held_out else "")
        + f" ({tuning}).",
        f"{manifest.step:,} steps{epochs} of {settings['batch.examples']} examples of at most "
        f"{settings['data.max_length']} tokens were taken, with the loss on the tokens of answers alone, averaged "
        f"over a step, and {in_words(settings)}.",
        f"The learning rate was {settings['optim.lr']:g} ({settings['optim.schedule']}, "
        f"{settings['optim.warmup_ratio']:.0%} warm-up), gradients were clipped to norm "
        f"{settings['optim.clip_norm']}, dropout was {settings['model.dropout']}, the precision "
        f"{settings['precision.name']} and the seed {settings['seed']}.",
        _hardware(content.starts, manifest.step, metrics, system),
        f"Software: {versions}." if versions else "",
    ]
    return " ".join(filter(None, sentences))


def owed_citations(content: RunContent, manifest: Manifest, tuning: str, *, splits_sequences: bool) -> str:
    """BibTeX of the works that a model of the run owes."""
    release = content.release or ReleaseFacts()
    settings = manifest.recipe.settings
    templates = [one.name for one in used_templates(settings)] if "data.template" in settings else []
    return citations(release.base_model or "", release.dataset, templates, tuning, splits_sequences=splits_sequences)


def _hardware(starts: Sequence[Start], step: int, metrics: Path, system: Path) -> str:
    taken = taken_steps(starts, metrics, step)
    hours = [one.seconds * one.machine.processes / 3600 for one in taken if one.machine and one.seconds is not None]
    is_gpu = all(one.machine and "nvidia" in one.machine.device.lower() for one in taken)
    unit = "GPU" if is_gpu else "process"
    all_hours = f"; {sum(hours):.2g} {unit}-hours in steps" if taken and len(hours) == len(taken) else ""
    energy = energy_kwh(system)
    read = f"; {energy:.2g} kWh were read from all GPUs of the first node, whatever they did" if energy else ""
    return f"The machine: {'; '.join(f'{one.what} on {one.how}' for one in taken)}{all_hours}{read}." if taken else ""


def energy_kwh(system: Path) -> float:
    """Energy of the GPUs whose power was recorded, by the trapezoidal rule; 0 where none was."""
    lines = [line for text in whole_lines(system) if (line := parse_line(SystemLine, text)) is not None]
    powers = [
        (line.time, sum(value for name, value in line.extra.items() if name.endswith("_power_watts"))) for line in lines
    ]
    known = [(time, watts) for time, watts in powers if watts]
    joules = sum(
        (after - before) * (first + second) / 2
        for (before, first), (after, second) in pairwise(known)
        if 0 < after - before < _SAME_START_SECONDS
    )
    return joules / 3.6e6
