"""What a chat template of ``transformers`` makes of records, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from galpaca.data.pinned_date import pinned
from galpaca.data.records import Record, Turn
from galpaca.errors import InputError, first_line

OTHER_TEMPLATE_FIX = "data.template=alpaca, science, or a .yaml file"
OWN_TEMPLATE_FIX = f"{OTHER_TEMPLATE_FIX}; or model.tokenizer=FOLDER with another chat template"


def template_text(hf: Any, day: Any) -> str:
    """The tokenizer's template with its date pinned, its lines as they are read back from a file: what it writes is the
    same, since Jinja reads them so.

    Raises:
        InputError: it has none, or several without a default.
    """
    try:
        text = hf.get_chat_template()
    except Exception as error:  # the library's kinds are its own
        several = isinstance(getattr(hf, "chat_template", None), dict)
        what = f"no chat template: {first_line(error)}" if several else "the tokenizer has no chat template"
        raise InputError(what, where=str(hf.name_or_path), fix=OWN_TEMPLATE_FIX) from None
    return pinned(str(text).replace("\r\n", "\n").replace("\r", "\n"), day)


def messages_of(record: Record, answered: bool) -> list[dict[str, str]]:
    """The messages of a record, up to its last answer or with it.

    An input stands below the instruction, behind an empty line.
    """
    messages = [{"role": "system", "content": record.system}] if record.system else []
    for turn in record.turns:
        messages.append({"role": "user", "content": "\n\n".join(filter(None, (turn.instruction, turn.input)))})
        messages.append({"role": "assistant", "content": turn.output})
    return messages if answered else messages[:-1]


def rendered(hf: Any, text: str, messages: Sequence[Mapping[str, str]], *, is_prompt: bool) -> str:
    """What a template makes of messages.

    Raises:
        Exception: whatever the template raises.
    """
    return str(
        hf.apply_chat_template(list(messages), chat_template=text, tokenize=False, add_generation_prompt=is_prompt)
    )


def only_turn(record: Record, name: str) -> Turn:
    """The one turn of a record.

    Raises:
        InputError: it has more, or a system.
    """
    if len(record.turns) > 1 or record.system:
        what = "earlier turns and a system message cannot be kept"
        raise InputError(what, where=name, fix="use records with one turn, or --template alpaca for all models")
    return record.turns[0]
