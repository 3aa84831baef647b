"""Counts what happened to the records: everything dropped, truncated or changed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

# Former names of counts, with today's.
_RENAMED = {"cut_answers": "truncated_examples"}

# Labels of what is shown only where there is any, with what can be done about it.
_RARE: Mapping[str, tuple[str, str]] = {
    "lost_turns": ("turns lost to truncation", "a larger data.max_length keeps them"),
    "missing_inputs": ("inputs that are null or absent", "taken for empty; data.on_missing_input=error refuses them"),
    "placeholder_inputs": ("inputs such as nan, none or noinput", "the model reads these words; empty them"),
    "empty_instructions": ("empty instructions", "data.on_empty_instruction=drop or error"),
    "special_tokens": ("records with a special token, such as </s>, in a text", "data.on_special_tokens=drop or error"),
    "double_ends": ("answers that end in their end token, which is added anyway", "remove it from the file"),
    "control_characters": (
        "records with control characters",
        "LaTeX needs \\\\frac in JSON; data.on_control_characters=drop or error",
    ),
    "broken_latex": ("records in which LaTeX may have lost its backslashes", "JSON needs two: \\\\theta"),
    "repeated_keys": ("records with a key twice, of which the last counts", "remove one from the file"),
    "with_split_marker": ("records with a literal split marker", "the tokenizer drops it"),
    "open_sequences": ("records with an open sequence", "it is split to the end of its field"),
    "merged_prompts": ("answers that share a token with their prompt", "their prompts differ from generation's there"),
    "bare_sequences": (
        "records with molecules or residues outside of tags",
        "data.tags.COLUMN=SMILES (or AMINO, DNA) for a column, or [START_SMILES]...[END_SMILES] in the text",
    ),
}
_CHANGED: Mapping[str, tuple[str, str]] = {
    "lost_scripts": ("lost sub- and superscripts (10⁻³ becomes 10−3)", "data.sub_superscripts=galactica keeps them"),
    "other_meaning": ("another meaning (½, ①, ℝ)", "write them out, as 1/2 or \\mathbb{R}"),
    "harmless_changes": ("another form only", ""),
}


@dataclass
class Receipt:
    """Counts over the records of one encoding; saved with the run.

    Attributes:
        records: read from the source.
        examples: kept for training and validation.
        dropped: reason to number of records.
        truncated_examples: examples longer than ``max_length``.
        lost_target_tokens: target tokens lost to that truncation.
        lost_turns: turns of conversations that were left out because they are over ``max_length``.
        without_target: examples that keep no target token: the prompt fills the context.
        conversations: records of more than one turn.
        empty_outputs: records whose output is empty (their only target is the end token).
        empty_instructions: records whose instruction is empty.
        missing_inputs: records whose input is null or absent, and taken for empty.
        placeholder_inputs: records whose input is a word for none, such as ``nan``.
        special_tokens: records with a special token of the tokenizer in a text: of GALACTICA's, ``<s>``, ``</s>``,
            ``<pad>`` or ``<unk>``.
        double_ends: records with an answer that ends in its end token, such as ``</s>``.
        control_characters: records with control characters.
        broken_latex: records with what JSON makes of LaTeX whose backslashes are single, such as a tab and ``heta``.
        repeated_keys: records with a key twice.
        duplicates: records with the same content as an earlier one.
        tokens, target_tokens: over the examples.
        longest_tokens: length of the longest example.
        changed_by_normalization: records with characters that the tokenizer rewrites (``x²`` to ``x2``).
        lost_scripts, other_meaning, harmless_changes: of these, records that lose a sub- or superscript, in which a
            character gets another meaning, or only another form.
        with_split_marker: records whose text contains the split marker, which is lost.
        open_sequences: records in which a sequence ends with its field instead of an end tag.
        bare_sequences: records with what looks like a molecule or residues, outside of tags.
        merged_prompts: examples whose prompt alone has other ids, since the answer's first characters share a token
            with it.
        ignored_columns: unused columns of the source, with the number of records that have them.
        hints: configuration keys that the names of columns suggest.
        first: by the name of a count, where its first record is.
    """

    source: str
    max_length: int
    records: int = 0
    examples: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    truncated_examples: int = 0
    lost_target_tokens: int = 0
    lost_turns: int = 0
    without_target: int = 0
    conversations: int = 0
    empty_outputs: int = 0
    empty_instructions: int = 0
    missing_inputs: int = 0
    placeholder_inputs: int = 0
    special_tokens: int = 0
    double_ends: int = 0
    control_characters: int = 0
    broken_latex: int = 0
    repeated_keys: int = 0
    duplicates: int = 0
    tokens: int = 0
    target_tokens: int = 0
    longest_tokens: int = 0
    changed_by_normalization: int = 0
    lost_scripts: int = 0
    other_meaning: int = 0
    harmless_changes: int = 0
    with_split_marker: int = 0
    open_sequences: int = 0
    bare_sequences: int = 0
    merged_prompts: int = 0
    ignored_columns: dict[str, int] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)
    first: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Receipt":
        """A receipt as any version has written it; counts that are no longer made are left out.

        Raises:
            TypeError: it has no source or no length.
        """
        known = {field.name for field in fields(cls)}
        named = {_RENAMED.get(name, name): value for name, value in content.items()}
        return cls(**{name: value for name, value in named.items() if name in known})

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line to show; uninformative zeros are left out."""
        mean = self.tokens / self.examples if self.examples else 0.0
        shown = [
            ("source", self.source),
            ("records", f"{self.records:,}"),
            ("examples", f"{self.examples:,}"),
            *([("conversations of several turns", f"{self.conversations:,}")] if self.conversations else []),
            *((f"dropped: {reason}", f"{count:,}") for reason, count in sorted(self.dropped.items())),
            ("tokens", f"{self.tokens:,} (mean {mean:.0f}, longest {self.longest_tokens:,})"),
            ("target tokens", f"{self.target_tokens:,}"),
            ("truncated examples", f"{self.truncated_examples:,} (over {self.max_length:,} tokens)"),
            ("target tokens lost to truncation", f"{self.lost_target_tokens:,}"),
            ("examples without a target", self._counted("without_target")),
            ("empty outputs", self._counted("empty_outputs")),
            ("duplicates", f"{self.duplicates:,}"),
            ("changed by normalization", f"{self.changed_by_normalization:,}"),
        ]
        for names, indent in ((_CHANGED, "  "), (_RARE, "")):
            present = {name: words for name, words in names.items() if getattr(self, name)}
            shown += [(indent + label, self._counted(name, advice)) for name, (label, advice) in present.items()]
        shown += [(f"ignored column {name!r}", f"{count:,}") for name, count in self.ignored_columns.items()]
        return [*shown, *(("perhaps meant as the input", f"{hint} reads it") for hint in self.hints)]

    def _counted(self, name: str, advice: str = "") -> str:
        """A count, with its first record and what can be done."""
        first = f"first: {self.first[name]}" if name in self.first else ""
        notes = "; ".join(filter(None, [first, advice]))
        return f"{getattr(self, name):,}" + (f" ({notes})" if notes and getattr(self, name) else "")


def summed(receipts: Sequence[Receipt]) -> Receipt:
    """The counts of several sources together. Places and columns are in each source's own receipt."""
    whole = Receipt(source=" + ".join(one.source for one in receipts), max_length=receipts[0].max_length)
    for one in fields(Receipt):
        values = [getattr(receipt, one.name) for receipt in receipts]
        if one.name == "longest_tokens":
            whole.longest_tokens = max(values)
        elif one.name == "dropped":
            whole.dropped = dict(sum((Counter(value) for value in values), Counter()))
        elif isinstance(values[0], int) and one.name != "max_length":
            setattr(whole, one.name, sum(values))
    return whole
