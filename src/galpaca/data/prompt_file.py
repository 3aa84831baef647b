"""What a released folder, and a run's, say about how the model is prompted; ``transformers`` ignores the file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from galpaca.data.prompts import Template, template_of
from galpaca.data.records import Record, Turn
from galpaca.data.scripts import Scripts
from galpaca.errors import InputError, first_line

PROMPT_FILE = "galpaca.json"

_TALK = Record((Turn("instruction", "", "output"),) * 2, "system")


@dataclass(frozen=True)
class PromptFile:
    """How a model was prompted in training.

    Attributes:
        splits_sequences: whether sequences are one token a character.
        scripts: how sub- and superscripts are written.
        keeps_turns: whether it was trained on conversations of several turns.
    """

    template: Template
    splits_sequences: bool
    scripts: Scripts = "keep"
    keeps_turns: bool = False

    def save(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / PROMPT_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "PromptFile":
        """Reads the file of a folder, as any version has written it.

        Raises:
            InputError: the folder has no such file, or it is damaged.
        """
        path = folder / PROMPT_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            texts = {key: text for key, text in content["template"].items() if text is not None}
            template = template_of(texts, str(texts.pop("name")))
            scripts, keeps_turns = content.get("scripts", "keep"), bool(content.get("keeps_turns", False))
            if scripts not in get_args(Scripts):
                raise ValueError(f"unknown scripts {scripts!r}")
            if keeps_turns:
                template.prompts(_TALK)  # which need texts of their own
            return cls(template, bool(content["splits_sequences"]), scripts, keeps_turns)
        except FileNotFoundError:
            fix = "use a released model folder"
            raise InputError(f"the folder has no {PROMPT_FILE}", where=folder, fix=fix) from None
        except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            message = f"the file is damaged: {type(error).__name__}: {first_line(error)}"
            raise InputError(message, where=path, fix="copy or download the folder again") from None
