"""Three stages of one training, compared from the command line and read in a browser."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO, REPOSITORY, Started, command, completed
from transformers import OPTConfig, OPTForCausalLM

from browser.visits import Open

LABELS = ["untrained", "half-trained", "trained"]
EVIL = "</script><script>document.title = 'owned'</script><img src=https://example.invalid/x onerror=alert(1)>"


@dataclass(frozen=True)
class Compared:
    page: Path
    figures: dict[str, Any]
    line: list[str]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, server: str) -> Compared:
    """The demo at half its width for a fifth of its steps: its first weights, those of step 50, and the last."""
    folder = tmp_path_factory.mktemp("compared")

    def galpaca(*arguments: object) -> str:
        line = ["python", str(REPOSITORY / "src" / "galpaca" / "__main__.py"), *map(str, arguments)]
        done = completed(Started(server, line, folder), 280)
        assert done.returncode == 0, done.stderr
        return done.stdout

    train = command(folder, DEMO / "tokenizer", DEMO / "records.json", *_SHORT)
    done = completed(Started(server, train, folder), 280)
    assert done.returncode == 0, done.stderr
    run = folder / "runs" / "test"
    galpaca("export", run / "checkpoints" / "step-00000050", folder / "half")
    _first_weights(run, folder / "first")
    prompts = [
        {"category": "chemistry", "instruction": "State the formula by which a chemist denotes water.", "input": ""},
        {"category": "chemistry", "instruction": "What would a chemist call table salt?", "input": ""},
        {"category": "text", "instruction": f"Repeat: {EVIL}", "input": EVIL},
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    line = [
        *("compare", f"untrained={folder / 'first'}", f"half-trained={folder / 'half'}", f"trained={run}"),
        *("--prompts", folder / "prompts.jsonl", "--records", DEMO / "held_out.json", "--max-new-tokens", 24),
        *("--out", folder / "page.html", "--json", folder / "figures.json"),
    ]
    message = galpaca(*line)
    assert "already done" not in message
    assert "against untrained" in message
    figures = json.loads((folder / "figures.json").read_text())
    again = galpaca(*line)
    assert again.count("3 answers are already done") == 3
    assert again.count("losses of 140 records are already done") == 3
    found = json.loads((folder / "figures.json").read_text())
    assert {**found, "written_at": ""} == {**figures, "written_at": ""}
    return Compared(folder / "page.html", figures, [str(part) for part in line])


_SHORT = (
    *("model.num_layers=2", "model.hidden_size=128", "model.num_heads=4", "model.ffn_size=512"),
    *("batch.examples=16", "optim.lr=3e-3", "optim.beta2=0.95", "trainer.max_steps=150", "data.val_fraction=0"),
    *("checkpoint.every_steps=50", "checkpoint.keep_last=3", "release.dtype=float32"),
)


def _first_weights(run: Path, out: Path) -> None:
    torch.manual_seed(0)
    OPTForCausalLM(OPTConfig.from_pretrained(run / "base")).save_pretrained(out)
    for name in ("galpaca.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(run / "base" / name, out / name)


def test_intervals_on_held_out_records_tell_the_three_apart(compared: Compared) -> None:
    [row] = compared.figures["records"]["loss"]
    assert row["records"] == 140
    for measure in ("nats_per_token", "bits_per_byte"):
        untrained, half, trained = (one[measure] for one in row["models"])
        assert trained["high"] < half["low"] < half["high"] < untrained["low"]
        assert half["difference"]["sign"] == trained["difference"]["sign"] == "lower"
        assert half["difference"]["high"] < 0
    assert compared.figures["records"]["tokens_are_comparable"]


def test_the_page_needs_nothing_and_shows_it_all(compared: Compared, open_page: Open) -> None:
    visit = open_page(compared.page)
    assert visit.requests == [compared.page.as_uri()]
    assert visit.errors == []
    page = visit.page
    assert page.title() == "untrained, half-trained and trained · galpaca compare"
    assert page.locator("#loss table").first.locator("tbody tr").count() == 1
    assert page.locator("#lengths table").first.locator("tbody tr").count() == 3
    assert page.locator(".card .value").all_inner_texts()[0].endswith("nats per token")
    assert page.locator("#answers .asked").count() == 3
    assert page.locator(".asked .input").inner_text() == EVIL
    assert page.locator("img").count() == 0


def test_measures_and_categories_are_chosen(compared: Compared, open_page: Open) -> None:
    visit = open_page(compared.page)
    page = visit.page
    page.get_by_text("bits per byte", exact=True).first.click()
    assert page.locator("[data-measure=bits_per_byte]").is_visible()
    assert page.locator("[data-measure=nats_per_token]").is_hidden()
    page.locator(".chips label", has_text="text").click()
    assert page.locator(".asked:visible").count() == 1
    assert page.locator("#shown").inner_text() == "1 of 3 prompts"
    page.locator(".chips label", has_text="all").click()
    page.locator("#differ").check()
    assert page.locator(".asked:visible").count() == sum(
        len({answer["answer"] for answer in question["answers"]}) > 1 for question in compared.figures["questions"]
    )
    assert visit.errors == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_everyone_can_read_it(compared: Compared, open_page: Open, width: int, dark: bool) -> None:
    """On a phone, in the dark, by keyboard and with a screen reader."""
    visit = open_page(compared.page, width=width, dark=dark)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.errors == []
    assert visit.inaccessible() == []
