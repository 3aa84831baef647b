"""A run that tunes with its tokenizer's chat template: what is trained is released, and generated from."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_tokenizers import LLAMA3, chat_tokenizer, save_chat_tokenizer
from conftest import MadeOnce, Started, Train, command, completed
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, GenerationConfig

from galpaca.cli import main
from galpaca.data.prompts import find_template
from galpaca.data.records import Record, Turn
from galpaca.data.tokenizer import Tokenizer
from galpaca.errors import InputError
from galpaca.inference.answer import answer
from galpaca.inference.any_model import load_any
from galpaca.inference.harness import harness_model
from galpaca.inference.loading import Loaded, load
from galpaca.inference.settings import Settings
from galpaca.inference.stream import Stream

# <|eot_id|>; <eos>, which only the generation settings name; and the tokenizer's own, <|end_of_text|>
END, LISTED, OTHER = 8, 2, 5
TALK = Record((Turn("a the", "", "he"), Turn("c", "", "")), "Be brief.")
GIVEN = ("data.template=chat_template", "data.max_length=400", "model.max_positions=512", "trainer.max_steps=2")


def tokenizer_of(folder: Path) -> Path:
    save_chat_tokenizer(folder, LLAMA3, "<|end_of_text|>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [LISTED, END]}))
    return folder


@pytest.fixture(scope="module")
def chat_run(made_once: MadeOnce, server: str) -> Path:
    """A finished run on single questions and conversations."""

    def make(folder: Path) -> None:
        rows: list[dict[str, Any]] = [
            {"messages": [{"role": "system", "content": f"Be brief {number}."}, *talk(number)]} for number in range(16)
        ]
        records = folder / "records.jsonl"
        records.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        line = command(folder, tokenizer_of(folder / "tokenizer"), records, *GIVEN, "samples.prompts=held_out")
        done = completed(Started(server, line, folder))
        assert done.returncode == 0, done.stderr

    return made_once("chat_run", make) / "runs" / "test"


def talk(number: int) -> list[dict[str, str]]:
    found = []
    for turn in range(2):
        found.append({"role": "user", "content": f" the question {number} {turn}\n"})
        found.append({"role": "assistant", "content": f"he says {number + turn}"})
    return found


@pytest.fixture(scope="module")
def loaded(chat_run: Path) -> Loaded:
    return load(str(chat_run))


def likeliest(loaded: Loaded, token: int) -> None:
    """Makes one token the likeliest, whatever came before."""
    hidden, size = loaded.model.config.hidden_size, loaded.model.config.vocab_size
    with torch.no_grad():
        loaded.model.lm_head = torch.nn.Linear(hidden, size)
        loaded.model.lm_head.weight.zero_()
        loaded.model.lm_head.bias.copy_(torch.eye(size)[token] * 9)


def test_the_released_tokenizer_writes_the_text_of_the_training(chat_run: Path, loaded: Loaded) -> None:
    """With another program's function, on any day."""
    released = AutoTokenizer.from_pretrained(chat_run / "model")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a the"},
        {"role": "assistant", "content": "he"},
        {"role": "user", "content": "c"},
    ]
    given: Any = released.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert loaded.keeps_turns
    assert loaded.prompt_ids([TALK]) == [list(given["input_ids"])]
    assert "Today Date: 26 Jul 2024" in loaded.prompt_text(given["input_ids"])
    assert load_any(str(chat_run)).prompt_ids([TALK]) == loaded.prompt_ids([TALK])


def test_what_was_trained_on_is_what_is_generated_from(chat_run: Path, loaded: Loaded) -> None:
    """The examples of the cache, as ids."""
    [folder] = [one.parent for one in (chat_run.parent / ".cache" / "encoded").glob("*/meta.json")]
    tokens, offsets = (np.load(folder / f"{name}.npy") for name in ("tokens", "offsets"))
    first = tokens[: offsets[1]].tolist()
    turns = (Turn(" the question 0 0\n", "", "he says 0"), Turn(" the question 0 1\n", "", ""))
    [prompt] = loaded.prompt_ids([Record(turns, "Be brief 0.")])
    assert first[: len(prompt)] == prompt
    assert loaded.tokenizer.whole_text(first[len(prompt) :]) == "he says 1<|eot_id|>"


def test_all_ends_are_released(chat_run: Path) -> None:
    settings = GenerationConfig.from_pretrained(chat_run / "model")
    eos = AutoTokenizer.from_pretrained(chat_run / "model").eos_token_id
    assert settings.eos_token_id == [END, eos, LISTED]
    prompts = json.loads((chat_run / "model" / "galpaca.json").read_text(encoding="utf-8"))
    assert prompts["end_ids"] == [END, eos, LISTED]
    assert prompts["template"]["name"] == "chat_template"


@pytest.mark.parametrize("token", [END, 5, LISTED])
def test_each_of_them_ends_an_answer(chat_run: Path, token: int) -> None:
    for name in (str(chat_run), f"{chat_run}@2"):
        one = load(name)
        likeliest(one, token)
        [given] = answer(one, [Record.of("a")], Settings(max_new_tokens=5))
        assert (given.finish, given.answer_tokens, given.text) == ("end", 0, "")


def test_no_end_is_shown_while_it_is_written(chat_run: Path) -> None:
    one = load(str(chat_run))
    likeliest(one, END)
    assert "".join(Stream(one, Record.of("a"), Settings(max_new_tokens=5))) == ""


@pytest.mark.parametrize("style", ["llama3", "chatml"])
def test_lm_eval_reads_the_same_prompt(loaded: Loaded, tmp_path: Path, style: str) -> None:
    """Without a second first token; and with none where the template writes none, though the tokenizer would."""
    pytest.importorskip("lm_eval")
    tokenizer = chat_tokenizer(tmp_path, style)
    one = replace(loaded, tokenizer=tokenizer, template=find_template("chat_template").bound(tokenizer))
    model = harness_model(one, 1)
    text = model.apply_chat_template([{"role": "user", "content": "a the"}])
    [prompt] = one.prompt_ids([Record.of("a the")])
    assert prompt.count(0) == (style == "llama3")
    assert model.tok_encode(text) == prompt
    ids, _ = model.tok_batch_encode([text])
    assert ids.tolist() == [prompt]
    assert model.tok_decode([*prompt[-1:], END, 40]) == one.encoder.text_of(prompt[-1:])


@pytest.mark.parametrize("template", ["chat_template", "alpaca"])
def test_lm_eval_reads_no_end_behind_a_prompt(loaded: Loaded, tmp_path: Path, template: str) -> None:
    """Some tokenizers put one behind a text: models answered behind the end of theirs, and of a pair of texts, a token
    of the context was scored in the place of the continuation's first.
    """
    pytest.importorskip("lm_eval")
    tokenizer = chat_tokenizer(tmp_path, "llama3")
    around = TemplateProcessing(single="<s> $A <eos>", special_tokens=[("<s>", 0), ("<eos>", LISTED)])
    tokenizer.hf.backend_tokenizer.post_processor = around
    tokenizer = Tokenizer(tokenizer.hf, "here")
    one = replace(loaded, tokenizer=tokenizer, template=find_template(template).bound(tokenizer))
    model = harness_model(one, 1)
    text = model.apply_chat_template([{"role": "user", "content": "a the"}])
    [prompt] = one.prompt_ids([Record.of("a the")])
    assert LISTED not in prompt
    assert model.tok_encode(text) == prompt
    [answered] = one.encoder.encode([Record.of("a the", "", "he")], 1_000)
    assert model._encode_pair(text, "he") == (prompt, answered.ids[len(prompt) : -1])
    short = model.tok_encode("a", add_special_tokens=False)
    ids, mask = model.tok_batch_encode([text, "a"], left_truncate_len=4)
    assert ids.tolist() == [prompt[-4:], [tokenizer.pad_id] * (3 - len(short)) + [0, *short]]
    assert mask.tolist() == [[1] * 4, [0, 0, 1, 1]]
    before, rest = model._encode_pair("a the", " he")
    assert (before[0], len(rest)) == (0, len(model.tok_encode(" he", add_special_tokens=False)))


def test_a_changed_template_is_refused(chat_run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(chat_run / "model", tmp_path / "model")
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text(encoding="utf-8").replace("Today", "This"), encoding="utf-8")
    with pytest.raises(InputError, match="not the one of the training"):
        load(str(folder))


def test_the_cards_question_has_its_input_in_the_message(chat_run: Path) -> None:
    """The tokenizer's template knows no key ``input``: it was lost."""
    card = (chat_run / "model" / "README.md").read_text(encoding="utf-8")
    assert '"input": input' not in card
    assert "join(filter(None, (instruction, input)))" in card


def test_the_paragraph_on_methods_names_it(chat_run: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "galpaca", "cite", str(chat_run)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the chat template of the model's tokenizer, which took 2024-07-26 for today" in done.stdout


def test_the_samples_are_questions_of_the_records(chat_run: Path) -> None:
    lines = (chat_run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert all("the question" in json.loads(line)["instruction"] for line in lines)
    assert lines


def test_another_date_is_another_recipe(train: Train, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "tokenizer")
    given = (*GIVEN, f"model.tokenizer={tokenizer}", "trainer.max_steps=1")
    assert train(*given).returncode == 0
    changed = train(*given, "data.template_date=2025-01-02", "trainer.max_steps=2")
    assert changed.returncode == 2
    assert "data.template_date: 2024-07-26 -> 2025-01-02" in changed.stderr


def test_a_model_is_asked_on_another_day(chat_run: Path, tmp_path: Path) -> None:
    """Models of other origin were always asked on one."""
    stranger = shutil.copytree(chat_run / "model", tmp_path / "stranger")
    (stranger / "galpaca.json").unlink()
    for name in (str(chat_run), str(stranger)):
        for date, written in ((None, "26 Jul 2024"), ("2025-01-02", "02 Jan 2025")):
            one = load_any(name, template_date=date)
            [prompt] = one.prompt_ids([Record.of("a the")])
            assert f"Today Date: {written}\n" in one.prompt_text(prompt)
    assert load_any(name, template_date="2025-01-02").fingerprint != load_any(name).fingerprint


def test_the_day_is_an_option_of_all_commands_that_load_models(
    chat_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = str(chat_run), str(tmp_path / "a.html")
    records = tmp_path / "records.json"
    records.write_text('[{"instruction": "a", "output": "b"}]', encoding="utf-8")
    for line in (
        ["generate", model, "--instruction", "a"],
        ["chat", model],
        ["compare", model, model, "--out", out],
        ["evaluate", model, "--records", str(records)],
    ):
        assert main([*line, "--template-date", "today"]) == 2
        assert "--template-date: must be a date, got 'today'" in capsys.readouterr().err
    for date in (None, "2025-01-02"):
        given = [] if date is None else ["--template-date", date]
        assert main(["evaluate", model, "--records", str(records), "--out", str(tmp_path / "out"), *given]) == 0
    first, second = [json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "out").glob("*.json")]
    assert first["rows"][0]["loss"] != second["rows"][0]["loss"]


def test_a_tokenizer_without_one_is_refused(train: Train, tokenizer_folder: Path) -> None:
    done = train("data.template=chat_template", f"model.tokenizer={tokenizer_folder}")
    assert done.returncode == 2
    assert "the tokenizer has no chat template" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def chat_adapter(chat_run: Path, made_once: MadeOnce, server: str) -> Path:
    """An adapter of a base whose own settings name another end than the template writes."""

    def make(folder: Path) -> None:
        base = shutil.copytree(chat_run / "model", folder / "base")
        (base / "generation_config.json").write_text(json.dumps({"eos_token_id": OTHER}))
        records = folder / "records.jsonl"
        records.write_text('{"instruction": "a the", "output": "he"}\n' * 8, encoding="utf-8")
        given = (*GIVEN, f"model.path={base}", "model.config=null", "tuning=lora")
        done = completed(Started(server, command(folder, base, records, *given), folder))
        assert done.returncode == 0, done.stderr

    return made_once("chat_adapter", make) / "runs" / "test" / "adapter"


def test_a_released_adapter_names_all_ends(chat_adapter: Path) -> None:
    assert GenerationConfig.from_pretrained(chat_adapter).eos_token_id == [END, OTHER]
    assert load(str(chat_adapter)).ends == (END, OTHER)


def test_its_cards_script_ends_answers_where_the_training_did(chat_adapter: Path) -> None:
    """PEFT takes the settings of the base, which knows another end: answers went on behind theirs."""
    card = (chat_adapter / "README.md").read_text(encoding="utf-8")
    script = card.partition("```python\n")[2].partition("```")[0].partition("\nprint(")[0]
    names: dict[str, Any] = {}
    exec(script.replace("torch_dtype=torch.float16", "torch_dtype=torch.float32"), names)
    assert names["model"].generation_config.eos_token_id == OTHER
    with torch.no_grad():
        head = torch.nn.Linear(names["model"].config.hidden_size, names["model"].config.vocab_size)
        head.weight.zero_()
        head.bias.copy_(torch.eye(len(head.bias))[END] * 9)
    names["model"].base_model.model.lm_head = head
    assert names["ask"]("a").endswith("<|eot_id|>")
    assert names["ask"]("a").count("<|eot_id|>") == 3, "of the system, of the question and of the answer"
