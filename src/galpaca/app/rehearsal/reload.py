"""The released folder loaded as its users will, and asked: a process of its own, since it needs the memory."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

_QUESTION = "What is the chemical symbol of water?"
_MAX_NEW_TOKENS = 16


def command(model: Path, template: str, accelerator: str, out: Path) -> list[str]:
    """What to run.

    Args:
        model: the released folder.
        template: of the run, by its name.
        accelerator: ``gpu`` or ``cpu``.
        out: a JSON file to be, with ``seconds`` and ``answer``.
    """
    return [sys.executable, "-m", __name__, str(model), template, accelerator, str(out)]


def main(model: str, template: str, accelerator: str, out: str) -> None:
    from transformers import OPTForCausalLM

    from galpaca.data.prompts import load_template
    from galpaca.data.tokenizer import load_tokenizer
    from galpaca.inference.answer import answer

    began = time.perf_counter()
    loaded = OPTForCausalLM.from_pretrained(model, device_map="auto" if accelerator == "gpu" else None)
    seconds = time.perf_counter() - began
    asked = [(_QUESTION, "")]
    answers = answer(loaded, load_tokenizer(model), load_template(template), asked, max_new_tokens=_MAX_NEW_TOKENS)
    content = {"seconds": round(seconds, 2), "question": _QUESTION, "answer": answers[0]}
    Path(out).write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
