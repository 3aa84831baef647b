"""``galpaca inspect``: shows records as the model will see them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from galpaca.app.console import counting, make_console, show_rows
from galpaca.app.option_names import parse_field_options, with_option_names
from galpaca.data.encoded_set import encode
from galpaca.data.examples import EncodedExamples
from galpaca.data.policies import EncodingPolicy
from galpaca.data.prompts import load_template
from galpaca.data.records import load_records
from galpaca.data.sources import FileSource
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.errors import Problems


@dataclass(frozen=True)
class InspectOptions:
    """Options of ``galpaca inspect``.

    Attributes:
        file: file of records.
        tokenizer: folder or Hub id of the tokenizer.
        template: name or file of the prompt template.
        max_length: tokens that examples are truncated to.
        num_shown: number of records to show in colour.
        fields: ``FIELD=COLUMN`` for columns with other names.
        as_json: print ``{"index", "ids", "targets"}`` for every record, with ``num_ignored`` where there is but one
            prompt, and ``{"receipt"}`` last, nothing else.
    """

    file: str
    tokenizer: str
    template: str
    max_length: int
    num_shown: int
    fields: Sequence[str]
    as_json: bool


def inspect_file(options: InspectOptions) -> None:
    """Encodes a file as training would and shows the result.

    Raises:
        InputError: anything that training would reject.
    """
    console = make_console(quiet=options.as_json)
    with Problems() as problems:
        problems.check_number("--max-length", options.max_length, "at least 2", "--max-length 512")
        problems.check_number("--records", options.num_shown, "at least 0", "--records 0 shows none")
    with with_option_names():
        template = load_template(options.template)
        records = load_records(FileSource(Path(options.file)), parse_field_options(options.fields))
        tokenizer = load_tokenizer(options.tokenizer)
        with counting(console, "encoding", len(records)) as progress:
            examples = encode(records, tokenizer, template, EncodingPolicy(options.max_length), progress)
    if options.as_json:
        _print_json(examples)
        return
    for index in range(min(options.num_shown, len(examples))):
        console.rule(records.where(int(examples.record_indices[index])), align="left")
        console.print(_coloured(examples, index, tokenizer))
    console.rule(align="left")
    _legend(console)
    show_rows(console, "receipt", examples.receipt.rows())


def _print_json(examples: EncodedExamples) -> None:
    for index in range(len(examples)):
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
    """The example's text: tokens with loss in green, the ignored prompt dim, every second token underlined."""
    ids = examples.ids(index).tolist()
    targets = {place for start, stop in examples.targets(index).tolist() for place in range(start, stop)}
    text = Text()
    for place, token in enumerate(tokenizer.pieces(ids)):
        style = "green" if place in targets else "dim"
        text.append(token, style=f"{style} underline" if place % 2 else style)
    text.append(f"\n{len(ids)} tokens, {len(targets)} of them targets", style="italic")
    return text


def _legend(console: Console) -> None:
    console.print(Text.assemble(("prompt (no loss)", "dim"), "   ", ("answer (loss)", "green"), "\n"))
