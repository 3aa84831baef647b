"""``galpaca generate`` and ``galpaca chat`` as a person meets them: killed, gone on with, given nonsense."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import REPOSITORY, Started, completed, read_jsonl

from galpaca.data.prompt_file import PROMPT_FILE

Galpaca = Callable[..., subprocess.CompletedProcess[str]]
NUM_PROMPTS = 24


def line(*arguments: object) -> list[str]:
    return [sys.executable, str(REPOSITORY / "src" / "galpaca" / "__main__.py"), *map(str, arguments)]


@pytest.fixture
def galpaca(tmp_path: Path, server: str) -> Galpaca:
    def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return completed(Started(server, line(*arguments), tmp_path), timeout)

    return run


@pytest.fixture
def prompts(tmp_path: Path, demo_records: list[dict[str, str]]) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [{**record, "id": f"q{number}"} for number, record in enumerate(demo_records[::20][:NUM_PROMPTS])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_one_answer_and_nothing_else_is_printed(galpaca: Galpaca, run: Path) -> None:
    done = galpaca("generate", run, "--instruction", "Name a gas.", "--max-new-tokens", 8)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")
    assert "Below is" not in done.stdout
    assert "truncated at --max-new-tokens" in done.stderr
    drawn = galpaca("generate", run, "--instruction", "Name a gas.", "--temperature", 1, "--samples", 2)
    assert re.findall(r"^--- \d$", drawn.stdout, re.MULTILINE) == ["--- 1", "--- 2"]


class TestFiles:
    def wanted(self, run: Path, prompts: Path, out: Path, *more: object) -> list[object]:
        return ["generate", run, "--file", prompts, "--out", out, "--max-new-tokens", 24, *more]

    def test_answers_are_in_order_and_keep_their_rows(
        self, galpaca: Galpaca, run: Path, prompts: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "answers.jsonl"
        done = galpaca(*self.wanted(run, prompts, out))
        assert done.returncode == 0, done.stderr
        lines, rows = read_jsonl(out), read_jsonl(prompts)
        assert [line["index"] for line in lines] == list(range(NUM_PROMPTS))
        for answered, row in zip(lines, rows, strict=True):
            assert row.items() <= answered.items()
        assert sorted(path.name for path in tmp_path.glob("*answers*")) == [
            "answers.jsonl",
            "answers.jsonl.settings.json",
        ]
        assert not (tmp_path / ".answers.jsonl.lock").exists()
        before = out.read_bytes()
        again = galpaca(*self.wanted(run, prompts, out))
        assert again.returncode == 0
        assert "already done" in again.stdout
        assert out.read_bytes() == before

    @pytest.mark.slow
    def test_killed_and_started_again(
        self, galpaca: Galpaca, server: str, run: Path, prompts: Path, tmp_path: Path
    ) -> None:
        drawn = ("--temperature", 1, "--seed", 3, "--samples", 2)
        straight, out = tmp_path / "straight.jsonl", tmp_path / "answers.jsonl"
        assert galpaca(*self.wanted(run, prompts, straight, *drawn)).returncode == 0
        partial = tmp_path / "answers.jsonl.partial"
        arguments = self.wanted(run, prompts, out, *drawn, "--batch-size", 1)
        for at_least in (3, 11):
            process = Started(server, line(*arguments), tmp_path)
            while not partial.exists() or partial.read_bytes().count(b"\n") < at_least:
                assert process.poll() is None
                time.sleep(0.002)
            process.kill()
            completed(process)
            assert not out.exists()
            with partial.open("ab") as file:  # as if it had been killed within a line
                file.write(b'{"index": 23, "sample": 1, "ans')
        kept = partial.read_bytes().count(b"\n")
        assert 11 <= kept < 2 * NUM_PROMPTS
        done = galpaca(*arguments)
        assert done.returncode == 0, done.stderr
        assert f"{kept} of {2 * NUM_PROMPTS} answers are already done" in done.stdout
        assert out.read_bytes() == straight.read_bytes()
        assert not partial.exists()

    def test_ctrl_c_keeps_what_is_answered(self, server: str, run: Path, prompts: Path, tmp_path: Path) -> None:
        out = tmp_path / "answers.jsonl"
        partial = tmp_path / "answers.jsonl.partial"
        process = Started(server, line(*self.wanted(run, prompts, out, "--batch-size", 1)), tmp_path)
        while not partial.exists():
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        done = completed(process)
        assert done.returncode == 143
        assert "rerun the command to resume" in done.stdout
        assert "Traceback" not in done.stderr

    def test_settings_other_than_the_earlier_ones_are_refused(
        self, galpaca: Galpaca, run: Path, prompts: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "answers.jsonl"
        assert galpaca(*self.wanted(run, prompts, out)).returncode == 0
        before = {path: path.read_bytes() for path in tmp_path.glob("answers*")}
        other = galpaca(*self.wanted(run, prompts, out, "--temperature", 0.5, "--seed", 1))
        assert other.returncode == 2
        assert "temperature is 0.5, but the answers were started with 0.0" in other.stderr
        assert "seed is 1, but" in other.stderr
        rows = read_jsonl(prompts)
        prompts.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)), encoding="utf-8")
        assert "prompts_sha256" in galpaca(*self.wanted(run, prompts, out)).stderr
        prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        template = galpaca(*self.wanted(run, prompts, out, "--template", "science"))
        assert "model_fingerprint" in template.stderr
        assert {path: path.read_bytes() for path in tmp_path.glob("answers*")} == before

    def test_a_file_of_other_origin_is_not_touched(
        self, galpaca: Galpaca, run: Path, prompts: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "answers.jsonl"
        out.write_text("mine\n", encoding="utf-8")
        done = galpaca(*self.wanted(run, prompts, out))
        assert done.returncode == 2
        assert "the file already exists" in done.stderr
        assert out.read_text(encoding="utf-8") == "mine\n"

    def test_prompts_longer_than_the_positions_are_reported_together(
        self, galpaca: Galpaca, run: Path, prompts: Path, tmp_path: Path
    ) -> None:
        rows = read_jsonl(prompts)
        for number in (3, 7):
            rows[number]["input"] = "word " * 3000
        prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        done = galpaca(*self.wanted(run, prompts, tmp_path / "answers.jsonl"))
        assert done.returncode == 2
        assert re.findall(r"record (\d+) \(line \d+\): the prompt has [\d,]+ tokens", done.stderr) == ["4", "8"]
        assert list(tmp_path.glob("*answers*")) == []

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", ["the file is empty"]),
            ('{"instruction": "a"}\n{"instruction": \n\n{bad}\n', ["line 2", "line 4"]),
            ('{"instruction": "a"}\n{"instruction": ""}\n{"instruction": 3}\n', ["line 2", "line 3"]),
            ('{"instruction": "a", "answer": "b"}\n', ["column name 'answer' is reserved for the output"]),
            ('{"question": "a"}\n', ["no record has the field 'instruction'", "--field instruction="]),
            ('[{"instruction": "a"}]\n', ["the line is a list, not an object"]),
        ],
    )
    def test_prompts_that_cannot_be_read(
        self, galpaca: Galpaca, run: Path, tmp_path: Path, content: str, message: list[str]
    ) -> None:
        path = tmp_path / "prompts.jsonl"
        path.write_text(content, encoding="utf-8")
        done = galpaca(*self.wanted(run, path, tmp_path / "answers.jsonl"))
        assert done.returncode == 2
        for part in message:
            assert part in done.stderr
        assert "Traceback" not in done.stderr
        assert list(tmp_path.glob("*answers*")) == []


@pytest.mark.parametrize("command", ["generate", "chat"])
class TestModels:
    def refused(self, galpaca: Galpaca, command: str, model: Path, *more: object) -> str:
        one = ("--instruction", "Name a gas.") if command == "generate" else ()
        done = galpaca(command, model, *one, *more)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        return done.stderr

    def test_folders_without_a_model(self, galpaca: Galpaca, tmp_path: Path, command: str) -> None:
        assert "no such folder" in self.refused(galpaca, command, tmp_path / "nowhere")
        (tmp_path / "empty").mkdir()
        assert "config.json is missing" in self.refused(galpaca, command, tmp_path / "empty")
        (tmp_path / "empty" / "run.json").write_text("{}", encoding="utf-8")
        assert "this run has no model yet" in self.refused(galpaca, command, tmp_path / "empty")

    def test_a_folder_without_a_template(self, galpaca: Galpaca, run: Path, tmp_path: Path, command: str) -> None:
        model = tmp_path / "model"
        model.mkdir()
        for path in (run / "model").iterdir():
            (model / path.name).symlink_to(path)
        (model / PROMPT_FILE).unlink()
        assert "--template alpaca" in self.refused(galpaca, command, model)
        (model / PROMPT_FILE).write_text('{"template": {}}', encoding="utf-8")
        assert "the file is damaged" in self.refused(galpaca, command, model)

    def test_damaged_weights(self, galpaca: Galpaca, run: Path, tmp_path: Path, command: str) -> None:
        model = tmp_path / "model"
        model.mkdir()
        for path in (run / "model").iterdir():
            content = path.read_bytes()
            (model / path.name).write_bytes(content[:1000] if path.suffix == ".safetensors" else content)
        assert "cannot load the model" in self.refused(galpaca, command, model)

    def test_values_that_make_no_sense(self, galpaca: Galpaca, run: Path, command: str) -> None:
        message = self.refused(galpaca, command, run, "--temperature", -1, "--repetition-penalty", 0)
        assert "--temperature" in message
        assert "--repetition-penalty" in message


def test_a_page_without_gradio(tmp_path: Path, run: Path) -> None:
    (tmp_path / "gradio.py").write_text("raise ImportError('No module named gradio')", encoding="utf-8")
    paths = os.pathsep.join([str(tmp_path), str(REPOSITORY / "src")])
    done = subprocess.run(
        [sys.executable, "-m", "galpaca", "chat", str(run), "--web"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 2
    assert "pip install 'galpaca[web]'" in done.stderr


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(REPOSITORY / "src")}
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(arguments[0], arguments, environment)
        self.text = ""

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def wait_for_more(self) -> None:
        """Waits for anything to appear."""
        if not self.text:
            self.text += os.read(self.file, 65536).decode(errors="replace")

    def until(self, text: str, seconds: float = 120) -> str:
        """Reads up to a text and returns all up to it that was not returned before."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < deadline, f"{text!r} never came: {self.text[-2000:]!r}"
            if select.select([self.file], [], [], 0.2)[0]:
                self.text += os.read(self.file, 65536).decode(errors="replace")
        found, _, self.text = self.text.partition(text)
        return found + text

    def ends(self) -> int:
        """Waits for the program's own end: closed before, its terminal would end it."""
        deadline = time.monotonic() + 30
        with suppress(OSError):  # what a terminal answers that nobody writes to any more
            while time.monotonic() < deadline:
                if not select.select([self.file], [], [], 0.2)[0]:
                    continue
                self.text += os.read(self.file, 65536).decode(errors="replace")
        os.close(self.file)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.slow
def test_a_talk_in_the_terminal(run: Path, tmp_path: Path) -> None:
    """One program for all of it, since it takes seconds to start."""
    terminal = Terminal(line("chat", run, "--max-new-tokens", 150), tmp_path)
    try:
        asked = terminal.until(">>> ")
        assert "\x1b[?2004h" in asked, "else a terminal sends a paste as lines, each of which is a question"
        terminal.type("Name a gas.\n")
        terminal.until("tokens/s")
        terminal.until(">>> ")
        terminal.type("\x1b[A")  # the arrow brings it back
        terminal.until("Name a gas.")
        time.sleep(1)  # Python's readline keeps a signal that comes while it draws until the next key
        terminal.type("\x03")
        terminal.until("(Ctrl-D or /quit to quit)")
        terminal.until(">>> ")
        terminal.type("/input Sodium\n")
        terminal.until("Input for every instruction: Sodium")
        terminal.until("[input: Sodium] >>> ")
        terminal.type("Name a\\\n")
        terminal.until("... ")
        terminal.type("gas twice.\n")
        terminal.until("tokens/s")
        terminal.type("/template\n")
        seen = terminal.until("the answer follows").replace("\r\n", "\n")
        assert "### Instruction:\nName a\ngas twice.\n\n### Input:\nSodium\n\n### Response:\n" in seen
        assert "Name a gas." not in seen, "no earlier turn reaches the model"
        terminal.type("/input\n")
        terminal.until("Input cleared")
        terminal.type("\x1b[200~One gas.\n\nTwo lines.\x1b[201~\n")  # as a terminal sends what is pasted
        terminal.until("tokens/s")
        terminal.type("/template\n")
        seen = terminal.until("the answer follows").replace("\r\n", "\n")
        assert "### Instruction:\nOne gas.\n\nTwo lines.\n\n### Response:\n" in seen
        terminal.type("/save talk.jsonl\n")
        terminal.until("Saved 3 questions and answers to talk.jsonl")
        saved = read_jsonl(tmp_path / "talk.jsonl")
        assert [turn["input"] for turn in saved] == ["", "Sodium", ""]
        terminal.type("/save talk.jsonl\n")
        terminal.until("the file already exists")
        terminal.type("/reset\n")
        terminal.until("Input and history cleared")
        terminal.type("/what\n")
        terminal.until("Unknown command /what")
        terminal.type("漢" * 800 + "\n")  # three tokens each
        terminal.until("answer included, is")
        terminal.type("/help\n")
        told = terminal.until("recall earlier lines.").replace("\r\n", "\n")
        assert " " * 16 + "shows; /input alone clears it" in told, f"no word is broken: {told}"
        terminal.until(">>> ")
        terminal.type("\x04")
    finally:
        code = terminal.ends()
    assert code == 0


@pytest.mark.slow
def test_ctrl_c_stops_the_answer_and_not_the_program(run: Path, tmp_path: Path) -> None:
    terminal = Terminal(line("chat", run, "--max-new-tokens", 150, "--temperature", 1), tmp_path)
    try:
        terminal.until(">>> ")
        for _ in range(40):  # an answer may be over already
            terminal.type("Name a gas.\n")
            terminal.until("\x1b[?2004l\r")  # what readline ends a line with: what comes now is the answer
            terminal.wait_for_more()
            terminal.type("\x03")
            if "stopped" in terminal.until(">>> "):
                break
        else:
            pytest.fail("no answer was stopped")
        terminal.type("/quit\n")
    finally:
        code = terminal.ends()
    assert code == 0
