"""An answer is its prompt's alone: neither neighbours nor padding nor the order of prompts change it."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Train

from galpaca.data.prompts import load_template
from galpaca.data.records import Record
from galpaca.errors import InputError, InputErrors
from galpaca.inference.answer import answer, answer_batches, wanted
from galpaca.inference.loading import Loaded, load
from galpaca.inference.sampling import AnswerId, SeededSampling
from galpaca.inference.settings import Settings
from galpaca.inference.stream import Stream

QUESTIONS = [
    Record.of("Name a gas."),
    Record.of("What is the chemical symbol of the element?", "Sodium"),
    Record.of("Identify the compound from its SMILES string.", "[START_SMILES]CC(=O)O[END_SMILES]"),
    Record.of("Explain why the sky is blue, and why the evening sky is red, in one sentence of your own."),
    Record.of("Is water wet?", "Think of ice, of steam, of rain and of the sea, and of a single molecule."),
]
GREEDY = Settings(max_new_tokens=24)
DRAWN = Settings(max_new_tokens=24, temperature=1.0, top_p=0.95, top_k=200, repetition_penalty=1.2, seed=5)


@pytest.fixture(scope="module")
def loaded(run: Path) -> Loaded:
    return load(str(run))


@pytest.mark.parametrize("settings", [GREEDY, DRAWN, replace(GREEDY, repetition_penalty=1.5)])
def test_batched_equals_alone(loaded: Loaded, settings: Settings) -> None:
    together = answer(loaded, QUESTIONS, settings, batch_size=5)
    assert len({one.prompt_tokens for one in together}) == 5, "of five lengths, so four are padded"
    assert together == answer(loaded, QUESTIONS, settings, batch_size=1)
    assert [one.answer_id.prompt for one in together] == [0, 1, 2, 3, 4]


def test_logits_of_a_padded_row_are_those_of_the_row_alone(loaded: Loaded) -> None:
    short, long = sorted(loaded.prompt_ids(QUESTIONS), key=len)[:: len(QUESTIONS) - 1]
    gap = len(long) - len(short)
    ids = torch.tensor([[loaded.tokenizer.pad_id] * gap + short, long])
    mask = torch.tensor([[0] * gap + [1] * len(short), [1] * len(long)])
    with torch.inference_mode():
        padded = loaded.model(ids, attention_mask=mask).logits[0, gap:]
        alone = loaded.model(torch.tensor([short])).logits[0]
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-5)


def test_the_same_as_generate_of_transformers(loaded: Loaded, run: Path) -> None:
    from transformers import AutoTokenizer, OPTForCausalLM

    model: Any = OPTForCausalLM.from_pretrained(run / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    instruction = QUESTIONS[0].turns[0].instruction
    prompt = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        f"\n\n### Instruction:\n{instruction}\n\n### Response:"
    )
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)
    [one] = answer(loaded, [Record.of(instruction)], GREEDY)
    assert one.prompt_tokens == ids.shape[1]
    assert one.text == tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True)


class TestDraws:
    def test_a_seed_and_a_number_decide(self, loaded: Loaded) -> None:
        """One stream for a whole batch made an answer depend on its neighbours and on the batch's size."""
        whole = answer(loaded, QUESTIONS, replace(DRAWN, num_samples=3), batch_size=15)
        assert len({(one.answer_id, one.text) for one in whole}) == 15
        requested = [one for one in wanted(loaded.prompt_ids(QUESTIONS), 3) if one.answer_id in ((3, 2), (1, 0))]
        [few] = answer_batches(loaded, requested, DRAWN, 2)
        assert {one.answer_id: one.text for one in few}.items() <= {one.answer_id: one.text for one in whole}.items()

    def test_another_seed_another_answer(self, loaded: Loaded) -> None:
        texts = {answer(loaded, QUESTIONS[:1], replace(DRAWN, seed=seed))[0].text for seed in range(4)}
        assert len(texts) == 4

    def test_draws_have_the_probabilities_of_the_logits(self) -> None:
        rows = 20_000
        draw = SeededSampling(1, [AnswerId(index, 0) for index in range(rows)])
        logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0, -torch.inf])
        chosen = draw(torch.zeros(rows, 1, dtype=torch.long), logits.expand(rows, 5)).argmax(-1)
        found = torch.bincount(chosen, minlength=5) / rows
        torch.testing.assert_close(found, logits.softmax(-1), rtol=0, atol=0.015)  # four standard deviations
        assert found[2] == found[4] == 0

    def test_the_largest_draw_takes_a_token_that_has_probability(self, monkeypatch: pytest.MonkeyPatch) -> None:
        draw = SeededSampling(1, [AnswerId(0, 0)])
        monkeypatch.setattr(draw._streams[0], "getrandbits", lambda bits: 2**bits - 1)
        scores = torch.full((1, 50_000), 0.1)
        scores[0, 25_000:] = -torch.inf
        assert draw(torch.zeros(1, 1), scores).argmax() == 24_999


class TestEnds:
    """A model that is made to say what the test wants."""

    @pytest.fixture
    def saying(self, loaded: Loaded) -> Any:
        def saying(text: str, *after: int) -> Loaded:
            from transformers import LogitsProcessor, LogitsProcessorList

            ids = [*loaded.tokenizer.encode([loaded.tokenizer.mark(text)])[0], *after]

            class Says(LogitsProcessor):
                def __init__(self) -> None:
                    self.at = 0

                def __call__(self, input_ids: Any, scores: Any) -> Any:
                    said = torch.full_like(scores, -torch.inf)
                    said[:, ids[min(self.at, len(ids) - 1)]] = 0.0
                    self.at += 1
                    return said

            class Model:
                config, device = loaded.model.config, loaded.model.device

                def generate(self, *args: Any, logits_processor: Any, **further: Any) -> Any:
                    chain = LogitsProcessorList([*logits_processor, Says()])
                    return loaded.model.generate(*args, logits_processor=chain, **further)

            return replace(loaded, model=Model())

        return saying

    def test_it_stops_at_the_end_token(self, saying: Any, loaded: Loaded) -> None:
        [one] = answer(saying("Neon.", loaded.tokenizer.eos_id, 77, 78), QUESTIONS[:1], GREEDY)
        assert (one.text, one.finish) == ("Neon.", "end")
        assert one.answer_tokens == len(loaded.tokenizer.encode(["Neon."])[0])

    def test_what_science_marks_stays(self, saying: Any, loaded: Loaded) -> None:
        text = "<work>\n1 + 1\n</work> [START_REF] A, B[END_REF] [START_SMILES]C=O[END_SMILES]"
        settings = replace(GREEDY, max_new_tokens=200)
        model = saying(text, loaded.tokenizer.eos_id)
        assert answer(model, QUESTIONS[:1], settings)[0].text == text
        stream = Stream(saying(text, loaded.tokenizer.eos_id), QUESTIONS[0], settings)
        assert "".join(stream) == text

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("10[START_SUP]-3[END_SUP] mol of H[START_SUB]2[END_SUB]O", "10⁻³ mol of H₂O"),
            ("x[START_SUP]2", "x[START_SUP]2"),
        ],
    )
    def test_scripts_are_shown_as_unicode(self, text: str, shown: str, saying: Any, loaded: Loaded) -> None:
        """Piece by piece, too: what stands before an end tag is not shown before it."""
        settings = replace(GREEDY, max_new_tokens=200)
        model = replace(saying(text, loaded.tokenizer.eos_id), scripts="galactica")
        assert answer(model, QUESTIONS[:1], settings)[0].text == shown
        model = replace(saying(text, loaded.tokenizer.eos_id), scripts="galactica")
        assert "".join(Stream(model, QUESTIONS[0], settings)) == shown

    def test_cut_by_length(self, saying: Any) -> None:
        [one] = answer(saying("one two three"), QUESTIONS[:1], replace(GREEDY, max_new_tokens=2))
        assert (one.answer_tokens, one.finish) == (2, "length")

    def test_cut_by_positions(self, loaded: Loaded, saying: Any) -> None:
        """Beyond its positions, OPT ends in a bare IndexError; and the short neighbour was cut along with the long."""
        assert loaded.positions is not None
        words = loaded.positions
        while len(loaded.prompt_ids([Record.of(" a" * words)])[0]) > loaded.positions - 3:
            words -= 1
        long = Record.of(" a" * words)
        [room] = [loaded.positions - len(ids) for ids in loaded.prompt_ids([long])]
        found = answer(saying("one two three"), [QUESTIONS[0], long], replace(GREEDY, max_new_tokens=8), batch_size=2)
        assert [(one.answer_tokens, one.finish) for one in found] == [(8, "length"), (room, "positions")]

    def test_a_stream_stops_on_request(self, saying: Any) -> None:
        stop = threading.Event()
        stream = Stream(
            saying("one two three four five " * 20), QUESTIONS[0], replace(GREEDY, max_new_tokens=90), stop=stop
        )
        for _ in stream:
            stop.set()
        assert stream.answer is not None
        assert stream.answer.finish == "stopped"
        assert stream.answer.answer_tokens < 60


def test_a_stream_is_the_answer(loaded: Loaded) -> None:
    for settings in (GREEDY, DRAWN):
        stream = Stream(loaded, QUESTIONS[0], settings)
        text = "".join(stream)
        assert stream.answer == answer(loaded, QUESTIONS[:1], settings)[0]
        assert text == stream.answer.text


def test_prompts_without_room_are_reported_all_at_once(loaded: Loaded) -> None:
    few = replace(loaded, positions=60)
    with pytest.raises(InputErrors) as caught:
        answer(few, QUESTIONS, GREEDY)
    message = [(problem.where, problem.what) for problem in caught.value.problems]
    lengths = [len(ids) for ids in loaded.prompt_ids(QUESTIONS)]
    assert [where for where, _ in message] == [f"question {i}" for i, n in enumerate(lengths, start=1) if n >= 60]
    assert len(message) > 1
    assert "the context length, answer included, is 60" in message[0][1]


def test_a_template_comes_from_the_folder(train: Train, tmp_path: Path) -> None:
    assert train("data.template=science").returncode == 0
    loaded = load(str(tmp_path / "runs" / "test"))
    text = loaded.tokenizer.decode(loaded.prompt_ids([Record.of("Name a gas.")])[0])
    assert text == load_template("science").prompt("Name a gas.")
    assert text.endswith("### Markdown and LaTeX Response:")
    other = load(str(tmp_path / "runs" / "test"), template="alpaca")
    assert other.fingerprint != loaded.fingerprint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(max_new_tokens=0), ["--max-new-tokens"]),
        (Settings(temperature=-1), ["--temperature"]),
        (Settings(temperature=float("nan")), ["--temperature"]),
        (Settings(temperature=1, top_p=0), ["--top-p"]),
        (Settings(temperature=1, top_p=1.1, top_k=-1), ["--top-p", "--top-k"]),
        (Settings(repetition_penalty=0, num_samples=0), ["--repetition-penalty", "--samples"]),
        (Settings(top_p=0.9, top_k=3, num_samples=2), ["--top-p", "--top-k", "--samples"]),
    ],
)
def test_settings_that_make_no_sense(settings: Settings, message: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        settings.check()
    problems = caught.value.problems if isinstance(caught.value, InputErrors) else (caught.value,)
    assert [problem.where for problem in problems] == message
