"""What a released folder, and a run's, say about how the model is prompted; ``transformers`` ignores the file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from galpaca.data.prompting import AnyTemplate
from galpaca.data.prompts import saved_template
from galpaca.data.records import Record, Turn
from galpaca.data.scripts import Scripts
from galpaca.errors import InputError, first_line

PROMPT_FILE = "galpaca.json"

# What a template must write where turns are kept; a system message may still be none of its kinds of text.
TWO_TURNS = Record((Turn("instruction", "", "output"),) * 2)


@dataclass(frozen=True)
class PromptFile:
    """How a model was prompted in training.

    Attributes:
        template: as it was trained with; one that was read may still have to be bound to the folder's tokenizer.
        splits_sequences: whether sequences are one token a character.
        scripts: how sub- and superscripts are written.
        keeps_turns: whether it was trained on conversations of several turns.
        end_ids: all tokens that end an answer, the one of the training first; empty where an earlier version wrote the
            file: the tokenizer's ``eos_id`` is the only one.
    """

    template: AnyTemplate
    splits_sequences: bool
    scripts: Scripts = "keep"
    keeps_turns: bool = False
    end_ids: tuple[int, ...] = ()

    def save(self, folder: Path) -> None:
        content = {
            "template": self.template.saved(),
            "splits_sequences": self.splits_sequences,
            "scripts": self.scripts,
            "keeps_turns": self.keeps_turns,
            "end_ids": self.end_ids,
        }
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
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
            template = saved_template(content["template"])
            end_ids = tuple(content.get("end_ids", ()))
            scripts, keeps_turns = content.get("scripts", "keep"), bool(content.get("keeps_turns", False))
            if scripts not in get_args(Scripts):
                raise ValueError(f"unknown scripts {scripts!r}")
            if not all(isinstance(one, int) and one >= 0 for one in end_ids):
                raise ValueError(f"end_ids are no numbers of tokens: {end_ids!r}")
            if keeps_turns:
                template.check(TWO_TURNS)  # which need a text of their own
            return cls(template, bool(content["splits_sequences"]), scripts, keeps_turns, end_ids)
        except FileNotFoundError:
            fix = "use a released model folder"
            raise InputError(f"the folder has no {PROMPT_FILE}", where=folder, fix=fix) from None
        except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            message = f"the file is damaged: {type(error).__name__}: {first_line(error)}"
            raise InputError(message, where=path, fix="copy or download the folder again") from None
