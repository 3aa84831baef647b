"""Loads the released folder as users will, and generates an answer: a separate process, for its memory."""

import json
import sys
import time
from pathlib import Path

from galpaca.app.entrypoint import run_command
from galpaca.data.records import Record

_QUESTION = "What is the chemical symbol of water?"
_MAX_NEW_TOKENS = 16


def command(model: Path, out: Path) -> list[str]:
    """The command to run.

    Args:
        model: the folder of the run, or the released one.
        out: output JSON file, with ``seconds`` and ``answer``.
    """
    return [sys.executable, "-m", __name__, str(model), str(out)]


def _reload(model: str, out: str) -> None:
    started = time.perf_counter()
    from galpaca.inference.answer import answer
    from galpaca.inference.loading import load
    from galpaca.inference.settings import Settings

    loaded = load(model)
    seconds = time.perf_counter() - started
    given = answer(loaded, [Record.of(_QUESTION)], Settings(max_new_tokens=_MAX_NEW_TOKENS))[0]
    Path(out).write_text(json.dumps({"seconds": round(seconds, 2), "answer": given.text}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_command(lambda: _reload(*sys.argv[1:])))
