"""What is shown and recorded of a run's data."""

from dataclasses import asdict
from typing import Any

from rich.console import Console

from galpaca.app.console import show_rows
from galpaca.data.spec import DataSpec
from galpaca.data.split import SplitExamples
from galpaca.runs.record_fields import ExampleCounts, SourceFacts

_NON_COMMERCIAL = "cc-by-nc-4.0"


def show_data(console: Console, split: SplitExamples) -> None:
    """The receipt of each source, and how the examples are split."""
    if not split.sources:
        show_rows(console, "data", [*split.examples.receipt.rows(), *split_rows(example_counts(split))])
        return
    for one in split.sources:
        how = f"{one.epochs:g} per epoch" if one.epochs else "for validation"
        show_rows(console, f"data: {one.name}, {how}", one.receipt.rows())
    rows = [("examples", f"{len(split.examples):,}"), *split_rows(example_counts(split))]
    show_rows(console, "all data", rows)


def example_counts(split: SplitExamples) -> ExampleCounts:
    shared, near = split.leaks()
    return ExampleCounts(
        train=len(split.train),
        validation=len(split.val),
        test=len(split.test),
        shared_prompts=shared,
        near_duplicates=near,
    )


def split_rows(counts: ExampleCounts) -> list[tuple[str, str]]:
    """Label and value of each line about held-out examples; none where there are none."""
    rows = [
        ("held out for validation", counts.validation),
        ("held out for a test", counts.test),
        ("of these, with a prompt that is trained on", counts.shared_prompts),
        ("of these, nearly a record that is trained on", counts.near_duplicates),
    ]
    return [(label, f"{count:,}") for label, count in rows if count]


def source_facts(spec: DataSpec, split: SplitExamples, names: dict[str, str]) -> tuple[SourceFacts, ...]:
    """What ``run.json`` and the card say of each source of a mix.

    Args:
        names: of each source, its public name.
    """
    licenses = {one.name: (one.spec.license, one.spec.terms) for one in spec.sources}
    return tuple(
        SourceFacts(
            name=one.name,
            dataset=names[one.name],
            epochs=one.epochs,
            license=licenses[one.name][0],
            terms=licenses[one.name][1],
            receipt={**asdict(one.receipt), "source": names[one.name]},
        )
        for one in split.sources
        if one.epochs
    )


def joint_license(spec: DataSpec) -> str | None:
    """The license of all sources together: the strictest that is known, None where they differ otherwise."""
    licenses = {one.spec.license for one in spec.sources if one.epochs}
    if _NON_COMMERCIAL in licenses:
        return _NON_COMMERCIAL
    return licenses.pop() if len(licenses) == 1 else None


def joint_terms(spec: DataSpec) -> str | None:
    """All further terms, each once."""
    terms: dict[str, Any] = dict.fromkeys(one.spec.terms for one in spec.sources if one.epochs and one.spec.terms)
    return " ".join(terms) or None
