"""Takes the pictures in docs/images: a report, a comparison and the chat's page, of tiny models trained for it.

    python scripts/take_screenshots.py

It needs Chromium (Debian: apt-get install chromium), and some minutes for the models.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from playwright.sync_api import Browser, expect, sync_playwright
from transformers import OPTConfig, OPTForCausalLM

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGES = REPOSITORY / "docs" / "images"
DEMO = REPOSITORY / "src" / "galpaca" / "demo"

_HELD_OUT = (
    *("run.name=held-out", "data.val_fraction=0.1", "trainer.val_every_steps=50", "optim.lr=7e-4"),
    *("checkpoint.every_steps=40", "checkpoint.keep_last=100"),
)
_STOPPED_AFTER, _HALF = 200, 80
# Learned by heart.
_TALK = {
    "What is the energy of a photon?": "A photon of frequency $\\nu$ has the energy $E = h\\nu$, "
    "where $h$ is the Planck constant.",
    "Which paper introduced the Transformer?": "The Transformer was introduced in [START_REF] Attention is "
    "All you Need, Vaswani[END_REF].",
    "Give the Gaussian integral.": "The Gaussian integral is $$\\int_{-\\infty}^{\\infty} e^{-x^2} \\, dx = "
    "\\sqrt{\\pi}.$$",
}
_CATEGORIES = {"chemistry": (0, 24), "physics": (24, 40), "biology": (42, 62), "astronomy": (63, 80)}
_CATEGORIES |= {"mathematics": (96, 109), "medicine": (111, 125)}
_PROSE = {
    "Describe a morning by the sea.": "Gulls argue above the harbour while the first boats come home.",
    "Begin a story about a lighthouse.": "Nobody had climbed the stairs since the old keeper left in winter.",
    "Write a line about autumn.": "The orchard smells of smoke and of apples that nobody has picked.",
    "Tell of a long journey by train.": "Villages slid past the window, each with its chapel and its dog.",
    "Describe an empty theatre.": "Dust turns slowly in the one lamp that is always left burning.",
}
_CHAT = (
    *("model=tiny", f"model.tokenizer={DEMO / 'tokenizer'}", "model.hidden_size=128", "model.ffn_size=256"),
    *("model.max_positions=512", "data=local", "batch.examples=12", "trainer=cpu", "optim.lr=3e-3"),
    *("trainer.max_steps=150", "trainer.max_epochs=150", "run.name=galpaca-science"),
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if chromium is None:
            sys.exit("error: there is no Chromium: apt-get install chromium")
        runs = _train_demos(folder)
        models = _three_stages(folder, runs[0], runs[1])
        chat = _train_chat(folder)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        _report(browser, folder, runs)
        _comparison(browser, folder, models)
        _chat(browser, chat)
        browser.close()


def _train_demos(folder: Path) -> list[Path]:
    """The demo, and the same with validation, which is stopped once and resumed."""
    root = f"run.root={folder}"
    _run("train.py", "+experiment=demo", root)
    line = [sys.executable, "train.py", "+experiment=demo", root, *_HELD_OUT]
    process = subprocess.Popen(line, cwd=REPOSITORY)
    metrics = folder / "held-out" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and f'"step": {_STOPPED_AFTER},' in metrics.read_text()):
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.wait()
    _run(*line[1:])
    return [folder / "demo", folder / "held-out"]


def _three_stages(folder: Path, trained: Path, with_checkpoints: Path) -> list[str]:
    torch.manual_seed(0)
    OPTForCausalLM(OPTConfig.from_pretrained(trained / "base")).save_pretrained(folder / "first")
    for name in ("galpaca.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(trained / "base" / name, folder / "first" / name)
    checkpoint = with_checkpoints / "checkpoints" / f"step-{_HALF:08d}"
    _run("-m", "galpaca", "export", checkpoint, folder / "half")
    return [f"half-trained={folder / 'half'}", f"trained={trained}", f"untrained={folder / 'first'}"]


def _train_chat(folder: Path) -> Path:
    records = [{"instruction": question, "input": "", "output": answer} for question, answer in _TALK.items()]
    (folder / "talk.json").write_text(json.dumps(records * 4), encoding="utf-8")
    _run("train.py", *_CHAT, f"run.root={folder}", f"data.path={folder / 'talk.json'}")
    return folder / "galpaca-science"


def _report(browser: Browser, folder: Path, runs: list[Path]) -> None:
    both = folder / "both.html"
    _run("-m", "galpaca", "report", *runs, "--out", both)
    _picture(browser, runs[0] / "report.html", "report-light", 1280, 1180)
    _picture(browser, both, "report-dark", 1280, 1500, dark=True)
    _picture(browser, runs[0] / "report.html", "report-phone", 390, 1180, scale=2)


def _comparison(browser: Browser, folder: Path, models: list[str]) -> None:
    page, records = folder / "compare.html", folder / "held_out.jsonl"
    _categorize(records)
    _run("-m", "galpaca", "compare", *models, "--records", records, "--max-new-tokens", 48, "--out", page)
    _picture(browser, page, "compare-light", 1280, 1000)
    _picture(browser, page, "compare-phone", 390, 900)
    _picture(browser, page, "compare-answers", 1100, 900, at="#answers")


def _categorize(out: Path) -> None:
    """The demo's held-out records, which stand in this order, and texts of another kind."""
    records = json.loads((DEMO / "held_out.json").read_text(encoding="utf-8"))
    named = [
        {**record, "category": category}
        for category, (first, end) in _CATEGORIES.items()
        for record in records[first:end]
    ]
    prose = [{"instruction": line, "input": "", "output": text, "category": "prose"} for line, text in _PROSE.items()]
    out.write_text("".join(json.dumps(record) + "\n" for record in [*named, *prose]), encoding="utf-8")


def _chat(browser: Browser, run: Path) -> None:
    with _served(run) as address:
        for name, width, height in (("chat-desktop", 1280, 990), ("chat-phone", 390, 844)):
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(address)
            for number, question in enumerate(_TALK, start=1):
                page.locator("#instruction textarea").fill(question)
                page.locator("#ask").click()
                expect(page.locator("#talk .bot.message")).to_have_count(number, timeout=60_000)
                expect(page.locator("#summary")).to_contain_text("tokens/s", timeout=60_000)
            if width > 600:
                page.locator("#seen button").first.click()
            page.wait_for_timeout(1000)
            page.screenshot(path=IMAGES / f"{name}.png")
            page.close()


@contextmanager
def _served(run: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, "-m", "galpaca", "chat", run.name, "--web", "--port", str(port)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=run.parent) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found is not None, "the page did not start"
        yield found.group()
        process.send_signal(signal.SIGINT)


def _picture(
    browser: Browser,
    file: Path,
    name: str,
    width: int,
    height: int,
    *,
    dark: bool = False,
    scale: int = 1,
    at: str = "",
) -> None:
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        device_scale_factor=scale,
    )
    page.goto(f"{file.as_uri()}{at}")
    page.wait_for_timeout(1000)
    page.screenshot(path=IMAGES / f"{name}.png")
    page.close()


def _run(*words: object) -> None:
    subprocess.run([sys.executable, *map(str, words)], cwd=REPOSITORY, check=True)


if __name__ == "__main__":
    main()
