"""Which records to train on, and how they become examples."""

from dataclasses import dataclass, field
from typing import get_args

from galpaca.data.encoding import Policy
from galpaca.data.records import FIELDS
from galpaca.errors import Problems


@dataclass(frozen=True)
class DataSpec:
    """Where the records are and what becomes of them.

    Attributes:
        path: records file: .json, .jsonl, .csv, .tsv or .parquet.
        hub_id: a Hub data set, if there is no path.
        hub_split: split of the Hub data set.
        hub_revision: branch, tag or commit of the Hub data set; default: the newest.
        fields: the source's column for ``instruction``, ``input`` and ``output``; default: the same names.
        expected_records: required number of records; null accepts any.
        template: name of a shipped prompt template, or path of a YAML file.
        max_length: examples are truncated to this many tokens.
        val_fraction: fraction of the records held out for validation, chosen by a hash of each record.
        on_empty: ``keep``, ``drop`` or ``error`` for records with an empty output.
        on_cut: the same for records longer than ``max_length``.
        cache_dir: where encoded data is kept; by default ``.cache/encoded`` below ``run.root``.
        license: of the data, for the model card.
        terms: further terms that the data puts on a model, for the model card.
    """

    path: str | None = None
    hub_id: str | None = None
    hub_split: str = "train"
    hub_revision: str | None = None
    fields: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(FIELDS))
    expected_records: int | None = None
    template: str = "alpaca"
    max_length: int = 512
    val_fraction: float = 0.0
    on_empty: str = "keep"
    on_cut: str = "keep"
    cache_dir: str | None = None
    license: str | None = None
    terms: str | None = None

    def __post_init__(self) -> None:
        problems = Problems()
        if self.path is None and self.hub_id is None:
            problems.add("no data is named", where="data", fix="data=local data.path=FILE, or data.hub_id=NAME")
        for name in sorted(self.fields.keys() - set(FIELDS)):
            problems.add("unknown field", where=f"data.fields.{name}", fix=f"one of {', '.join(FIELDS)}")
        if self.max_length < 2:
            problems.add(f"{self.max_length} tokens hold no prompt and answer", where="data.max_length", fix="512, say")
        problems.check_at_least_one("data", {"expected_records": self.expected_records})
        if not 0 <= self.val_fraction < 1:
            problems.add(
                f"{self.val_fraction} is no share below 1", where="data.val_fraction", fix="0 for none, 0.05 for 5 %"
            )
        for name in ("on_empty", "on_cut"):
            problems.check_choice(f"data.{name}", getattr(self, name), get_args(Policy))
        problems.raise_any()
