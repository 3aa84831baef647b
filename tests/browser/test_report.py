"""A report as its reader has it before them: drawn, quiet, without a network, on a phone, in the dark, by keyboard."""

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY, Started, command, completed

from browser.visits import Open, Visit
from galpaca.app.report import write_report

STEPS = 60
HOSTILE = (
    "</script><script>window.hacked = 1</script><img src='https://example.invalid/x.png' onerror='window.hacked = 2'>"
)

FORMULA = r"\[\int_0^1 x^2 \, dx = \frac{1}{3}\]"


@pytest.fixture(scope="module")
def runs(
    server: str, tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path, demo_records: list[dict[str, str]]
) -> list[Path]:
    """Two real runs, of which the second was resumed after a stop; the first was given a question as it trained."""
    folder = tmp_path_factory.mktemp("reported")
    records = folder / "records.json"
    records.write_text(json.dumps(demo_records[:100]), encoding="utf-8")
    common = (
        "trainer.max_epochs=50",
        "data.val_fraction=0.2",
        "trainer.val_every_steps=10",
        "checkpoint.every_steps=20",
    )

    def train(name: str, num_steps: int, *overrides: str) -> Path:
        given = (*common, f"trainer.max_steps={num_steps}", f"run.name={name}", *overrides)
        line = command(folder, tokenizer_folder, records, *given)
        done = completed(Started(server, line, folder))
        assert done.returncode == 0, done.stderr
        return folder / "runs" / name

    first = train("first", STEPS, "optim.lr=3e-3")
    train("second", 20, "optim.lr=1e-3")
    second = train("second", STEPS, "optim.lr=1e-3", "run.accept_changes=true")
    requested = {"category": "facts", "instruction": "What is entropy?", "input": HOSTILE}
    samples = [
        {**requested, "step": step, "answer": f"After {step} steps: {FORMULA} {HOSTILE}"} for step in (20, 40, 60)
    ]
    (first / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return [first, second]


@pytest.fixture(scope="module")
def page(runs: list[Path]) -> Path:
    """The one that the run itself has written, and then once more, with its answers."""
    assert (runs[0] / "report.html").is_file()
    return write_report([runs[0]])


@pytest.fixture(scope="module")
def overlay(runs: list[Path]) -> Path:
    return write_report(runs, runs[0].parent / "both.html")


INK = """canvas => {
    const { width, height } = canvas;
    const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    const counts = {};
    for (let i = 0; i < data.length; i += 4)
        if (data[i + 3] > 250) {
            const hex = "#" + [0, 1, 2].map(k => data[i + k].toString(16).padStart(2, "0")).join("");
            counts[hex] = (counts[hex] || 0) + 1;
        }
    return counts;
}"""


def ink(visit: Visit, chart: str) -> dict[str, int]:
    """How many dots a plot has of each colour."""
    counts: dict[str, int] = visit.page.eval_on_selector(f"#chart-{chart} canvas", INK)
    return counts


def colour(visit: Visit, name: str) -> str:
    value: str = visit.page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()")
    return value


def is_quiet(visit: Visit, page: Path) -> bool:
    return (visit.errors, visit.requests) == ([], [page.as_uri()])


def test_every_plot_is_drawn_and_nothing_is_requested(page: Path, open_page: Open) -> None:
    visit = open_page(page)
    charts = visit.page.eval_on_selector_all("figure.chart", "all => all.map(one => one.id.replace('chart-', ''))")
    assert {"loss", "lr", "grad-norm", "tokens-per-second", "peak-memory-bytes", "step-seconds"} < set(charts)
    assert {"split-0", "lengths", "targets"} < set(charts)
    for chart in charts:
        assert sum(ink(visit, chart).values()) > 300, f"{chart} is empty"
    assert ink(visit, "loss")[colour(visit, "c0")] > 100, "the smoothed line"
    assert ink(visit, "loss")[colour(visit, "c1")] > 20, "the validations"
    assert is_quiet(visit, page)


def test_the_summary_tells_what_the_run_was(page: Path, runs: list[Path], open_page: Open) -> None:
    visit = open_page(page)
    assert visit.page.text_content("h1") == "first"
    assert "complete" in str(visit.page.text_content("header .state"))
    cards = visit.page.eval_on_selector_all(".card", "all => all.map(one => one.innerText.split('\\n'))")
    message = {label: value for label, value, *_ in cards}
    assert message["steps"] == str(STEPS)
    final = json.loads((runs[0] / "run.json").read_text())["final"]
    assert float(message["loss"]) == pytest.approx(final["loss"], rel=1e-3)
    assert float(message["validation loss"]) == pytest.approx(final["val_loss"], rel=1e-3)
    head = dict(visit.page.eval_on_selector_all(".head div", "all => all.map(one => one.innerText.split('\\n'))"))
    assert "all parameters" in head["model"]
    assert head["data"].startswith("records.json, ")
    assert "8 examples a step, learning rate 0.003, cosine" in head["recipe"]
    assert head["machine"].startswith("1 x ")
    assert "in training steps, " in head["time"]
    assert head["time"].endswith("from start to end")
    text = visit.page.inner_text("main")
    for needed in ("target tokens lost to truncation", "torch", "config.yaml", "Checkpoints", "max_steps: 60"):
        assert needed in text


def test_two_runs_are_drawn_in_two_colours_and_a_resume_is_marked(
    overlay: Path, runs: list[Path], open_page: Open
) -> None:
    visit = open_page(overlay)
    found = ink(visit, "loss")
    assert found[colour(visit, "c0")] > 100
    assert found[colour(visit, "c1")] > 100
    differences = visit.page.inner_text("#runs")
    assert "optim.lr" in differences
    assert "0.003" in differences
    # The dashed line at step 20 is all there is of the second run's colour, high above the curves.
    mark = visit.page.evaluate("""() => {
        const canvas = document.querySelector("#chart-lr canvas"), context = canvas.getContext("2d");
        const own = getComputedStyle(document.documentElement).getPropertyValue("--c1").trim();
        const rows = new Set();
        const { width, height } = canvas, data = context.getImageData(0, 0, width, height).data;
        for (let y = 0; y < height / 4; y++) for (let x = 0; x < width; x++) {
            const at = 4 * (y * width + x);
            const hex = "#" + [0, 1, 2].map(k => data[at + k].toString(16).padStart(2, "0")).join("");
            if (hex === own) rows.add(y);
        }
        return rows.size;
    }""")
    assert mark > 5
    losses = [json.loads((run / "run.json").read_text())["final"]["val_loss"] for run in runs]
    best = runs[losses.index(min(losses))].name
    rows = visit.page.locator("#runs tbody").first.locator("tr th")
    assert rows.nth(0).inner_text() == f"{best} best"
    assert rows.nth(1).inner_text() == runs[losses.index(max(losses))].name
    labels = visit.page.eval_on_selector_all("#chart-loss .u-legend .u-label", "all => all.map(one => one.innerText)")
    assert "first smoothed:" in [label.replace("\xa0", " ") for label in labels] or "first smoothed" in labels, labels
    assert is_quiet(visit, overlay)


@pytest.mark.parametrize("which", ["page", "overlay"])
@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_sticks_out(which: str, dark: bool, page: Path, overlay: Path, open_page: Open) -> None:
    visit = open_page({"page": page, "overlay": overlay}[which], width=390, height=844, dark=dark)
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 390
    widths = visit.page.eval_on_selector_all(".uplot", "all => all.map(one => one.getBoundingClientRect().right)")
    assert max(widths) <= 390
    cells = "all => all.filter(one => one.getBoundingClientRect().right > innerWidth).map(one => one.outerHTML)"
    assert visit.page.eval_on_selector_all(".stacks tbody th, .stacks td", cells) == [], (
        "what is off the edge is not read"
    )
    visible = visit.page.locator("#checkpoints td[data-label='validation loss']").first
    assert "validation loss" in visible.evaluate("one => getComputedStyle(one, '::before').content")
    assert ink(visit, "loss")[colour(visit, "c0")] > 50


def test_in_the_dark_it_is_dark_and_follows_a_change(page: Path, open_page: Open) -> None:
    visit = open_page(page, dark=True)
    background = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    assert max(visit.page.evaluate(background)) < 40
    dark_ink = colour(visit, "c0")
    assert ink(visit, "loss")[dark_ink] > 100
    visit.page.emulate_media(color_scheme="light")
    assert min(visit.page.evaluate(background)) > 200
    assert dark_ink not in ink(visit, "loss")
    assert ink(visit, "loss")[colour(visit, "c0")] > 100


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_with_a_screen_reader_and_by_keyboard(
    page: Path, overlay: Path, open_page: Open, dark: bool
) -> None:
    assert open_page(page, dark=dark).inaccessible() == []
    assert open_page(overlay, dark=dark).inaccessible() == []


def test_arrow_keys_read_values_and_zoom(page: Path, open_page: Open) -> None:
    visit = open_page(page)
    plot = visit.page.locator("#chart-loss .plot")
    plot.focus()
    visit.page.keyboard.press("Home")
    message = visit.page.text_content("#chart-loss output")
    first = json.loads((page.parent / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert message is not None
    assert message.startswith("step: 1, each step: ")
    assert f"{first:.4f}"[:5] in message
    before = ink(visit, "loss")
    visit.page.keyboard.press("+")
    assert ink(visit, "loss") != before
    visit.page.keyboard.press("0")
    assert ink(visit, "loss") == before


def test_a_drag_zooms_and_a_double_click_shows_all(page: Path, open_page: Open) -> None:
    visit = open_page(page)
    before = ink(visit, "loss")
    box = visit.page.locator("#chart-loss .u-over").bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    visit.page.mouse.move(box["x"] + box["width"] * 0.3, y)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=5)
    visit.page.mouse.up()
    assert ink(visit, "loss") != before
    visit.page.locator("#chart-loss .u-over").dblclick()
    assert ink(visit, "loss") == before


def test_steps_become_tokens_and_hours(page: Path, open_page: Open) -> None:
    visit = open_page(page)
    final = json.loads((page.parent / "run.json").read_text())["final"]

    def at_end() -> tuple[str, object]:
        """Where the legend is without a cursor."""
        first = "#chart-loss .u-legend .u-series:first-child"
        value = visit.page.inner_text(f"{first} .u-value")
        return visit.page.inner_text(f"{first} .u-label"), float(value.replace(",", ""))

    assert at_end() == ("step", STEPS)
    visit.page.locator("label", has_text="tokens").first.click()
    assert at_end() == ("tokens", pytest.approx(final["tokens"], rel=1e-3))
    visit.page.locator("label", has_text="hours").click()
    assert at_end() == ("hours", pytest.approx(final["train_seconds"] / 3600, rel=0.01))
    assert is_quiet(visit, page)


def test_log_axis_and_each_step_can_be_switched(page: Path, open_page: Open) -> None:
    visit = open_page(page)
    before = ink(visit, "loss")
    visit.page.locator("#chart-loss .log").click()
    assert visit.page.get_attribute("#chart-loss .log", "aria-pressed") == "true"
    assert ink(visit, "loss") != before
    visit.page.locator("#each-step").uncheck()
    assert "each step" not in visit.page.inner_text("#chart-loss .u-legend")
    assert visit.errors == []


def test_formulas_of_answers_are_drawn_by_the_browser(page: Path, open_page: Open) -> None:
    visit = open_page(page)
    drawn = visit.page.locator("#answers .answer math mfrac").first
    box = drawn.bounding_box()
    assert box is not None
    assert box["height"] > 20, "a numerator above a denominator"
    assert is_quiet(visit, page)


def test_text_of_records_and_answers_stays_text(page: Path, open_page: Open) -> None:
    visit = open_page(page)
    assert visit.page.evaluate("window.hacked") is None
    assert HOSTILE in visit.page.inner_text("#answers")
    assert "After 20 steps" not in visit.page.inner_text("#answers")
    visit.page.locator("#answers summary").click()
    assert "After 20 steps" in visit.page.inner_text("#answers")
    assert is_quiet(visit, page)


def test_a_run_that_was_killed_in_a_line_is_drawn(runs: list[Path], tmp_path: Path, open_page: Open) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("run.json", "config.yaml"):
        (killed / name).write_bytes((runs[0] / name).read_bytes())
    (killed / "metrics.jsonl").write_bytes((runs[0] / "metrics.jsonl").read_bytes()[:5000])
    page = write_report([killed])
    visit = open_page(page)
    assert "complete" not in str(visit.page.text_content("header .state"))
    assert ink(visit, "loss")[colour(visit, "c0")] > 50
    assert is_quiet(visit, page)


def test_a_run_without_a_step_is_a_page_without_plots(tmp_path: Path, open_page: Open) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"id": "abc"}')
    page = write_report([tmp_path / "run"])
    visit = open_page(page)
    assert "There are no steps to plot" in visit.page.inner_text("#plots")
    assert is_quiet(visit, page)


def test_pictures_of_the_documentation_are_there() -> None:
    for name in ("report-light.png", "report-dark.png", "report-phone.png"):
        assert (REPOSITORY / "docs" / "images" / name).read_bytes()[:4] == b"\x89PNG"
