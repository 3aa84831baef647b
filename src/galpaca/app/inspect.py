"""``galpaca inspect``: shows records as the model will see them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from galpaca.app.console import counting, make_console, show_rows
from galpaca.app.options.names import ReadingOptions, option_words, with_option_names
from galpaca.data.encoded_set import encode
from galpaca.data.examples import EncodedExamples
from galpaca.data.policies import EncodingPolicy
from galpaca.data.prompts import find_template
from galpaca.data.reading import load_records
from galpaca.data.records import RecordSet
from galpaca.data.scripts import Scripts
from galpaca.data.sources.files import open_files
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.errors import InputError, Problems

_AT_FIX = "--at 89,120-125"


@dataclass(frozen=True)
class InspectOptions:
    """Options of ``galpaca inspect``.

    Attributes:
        file: file, pattern or folder of records.
        tokenizer: folder or Hub id of the tokenizer.
        template: name or file of the prompt template.
        template_date: what a tokenizer's chat template takes for today.
        max_length: tokens that examples are truncated to.
        num_shown: number of records to show in colour.
        at: numbers of the records to show instead, such as ``89,120-125``.
        reading: how the records are read.
        scripts: how sub- and superscripts are written.
        as_json: print ``{"index", "ids", "targets"}`` for every record, or for those of ``at``, with ``num_ignored``
            where there is but one prompt, and ``{"receipt"}`` last, nothing else.
    """

    file: str
    tokenizer: str
    template: str
    template_date: str
    max_length: int
    num_shown: int
    at: str | None
    reading: ReadingOptions
    scripts: Scripts
    as_json: bool


@with_option_names()
def inspect_file(options: InspectOptions) -> None:
    """Encodes a file as training would and shows the result.

    Raises:
        InputError: anything that training would reject.
    """
    console = make_console(quiet=options.as_json)
    with Problems() as problems:
        problems.check_number("--max-length", options.max_length, "at least 2", "--max-length 512")
        problems.check_number("--records", options.num_shown, "at least 0", "--records 0 shows none")
        requested = None if options.at is None else problems.collect(partial(_numbers, options.at))
    unbound = find_template(options.template, options.template_date)
    records = load_records(open_files(options.file), options.reading.reading())
    tokenizer = load_tokenizer(options.tokenizer)
    template = unbound.bound(tokenizer)
    policy = EncodingPolicy(options.max_length)
    with counting(console, "encoding", len(records)) as progress:
        examples = encode(records, tokenizer, template, policy, progress, options.scripts)
    found = None if requested is None else _found(requested, records)
    if options.as_json:
        _print_json(examples, range(len(examples)) if found is None else found)
        return
    shown = range(min(options.num_shown, len(examples))) if found is None else found
    for index in shown:
        console.rule(records.where(int(examples.record_indices[index])), align="left")
        console.print(_coloured(examples, index, tokenizer))
    console.rule(align="left")
    _legend(console)
    show_rows(console, "receipt", [(label, option_words(value)) for label, value in examples.receipt.rows()])


def _numbers(text: str) -> list[int]:
    """The numbers of records, from 1, that a text such as ``89,120-125`` names.

    Raises:
        InputError: it names none.
    """
    try:
        ranges = [tuple(int(part) for part in one.split("-", 1)) for one in text.split(",")]
    except ValueError:
        raise InputError(f"expected numbers of records, got {text!r}", where="--at", fix=_AT_FIX) from None
    numbers = [number for one in ranges for number in range(one[0], one[-1] + 1)]
    if not numbers or min(numbers) < 1:
        raise InputError("records are counted from 1, and ranges go up", where="--at", fix=_AT_FIX)
    return numbers


def _found(numbers: Sequence[int], records: RecordSet) -> list[int]:
    if beyond := [number for number in numbers if number > len(records)]:
        what = f"there is no record {beyond[0]:,}: {records.source} has {len(records):,}"
        raise InputError(what, where="--at", fix=f"--at 1-{len(records)} names them all")
    return [number - 1 for number in numbers]


def _print_json(examples: EncodedExamples, shown: Sequence[int]) -> None:
    for index in shown:
        line: dict[str, Any] = {
            "index": int(examples.record_indices[index]),
            "ids": examples.ids(index).tolist(),
            "targets": examples.targets(index).tolist(),
        }
        if len(line["targets"]) < 2:
            line["num_ignored"] = line["targets"][0][0] if line["targets"] else len(line["ids"])
        print(json.dumps(line))
    print(json.dumps({"receipt": asdict(examples.receipt)}, ensure_ascii=False))


def _coloured(examples: EncodedExamples, index: int, tokenizer: Tokenizer) -> Text:
    """The example's text: tokens with loss in green, the others dim, every second token underlined."""
    ids = examples.ids(index).tolist()
    is_target = np.zeros(len(ids), bool)
    for start, stop in examples.targets(index):
        is_target[start:stop] = True
    text = Text()
    for place, token in enumerate(tokenizer.pieces(ids)):
        style = "green" if is_target[place] else "dim"
        text.append(token, style=f"{style} underline" if place % 2 else style)
    text.append(f"\n{len(ids)} tokens, {is_target.sum()} of them targets", style="italic")
    return text


def _legend(console: Console) -> None:
    console.print(Text.assemble(("prompt (no loss)", "dim"), "   ", ("answer (loss)", "green"), "\n"))
