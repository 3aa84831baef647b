"""``galpaca bug-report``: what others need to know of a run that went wrong, and nothing that is nobody's business."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from galpaca.app.console import make_console
from galpaca.errors import GalpacaError, InputError
from galpaca.files.atomic import replace_file
from galpaca.runs.configuration import read_configuration
from galpaca.runs.folder import RunFolder, find_run
from galpaca.runs.metrics import whole_lines
from galpaca.runs.provenance import versions
from galpaca.runs.record import read_content
from galpaca.runs.record_fields import RunContent, Start
from galpaca.runs.typed import encode

_LAST_LINES = 20
_STACK_CHARACTERS = 20_000
# Values of the configuration and the record that name people, places or data; the keys stay.
_PRIVATE_KEYS = re.compile(
    r"(?:^|[._])(path|root|dir|folder|home|host|entity|project|group|tags|notes|name|hub_id|hub_config|prompts|source|"
    r"dataset|base_model|question|question_input|command|slurm_job|id|key|token|secret|password|fields|mix|split_by|"
    r"hints|ignored_columns|first|tokenizer|template|terms|hub_revision|revision)$"
)
_PUBLIC_KEYS = ("precision.name",)
_COMMON_NAMES = ("root", "user", "home", "localhost")
_HIDDEN = "(left out)"
# What everybody may know: models of the Hub that this is made for, and names of the project's own.
_PUBLIC_VALUES = re.compile(r"(facebook/galactica-[\w.-]+|galpaca[\w.]*|alpaca|chat_template|single_turn)$")
_PACKAGE = re.compile(
    r"[^\s'\"]*/(?:(?:site|dist)-packages/([\w./-]+)|src/(galpaca/[\w./-]+)|lib/(python\d\.\d+/[\w./-]+))"
)
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+")
_MAIL = re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b")
# What is quoted and begins like a path may have blanks in it.
_QUOTED_PATH = re.compile(r"(['\"`])(?:~[\w.-]*|\.{1,2}|[\w.-]+:)?/[^'\"`\n]*\1")
_WITH_SLASH = re.compile(r"[^\s'\"`,;()\[\]]*/[^\s'\"`,;()\[\]]*")
# One slash between words is no path: tokens/s, and/or, 3/4.
_NO_PATH = re.compile(r"[\w-]+/[\w-]+")
# Keys of W&B are 40 hexadecimal digits or more, the Hub's begin with hf_. Digests are no secret, but of no use.
_KEYS = re.compile(r"\b(?:hf_[A-Za-z0-9]{8,}|[A-Za-z0-9_-]*[0-9a-f]{32,}[A-Za-z0-9_]*)\b")
# The text of an error that is none of galpaca's own may hold anything, a record too.
_FOREIGN = re.compile(r"(\w*(?:Error|Exception|Interrupt|Exit|Warning))(?::.*)?", re.DOTALL)
_LEAST_CHARACTERS = 4


def bug_report(run: Path, out: Path | None = None) -> None:
    """Writes the file and prints its path.

    Args:
        run: run folder.
        out: the file; default: ``bug-report-NAME.md`` in the working directory.

    Raises:
        InputError: the folder is no run, or the file is there already or cannot be written.
    """
    folder = find_run(run)
    path = out or Path(f"bug-report-{folder.path.name}.md")
    if path.exists():
        raise InputError("the file already exists", where=path, fix="--out ANOTHER, or delete it")
    text = describe(folder)
    try:
        replace_file(path, text)
    except OSError as error:
        raise InputError(f"cannot write the file: {error.strerror}", where=path, fix="--out ANOTHER") from None
    make_console().print(f"{path}: read it before you send it; records, names and paths are left out", markup=False)


def describe(folder: RunFolder) -> str:
    """The report as Markdown."""
    notes: list[str] = []
    record = _or_note(notes, "run.json", lambda: read_content(folder.record)) or RunContent()
    config = _or_note(notes, "config.yaml", lambda: read_configuration(folder.config)) or {}
    content, names = encode(record), _names_of(record)
    # Words of errors and notes; elsewhere a run that is called "loss" would take a figure's name along.
    in_words = [
        ("What happened", "*Say here what you did, what came and what you expected.*"),
        ("Cannot be read", "\n".join(f"- {note}" for note in notes)),
        ("Starts", "\n\n".join(map(_start, record.starts))),
        ("Stacks", _stacks(folder.stacks)),
    ]
    in_figures = [
        ("Versions here and now", _block(versions())),
        ("Plan and examples", _block(_kept({key: content[key] for key in _OF_RECORD if key in content}))),
        ("Checkpoints", ", ".join(f"step {step}" for step in folder.saved_steps()) or "none"),
        (f"Last {_LAST_LINES} lines of metrics", _lines(folder.metrics)),
        ("Steps that were not finite", _lines(folder.non_finite)),
        ("Configuration", _block(_kept(config))),
    ]
    parts = (
        without_private(_sections(in_words), [*names, *_private_values(config)]),
        without_private(_sections(in_figures), names),
    )
    return "\n\n".join(["# A run that went wrong", *parts]) + "\n"


def _sections(sections: Sequence[tuple[str, str]]) -> str:
    return "\n\n".join(f"## {title}\n\n{content}" for title, content in sections if content)


# Of run.json; what is not here may hold anything.
_OF_RECORD = ("parameters", "plan", "whole_plan", "examples", "receipt", "final", "early_stop_step")


def _or_note(notes: list[str], name: str, read: Any) -> Any:
    try:
        return read()
    except GalpacaError as error:
        notes.append(f"{name}: {error.what}")
        return None


def _names_of(record: RunContent) -> list[str]:
    """Names of people and machines that may stand anywhere in a text."""
    found = {*(start.host for start in record.starts), Path.home().name}
    return [name for name in found if len(name) > 2 and name not in _COMMON_NAMES]


def _private_values(config: Mapping[str, Any], above: str = "") -> list[str]:
    """Texts that the configuration hides; an error or a note may hold them, too."""
    found: list[str] = []
    for key, value in config.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            found += _private_values(value, f"{name}.")
        elif isinstance(value, str) and _is_private(name, value) and len(value) >= _LEAST_CHARACTERS:
            found.append(value)
    return found


def _start(start: Start) -> str:
    ended = start.ended
    foreign = _FOREIGN.fullmatch(ended.why) if ended else None
    why = foreign[1] if foreign else ended.why if ended else ""
    how = ": ".join(filter(None, [ended.how, why])) if ended else "no end is recorded"
    shown = {
        "after step": start.step,
        "ended": how,
        "commit": f"{start.git.commit[:10]}{' with changes' if start.git.dirty else ''}" if start.git else "unknown",
        "machine": encode(start.machine) if start.machine else None,
        "seconds": encode(start.seconds),
        "setup": {key: value for key, value in start.setup.items() if key not in ("folder", "model")},
        "accepted changes": [_change(one) for one in start.accepted_changes],
        "lost output": list(start.lost_output),
        "versions": dict(start.versions),
    }
    return _block({key: value for key, value in shown.items() if value not in (None, [], {})})


def _block(content: Any) -> str:
    return f"```yaml\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000).strip()}\n```"


def _lines(path: Path) -> str:
    """The last lines of figures, which hold numbers and no text."""
    lines = list(whole_lines(path))[-_LAST_LINES:]
    shown = []
    for line in lines:
        try:
            content = json.loads(line)
            shown.append(json.dumps({key: value for key, value in content.items() if not isinstance(value, str)}))
        except (ValueError, AttributeError):
            shown.append("(damaged)")
    return "```\n" + "\n".join(shown) + "\n```" if shown else ""


def _stacks(folder: Path) -> str:
    """Of the newest start whose ranks reported theirs."""
    reports = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime)
    newest = [path for path in reports if path.parent == reports[-1].parent]
    texts = [f"{path.name}\n{path.read_text(encoding='utf-8', errors='replace')}" for path in newest]
    text = "\n".join(texts)[:_STACK_CHARACTERS]
    return f"```\n{text}\n```" if text else ""


def _kept(content: Any, above: str = "") -> Any:
    """A mapping without the values of private keys."""
    if isinstance(content, Mapping):
        return dict(_of_mapping(content, above))
    return [_kept(one) for one in content] if isinstance(content, list | tuple) else content


def _of_mapping(content: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = f"{above}{key}"
        yield key, _HIDDEN if _is_private(name, value) else _kept(value, f"{name}.")


def _is_private(name: str, value: Any) -> bool:
    """Whether a value stays out: by its key, unless it is empty, a switch, or known to everybody."""
    if isinstance(value, bool) or value in (None, "", {}, []):
        return False
    if isinstance(value, str) and _PUBLIC_VALUES.fullmatch(value):
        return False
    return name.endswith("._target_") or (_PRIVATE_KEYS.search(name) is not None and name not in _PUBLIC_KEYS)


def _change(text: str) -> str:
    """``key: before -> after``; of a private key, the key alone."""
    key, _, _ = text.partition(":")
    return f"{key}: {_HIDDEN}" if _is_private(key, text) else text


def _without_path(found: re.Match[str]) -> str:
    word = found[0].rstrip(":.")
    is_public = _NO_PATH.fullmatch(word) or _PUBLIC_VALUES.fullmatch(word)
    return found[0] if is_public else f"(path){found[0][len(word) :]}"


def without_private(text: str, names: Sequence[str] = ()) -> str:
    """The text without addresses, keys, paths and the names given; of files of packages, their place in the package."""
    text = _MAIL.sub("(address)", _URL.sub("(address)", text))
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(found[1] or found[2] or found[3])
        return f"\0{len(kept) - 1}\0"

    text = _QUOTED_PATH.sub(r"\1(path)\1", _PACKAGE.sub(keep, text))
    text = _WITH_SLASH.sub(_without_path, text)
    text = _KEYS.sub("(key)", text)
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "(name)", text)
    return re.sub("\0(\\d+)\0", lambda found: kept[int(found[1])], text)
