"""``galpaca chat``: asks a model in the terminal, and shows its answer while it is written."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galpaca.app.asked_model import ModelOptions
from galpaca.app.console import make_console
from galpaca.errors import GalpacaError, InputError
from galpaca.files.atomic import replace_file

if TYPE_CHECKING:
    from rich.console import Console

    from galpaca.inference.answer import Answer
    from galpaca.inference.loading import Loaded
    from galpaca.inference.settings import Settings

HELP = """\
Type an instruction; a line that ends with \\ goes on in the next one.
The model sees each instruction alone: it was trained on single ones and remembers no earlier turn.

  /input TEXT   goes along with every instruction from now on, until /input alone takes it away
  /template     the last prompt, or the one to come, as the model sees it
  /reset        forget input and answers so far
  /save FILE    write the questions and answers so far as JSON Lines
  /help         this
  /quit         end; so does Ctrl-D

Ctrl-C stops an answer, the arrows bring back what was typed."""


@dataclass
class Chat:
    """A talk in the terminal.

    Attributes:
        input: that goes along with every instruction.
        turns: questions and answers so far.
        number: of questions so far, also of those that were forgotten.
        stop: ends the answer that is being written; None where none is.
    """

    loaded: Loaded
    settings: Settings
    console: Console
    input: str = ""
    turns: list[dict[str, Any]] = field(default_factory=list)
    number: int = 0
    stop: threading.Event | None = None

    def run(self) -> None:
        """Until the person leaves."""
        with self._interrupts():
            while True:
                try:
                    line = self._line()
                    if line in ("/quit", "/exit"):
                        return
                    if line:
                        self._do(line)
                except KeyboardInterrupt:  # also between a line and its answer
                    self._tell("\n(Ctrl-D or /quit ends)")
                except EOFError:
                    self._tell("")
                    return

    def _do(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        try:
            if not line.startswith("/"):
                self._ask(line)
            elif command in _COMMANDS:
                _COMMANDS[command](self, rest.strip())
            else:
                self._tell(f"There is no {command}; /help tells what there is.")
        except GalpacaError as error:  # no room on the GPU for this question, for instance
            self._tell(f"error: {error}")

    def _line(self) -> str:
        lines = []
        prompt = ">>> " if sys.stdin.isatty() else ""
        while True:
            lines.append(input(prompt).rstrip())
            if not lines[-1].endswith("\\"):
                return "\n".join(lines).strip()
            lines[-1] = lines[-1][:-1]
            prompt = "... " if prompt else ""

    def _ask(self, instruction: str) -> None:
        from galpaca.inference.stream import Stream

        self.stop = threading.Event()
        begun = time.monotonic()
        try:
            stream = Stream(self.loaded, (instruction, self.input), self.settings, number=self.number, stop=self.stop)
            self.number += 1
            for piece in stream:
                print(piece, end="", flush=True)
        finally:
            self.stop = None
        print()
        assert stream.answer is not None
        self._tell(told(stream.answer, time.monotonic() - begun))
        self.turns.append(
            {
                "instruction": instruction,
                "input": self.input,
                "answer": stream.answer.text,
                "finish": stream.answer.finish,
                "model": self.loaded.name,
                "settings": self.settings.to_dict(),
            }
        )

    def set_input(self, text: str) -> None:
        self.input = text
        self._tell(f"This input goes along: {text}" if text else "No input goes along.")

    def show_template(self, _: str) -> None:
        last = self.turns[-1] if self.turns else {"instruction": "(your instruction)", "input": self.input}
        ids = self.loaded.prompt_ids([(last["instruction"], last["input"])])[0]
        print(self.loaded.tokenizer.decode(ids))
        self._tell(f"({len(ids):,} tokens; the answer follows the last character)")

    def reset(self, _: str) -> None:
        self.turns, self.input = [], ""
        self._tell("Forgotten.")

    def save(self, name: str) -> None:
        path = Path(name).expanduser()
        if not name or path.exists():
            raise InputError(
                "the file is there already" if name else "it needs a name", where=name or "/save", fix="/save FILE"
            )
        try:
            replace_file(path, "".join(json.dumps(turn, ensure_ascii=False) + "\n" for turn in self.turns))
        except OSError as error:
            raise InputError(f"it cannot be written: {error.strerror}", where=name, fix="/save ANOTHER") from None
        self._tell(f"{len(self.turns):,} questions and answers are in {path}")

    def help(self, _: str) -> None:
        self._tell(HELP)

    def _tell(self, text: str) -> None:
        self.console.print(text, style="dim", markup=False)

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """Ctrl-C stops an answer, or takes back what is being typed, and never ends the program."""

        def interrupted(number: int, frame: object) -> None:
            if self.stop is None:
                raise KeyboardInterrupt
            self.stop.set()

        before = signal.signal(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


_COMMANDS = {
    "/input": Chat.set_input,
    "/template": Chat.show_template,
    "/reset": Chat.reset,
    "/save": Chat.save,
    "/help": Chat.help,
}


def told(answer: Answer, seconds: float) -> str:
    """One line on how an answer came to be."""
    ends = {"end": "", "length": ", cut after --max-new-tokens", "positions": ", cut: no position is left"}
    rate = answer.answer_tokens / max(seconds, 1e-9)
    return f"({answer.answer_tokens:,} tokens, {rate:.0f} a second{ends.get(answer.finish, ', stopped')})"


def chat(options: ModelOptions) -> None:
    """Talks in the terminal until the person leaves.

    Raises:
        InputError: whatever is wrong with the options or the model.
    """
    import readline  # noqa: F401 - input() then knows arrows and history

    options.check()
    console = make_console()
    loaded, settings = options.load(console)
    console.print(f"{loaded.name} ({loaded.place}); /help tells what there is", style="dim", markup=False)
    Chat(loaded, settings, console).run()
