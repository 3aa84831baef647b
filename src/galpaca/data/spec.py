"""Configuration of the training data."""

from dataclasses import dataclass, field
from typing import get_args

from galpaca.data.policies import Policy
from galpaca.data.records import FIELDS
from galpaca.errors import Problems


@dataclass(frozen=True)
class DataSpec:
    """Where the records are and how they are encoded.

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
        on_truncation: the same for records longer than ``max_length``.
        cache_dir: folder for encoded data; default: ``.cache/encoded`` below ``run.root``.
        license: license of the data, for the model card.
        terms: further terms that the data imposes on a model, for the model card.
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
    on_truncation: str = "keep"
    cache_dir: str | None = None
    license: str | None = None
    terms: str | None = None

    def __post_init__(self) -> None:
        with Problems() as problems:
            if self.path is None and self.hub_id is None:
                problems.add("no data given", where="data", fix="data=local data.path=FILE, or data.hub_id=NAME")
            for name in sorted(self.fields.keys() - set(FIELDS)):
                problems.add("unknown field", where=f"data.fields.{name}", fix=f"one of {', '.join(FIELDS)}")
            problems.check_number("data.max_length", self.max_length, "at least 2", "e.g. data.max_length=512")
            problems.check_at_least_one("data.", {"expected_records": self.expected_records})
            fix = "e.g. data.val_fraction=0.05, or 0 for none"
            problems.check_number("data.val_fraction", self.val_fraction, "in [0, 1)", fix)
            for name in ("on_empty", "on_truncation"):
                problems.check_choice(f"data.{name}", getattr(self, name), get_args(Policy))
