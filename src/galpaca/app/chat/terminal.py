"""``galpaca chat``: an interactive chat in the terminal with streamed answers."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from galpaca.app.console import between_words, make_console
from galpaca.app.options.models import ModelOptions
from galpaca.data.records import Record, Turn
from galpaca.errors import GalpacaError, InputError
from galpaca.files.atomic import replace_file
from galpaca.inference.answer_formats import json_lines
from galpaca.inference.settings import Settings

if TYPE_CHECKING:
    from galpaca.inference.answer import Answer
    from galpaca.inference.loading import Loaded

HELP = """\
Type an instruction; end a line with \\ to continue on the next one. Several lines that are pasted are one instruction.
{turns}

  /input TEXT   add this input to every instruction from now on, as >>> then shows; /input alone clears it
  /template     show the last prompt, or the next one, as the model sees it
  /reset        clear the input and the history
  /save FILE    save questions and answers as JSON Lines
  /help         show this help
  /quit         quit; so does Ctrl-D

Ctrl-C stops an answer; the arrow keys recall earlier lines."""
# Characters of the standing input beside the prompt.
_INPUT_SHOWN = 32
TURNS = {
    False: "Each instruction is answered on its own: the model was trained on single turns and sees no earlier ones.",
    True: "The model sees earlier questions and answers; /reset starts another conversation.",
}


@dataclass
class Chat:
    """An interactive chat in the terminal.

    Attributes:
        input: added to every instruction.
        turns: the history of questions and answers.
        asked: the last question, as the model saw it.
        number: how many questions were asked, including those cleared by ``/reset``.
        stop: stops the answer being generated; None when there is none.
    """

    loaded: Loaded
    settings: Settings
    console: Console
    input: str = ""
    turns: list[dict[str, Any]] = field(default_factory=list)
    asked: Record | None = None
    number: int = 0
    stop: threading.Event | None = None

    def run(self) -> None:
        """Reads and answers lines until the user quits."""
        with self._interrupts():
            while True:
                try:
                    line = self._line()
                    if line in ("/quit", "/exit"):
                        return
                    if line:
                        self._do(line)
                except KeyboardInterrupt:  # also between a line and its answer
                    self._show("\n(Ctrl-D or /quit to quit)")
                except EOFError:
                    self._show("")
                    return

    def _do(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        try:
            if not line.startswith("/"):
                self._ask(line)
            elif command in _COMMANDS:
                _COMMANDS[command](self, rest.strip())
            else:
                self._show(f"Unknown command {command}; see /help.")
        except GalpacaError as error:  # no room on the GPU for this question, for instance
            self._show(f"error: {error}")

    def _line(self) -> str:
        lines = []
        prompt = f"{self._standing_input()}>>> " if sys.stdin.isatty() else ""
        while True:
            lines.append(input(prompt).rstrip())
            if not lines[-1].endswith("\\"):
                return "\n".join(lines).strip()
            lines[-1] = lines[-1][:-1]
            prompt = "... " if prompt else ""

    def _standing_input(self) -> str:
        """The input of the next question, on one line and short."""
        text = " ".join(self.input.split())
        return f"[input: {text if len(text) <= _INPUT_SHOWN else text[: _INPUT_SHOWN - 1] + '…'}] " if text else ""

    def _ask(self, instruction: str) -> None:
        from galpaca.inference.stream import Stream

        self.stop = threading.Event()
        started = time.monotonic()
        try:
            question, num_left_out = self._question(instruction)
            if num_left_out:
                self._show(f"(the first {num_left_out} questions and answers no longer fit into the context)")
            stream = Stream(self.loaded, question, self.settings, number=self.number, stop=self.stop)
            self.number += 1
            self.asked = question
            for piece in stream:
                print(piece, end="", flush=True)
        finally:
            self.stop = None
        print()
        answer = stream.answer
        assert answer is not None
        self._show(summary(answer, time.monotonic() - started))
        self.turns.append(saved_turn(Turn(instruction, self.input, answer.text), answer, self.loaded, self.settings))

    def _question(self, instruction: str) -> tuple[Record, int]:
        """The question with what the model may see of earlier ones, and how many of these it may not."""
        from galpaca.inference.conversation import next_question

        history = [Turn(turn["instruction"], turn["input"], turn["answer"]) for turn in self.turns]
        return next_question(self.loaded, history, instruction, self.input)

    def set_input(self, text: str) -> None:
        self.input = text
        self._show(f"Input for every instruction: {text}" if text else "Input cleared.")

    def show_template(self, _: str) -> None:
        [ids] = self.loaded.prompt_ids([self.asked or self._question("(your instruction)")[0]])
        print(between_words(self.console, self.loaded.prompt_text(ids)))
        self._show(f"({len(ids):,} tokens; the answer follows the last character)")

    def reset(self, _: str) -> None:
        self.turns, self.input, self.asked = [], "", None
        self._show("Input and history cleared.")

    def save(self, name: str) -> None:
        path = Path(name).expanduser()
        if not name or path.exists():
            what = "the file already exists" if name else "no file name given"
            raise InputError(what, where=name or "/save", fix="/save FILE")
        try:
            replace_file(path, json_lines(self.turns))
        except OSError as error:
            raise InputError(f"cannot write the file: {error.strerror}", where=name, fix="/save ANOTHER") from None
        self._show(f"Saved {len(self.turns):,} questions and answers to {path}")

    def help(self, _: str) -> None:
        self._show(HELP.format(turns=TURNS[self.loaded.keeps_turns]))

    def _show(self, text: str) -> None:
        self.console.print(between_words(self.console, text), style="dim", markup=False)

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """Ctrl-C stops an answer or clears the line being typed, and never ends the program."""

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


def saved_turn(turn: Turn, answer: Answer, loaded: Loaded, settings: Settings) -> dict[str, Any]:
    """A question and its answer as they are saved."""
    asked = {"instruction": turn.instruction, "input": turn.input, "answer": turn.output, "finish": answer.finish}
    return {**asked, "model": loaded.name, "settings": asdict(settings)}


def summary(answer: Answer, seconds: float) -> str:
    """One line about an answer: tokens, speed, and why it ended."""
    ends = {"end": "", "length": ", truncated at --max-new-tokens", "positions": ", truncated at the context length"}
    rate = answer.answer_tokens / max(seconds, 1e-9)
    return f"({answer.answer_tokens:,} tokens, {rate:.0f} tokens/s{ends.get(answer.finish, ', stopped')})"


def chat(options: ModelOptions) -> None:
    """Runs the interactive chat until the user quits.

    Raises:
        InputError: invalid options or model.
    """
    import readline  # input() then knows arrows and history

    # Python turns it off, and each line of a paste is then a question. What is no GNU readline does not know it.
    readline.parse_and_bind("set enable-bracketed-paste on")
    options.check()
    console = make_console()
    loaded, settings = options.load(console)
    console.print(f"{loaded.name} ({loaded.device_dtype}); type /help for commands", style="dim", markup=False)
    Chat(loaded, settings, console).run()
