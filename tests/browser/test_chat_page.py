"""The chat's page as a person sees it: typed, streamed, rendered, stopped; and nobody else is contacted."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import REPOSITORY, MadeOnce, Started, completed, read_jsonl
from playwright.sync_api import expect

from browser.visits import Open, Visit

# Learned by heart, so that the answers are known.
LATEX = "The integral is $$\\int_0^1 x^2 \\, dx = \\frac{1}{3}$$ for $a < b$."
TAGGED = "<work>\n12 + 30 = 42\n</work>\n\n42 [START_REF] A paper, Author[END_REF] [START_SMILES]CCO[END_SMILES]"
LONG = "one two three four five six seven eight nine ten " * 12

# Thirty milliseconds a token, as of a model worth asking: a tiny one is done before anybody can press a button.
SLOW = """
import functools, sys, time
from transformers import OPTForCausalLM
forward = OPTForCausalLM.forward

@functools.wraps(forward)
def slowly(*given, **named):
    time.sleep(0.03)
    return forward(*given, **named)

OPTForCausalLM.forward = slowly
from galpaca.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def model(made_once: MadeOnce, server: str, tokenizer_folder: Path) -> Path:
    """A tiny model that knows three answers."""
    return made_once("known", lambda folder: _train(server, folder, tokenizer_folder)) / "runs" / "test"


def _train(server: str, folder: Path, tokenizer_folder: Path) -> None:
    records = [
        {"instruction": instruction, "input": "", "output": output}
        for instruction, output in (("Integrate.", LATEX), ("Add with work.", TAGGED), ("Count for long.", LONG))
    ]
    path = folder / "records.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    line = [
        sys.executable,
        str(REPOSITORY / "train.py"),
        "model=tiny",
        f"model.tokenizer={tokenizer_folder}",
        "model.hidden_size=64",
        "model.ffn_size=128",
        "model.max_positions=512",
        "data=local",
        f"data.path={path}",
        "data.max_length=512",
        "batch.examples=3",
        "model.dropout=0",
        "trainer=cpu",
        "trainer.max_steps=120",
        "trainer.max_epochs=120",
        "optim.lr=5e-3",
        "release.max_new_tokens=400",
        f"run.root={folder / 'runs'}",
        "run.name=test",
    ]
    done = completed(Started(server, line, folder))
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    with serving(model, program=("-c", SLOW)) as (port, _):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def serving(model: Path, *options: str, program: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Serves the page; yields its port and what was printed about it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, *program, "chat", str(model), "--web", "--port", str(port), *options]
    # What reaches another host fails, where it would only be slow otherwise.
    dead = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9") | {"NO_PROXY": "127.0.0.1,localhost"}
    with (
        subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env={**os.environ, **dead}, cwd=REPOSITORY) as server,
    ):
        assert server.stdout is not None
        try:
            said = server.stdout.readline()
            assert f":{port} serves" in said
            yield port, said if not options else said + server.stdout.readline()
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0, "Ctrl-C is how the page is meant to end"
        assert "Traceback" not in server.stdout.read()


def ask(visit: Visit, instruction: str) -> None:
    visit.page.locator("#instruction textarea").fill(instruction)
    visit.page.locator("#ask").click()


def answered(visit: Visit) -> str:
    """Waits for the end of the answer, and returns the line below it."""
    message = visit.page.locator("#summary")
    expect(message).to_contain_text("tokens/s", timeout=60_000)
    return message.inner_text()


def last_answer(visit: Visit) -> str:
    return visit.page.locator("#talk .bot.message").last.inner_text()


@pytest.mark.parametrize("width", [1280, 390])
def test_latex_is_rendered_and_nothing_else_is_requested(open_page: Open, address: str, width: int) -> None:
    visit = open_page(address, width=width)
    ask(visit, "Integrate.")
    answered(visit)
    formulas = visit.page.locator("#talk .bot .katex")
    expect(formulas).to_have_count(2)
    assert formulas.first.locator(".mfrac").count() == 1
    font = "getComputedStyle(document.querySelector('#talk .bot .katex')).fontFamily"
    assert "KaTeX" in visit.page.evaluate(font)
    visit.page.wait_for_function("document.fonts.check('16px KaTeX_Main')", timeout=30_000)
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    assert visit.errors == []
    assert visit.foreign == []


def test_tags_citations_and_molecules_are_shown(open_page: Open, address: str) -> None:
    """``<work>`` was taken for a tag of the page and dropped."""
    visit = open_page(address)
    ask(visit, "Add with work.")
    answered(visit)
    for part in ("<work>", "</work>", "[START_REF]", "[END_REF]", "[START_SMILES]CCO[END_SMILES]"):
        assert part in last_answer(visit)
    visit.page.locator("#seen button").first.click()
    seen = visit.page.locator("#prompt textarea").input_value()
    assert seen.startswith("Below is an instruction that describes a task. Write")
    assert seen.endswith(f"### Instruction:\nAdd with work.\n\n### Response:{TAGGED}")


@pytest.mark.parametrize("sequence", ["CC(=O)O", "CC(C)(C)OC(=O)N" * 10, "M" + "KVLAAGIVGLC" * 12])
def test_a_phone_shows_all_of_a_sequence(open_page: Open, address: str, sequence: str) -> None:
    """A sequence has no spaces; one of 15 characters made the page 436 pixels wide on a screen of 390."""
    visit = open_page(address, width=390)
    ask(visit, f"What is [START_SMILES]{sequence}[END_SMILES] good for?")
    answered(visit)
    expect(visit.page.locator("#talk .user.message").last).to_contain_text(sequence)
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    beyond = (
        "[...document.querySelectorAll('#talk .message *')].filter(e => e.getBoundingClientRect().right > innerWidth)"
    )
    assert visit.page.evaluate(f"{beyond}.map(e => e.outerHTML.slice(0, 200))") == []


def test_the_box_is_free_for_the_next_question(open_page: Open, address: str) -> None:
    visit = open_page(address)
    box = visit.page.locator("#instruction textarea")
    visit.page.locator("#input textarea").fill("for all")
    ask(visit, "Count for long.")
    expect(box).to_have_value("", timeout=30_000)
    box.fill("Typed meanwhile")
    answered(visit)
    expect(box).to_have_value("Typed meanwhile")
    expect(visit.page.locator("#input textarea")).to_have_value("for all")
    ask(visit, "word " * 900)
    expect(visit.page.locator("#summary")).to_contain_text("answer included, is 512")
    expect(box).to_have_value(("word " * 900).strip())  # it was not answered, and may be shortened


def test_an_answer_is_copied_and_a_talk_saved_as_generated(open_page: Open, address: str, tmp_path: Path) -> None:
    visit = open_page(address)
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.page.locator("#save").click()
    expect(visit.page.locator("#summary")).to_contain_text("nothing to save yet")
    visit.page.locator("#copy").click()
    expect(visit.page.locator("#summary")).to_contain_text("no answer to copy yet")
    for number, question in enumerate(("Integrate.", "Add with work."), start=1):
        ask(visit, question)
        expect(visit.page.locator("#talk .bot.message")).to_have_count(number)
        expect(visit.page.locator("#summary")).not_to_contain_text("tokens/s")
        answered(visit)
    visit.page.locator("#copy").click()
    expect(visit.page.locator("#summary")).to_contain_text("Copied the last answer")
    assert visit.page.evaluate("navigator.clipboard.readText()") == TAGGED, "tags and all"
    with visit.page.expect_download() as download:
        visit.page.locator("#save").click()
    assert download.value.suggested_filename == "chat.jsonl"
    download.value.save_as(tmp_path / "chat.jsonl")
    saved = read_jsonl(tmp_path / "chat.jsonl")
    assert [(turn["instruction"], turn["answer"]) for turn in saved] == [
        ("Integrate.", LATEX),
        ("Add with work.", TAGGED),
    ]
    assert saved[0]["settings"]["temperature"] == 0
    visit.page.locator("#clear").click()
    expect(visit.page.locator("#talk .bot.message")).to_have_count(0)
    visit.page.locator("#save").click()
    expect(visit.page.locator("#summary")).to_contain_text("nothing to save yet")
    assert visit.errors == []


def test_other_machines_are_asked_for_a_password(open_page: Open, model: Path) -> None:
    with serving(model, "--host", "0.0.0.0", program=("-m", "galpaca")) as (port, said):
        told = re.search(r"log in as galpaca with the password (\S+);", said)
        assert told is not None, said
        visit = open_page(f"http://127.0.0.1:{port}")
        word = visit.page.get_by_label("password")
        visit.page.get_by_label("username").fill("galpaca")
        expect(visit.page.locator("#talk")).to_have_count(0)
        word.fill("guessed")
        visit.page.get_by_role("button", name="Login").click()
        expect(visit.page.locator("#talk")).to_have_count(0)
        expect(visit.page.get_by_text("Incorrect Credentials")).to_be_visible()
        visit.page.get_by_label("username").fill("galpaca")
        word.fill(told[1])
        visit.page.get_by_role("button", name="Login").click()
        ask(visit, "Integrate.")
        answered(visit)


def test_an_answer_streams_and_stops(open_page: Open, address: str) -> None:
    visit = open_page(address)
    ask(visit, "Count for long.")
    answer = visit.page.locator("#talk .bot.message").last
    expect(answer).to_contain_text("one two", timeout=60_000)
    first = answer.inner_text()
    visit.page.locator("#stop").click()
    assert "stopped" in answered(visit)
    assert len(first) <= len(last_answer(visit)) < len(LONG) * 0.9
    assert visit.errors == []


def test_the_controls_reach_the_model(open_page: Open, address: str) -> None:
    visit = open_page(address)
    box = visit.page.get_by_label("number input for Max new tokens")
    box.fill("5")
    box.press("Tab")
    ask(visit, "Count for long.")
    assert re.match(r"5 tokens, .*truncated at --max-new-tokens", answered(visit))
    visit.page.locator("#clear").click()
    expect(visit.page.locator("#talk .bot.message")).to_have_count(0)


def test_a_question_that_is_too_long_is_reported_on_the_page(open_page: Open, address: str) -> None:
    visit = open_page(address)
    visit.page.locator("#ask").click()
    expect(visit.page.locator("#summary")).to_contain_text("Enter an instruction first")
    ask(visit, "word " * 900)
    expect(visit.page.locator("#summary")).to_contain_text("answer included, is 512")
    assert visit.errors == []


def test_only_this_machine_can_open_it(address: str) -> None:
    port = int(address.rpartition(":")[2])
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    hosts = {fields[1].split(":")[0] for fields in listening if int(fields[1].split(":")[1], 16) == port}
    assert hosts == {"0100007F"}


def test_a_port_in_use_is_reported_with_a_free_one(model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = [sys.executable, "-m", "galpaca", "chat", str(model), "--web", "--port", str(port)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    free = re.search(r"--port (\d+), which is free", done.stderr)
    assert free is not None
    assert free[1] != str(port)
    assert len(done.stderr.splitlines()) == 2, done.stderr
    assert done.stdout == "", "it is reported before a model is loaded"
