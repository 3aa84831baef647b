"""Models of other origin: prompted in their own words, their loss that of a plain computation."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from hub_downloads import lay_out
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from galpaca.data.encoding import RecordEncoder
from galpaca.data.prompts import load_template
from galpaca.data.records import Record
from galpaca.data.tokenizer import Tokenizer
from galpaca.errors import GalpacaError, InputError
from galpaca.inference.answer import answer
from galpaca.inference.any_model import OtherReader, PlainText, load_any, vocabulary_fingerprint
from galpaca.inference.hub import prompt_folder
from galpaca.inference.loading import fingerprint_of, load
from galpaca.inference.losses import record_losses
from galpaca.inference.settings import Settings

COMMIT = "0" * 40
WORDS = ["name", "a", "noble", "gas", ".", "the", "helium", "is", "neon", "water", "what"]
CHAT = "{% for m in messages %}<user>{{ m.content }}<turn>{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
RECORDS = [
    Record.of("name a gas", "", "helium"),
    Record.of("what is water", "the water", "water is a gas ."),
    Record.of("name a noble gas", "", "neon"),
]


def gpt2(folder: Path, chat_template: str | None, **special: str) -> Path:
    """A GPT-2 of random weights with a vocabulary of words."""
    tokens = ["<bos>", "<eos>", "<user>", "<turn>", "<bot>", "<unk>", *WORDS]
    backend = Backend(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(tokens[:5])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **special)
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokens), n_positions=64, n_embd=16, n_layer=2, n_head=2)
    config.eos_token_id, config.bos_token_id = 1, 0
    model = GPT2LMHeadModel(config)
    model.generation_config.eos_token_id = [1, 3]
    model.save_pretrained(folder)
    return folder


def plain_loss(folder: Path, prompt: list[str], target: list[str]) -> float:
    """Token after token, without padding or batches."""
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    vocabulary = PreTrainedTokenizerFast.from_pretrained(folder).get_vocab()
    ids = [vocabulary[word] for word in [*prompt, *target]]
    with torch.no_grad():
        log_likelihood = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return -sum(float(log_likelihood[place - 1, ids[place]]) for place in range(len(prompt), len(ids)))


def test_a_chat_template_is_used_as_it_is(tmp_path: Path) -> None:
    folder = gpt2(tmp_path / "chat", CHAT, eos_token="<eos>", bos_token="<bos>")
    loaded = load_any(str(folder))
    assert loaded.template.prompts(Record.of("name a gas", "helium")) == ["<user>name a gas\n\nhelium<turn><bot>"]
    losses = record_losses(loaded, RECORDS[:1])
    prompt = ["<user>", "name", "a", "gas", "<turn>", "<bot>"]
    assert losses[0].num_targets == 2
    # The turn's end is what the model writes; the end of the text, which never follows it, made each record harder.
    assert losses[0].nll == pytest.approx(plain_loss(folder, prompt, ["helium", "<turn>"]), abs=1e-4)


def test_a_template_without_a_token_behind_an_answer_leaves_the_end_of_the_text(tmp_path: Path) -> None:
    template = CHAT.replace("<turn>", "{% if m.role == 'user' %}<turn>{% endif %}")
    loaded = load_any(str(gpt2(tmp_path / "chat", template, eos_token="<eos>")))
    assert loaded.tokenizer.eos_id == 1


def test_a_template_that_knows_no_answer_can_be_used(tmp_path: Path) -> None:
    template = "{% if messages|length > 1 %}{{ raise_exception('one turn') }}{% endif %}" + CHAT
    loaded = load_any(str(gpt2(tmp_path / "chat", template, eos_token="<eos>")))
    assert loaded.tokenizer.eos_id == 1
    assert loaded.template.prompts(Record.of("name a gas")) == ["<user>name a gas<turn><bot>"]


@pytest.mark.parametrize("name", ["you/my..model", "you/-model-"])
def test_what_is_no_id_of_the_hub_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="Hub"):
        load_any(name)


def test_its_other_ends_end_an_answer(tmp_path: Path) -> None:
    folder = gpt2(tmp_path / "chat", CHAT, eos_token="<eos>")
    loaded = load_any(str(folder))
    assert loaded.further_ends == (1, 3)
    with torch.no_grad():  # <turn> is now the likeliest token, whatever came before
        loaded.model.lm_head = torch.nn.Linear(16, len(WORDS) + 6)
        loaded.model.lm_head.weight.zero_()
        loaded.model.lm_head.bias.copy_(torch.eye(len(WORDS) + 6)[3] * 9)
    [given] = answer(loaded, [Record.of("name a gas")], Settings(max_new_tokens=5))
    assert (given.finish, given.answer_tokens) == ("end", 0)


def test_without_a_template_it_is_prompted_in_plain_text(tmp_path: Path) -> None:
    folder = gpt2(tmp_path / "plain", None, eos_token="<eos>", bos_token="<bos>")
    loaded = load_any(str(folder))
    assert loaded.template.name == "plain text"
    assert loaded.template.prompts(Record.of("name a gas", "helium")) == ["name a gas\n\nhelium\n"]
    [loss] = record_losses(loaded, RECORDS[:1])
    assert loss.nll == pytest.approx(plain_loss(folder, ["name", "a", "gas"], ["helium", "<eos>"]), abs=1e-4)
    assert load_any(str(folder), template="alpaca").template == load_template("alpaca")


def test_batches_change_no_loss(tmp_path: Path) -> None:
    loaded = load_any(str(gpt2(tmp_path / "chat", CHAT, eos_token="<eos>")))
    together = record_losses(loaded, RECORDS)
    alone = [record_losses(loaded, [record])[0] for record in RECORDS]
    assert [one.nll for one in together] == pytest.approx([one.nll for one in alone], abs=1e-4)
    assert record_losses(loaded, RECORDS, batch_tokens=1) == alone


def test_what_is_cut_is_said(tmp_path: Path) -> None:
    loaded = load_any(str(gpt2(tmp_path / "chat", CHAT, eos_token="<eos>")))
    # 6, 8 and 7 tokens of prompts; 2, 6 and 2 of answers.
    losses = record_losses(loaded, RECORDS, max_length=9)
    assert [one.is_truncated for one in losses] == [False, True, False]
    assert [one.num_targets for one in losses] == [2, 1, 2]
    assert record_losses(loaded, RECORDS, max_length=2)[0][1:] == (0, True)


def test_a_released_folder_is_prompted_as_by_generate(run: Path) -> None:
    ours, generates = load_any(str(run)), load(str(run))
    assert ours.template == generates.template
    assert ours.fingerprint == generates.fingerprint
    assert isinstance(ours.tokenizer, Tokenizer)


def test_an_untuned_model_splits_sequences_and_has_the_vocabulary_of_the_tuned_one(run: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(run / "model", base)
    for name in ("galpaca.json", "chat_template.jinja"):  # GALACTICA has neither
        (base / name).unlink()
    loaded = load_any(str(base))
    assert isinstance(loaded.tokenizer, Tokenizer)
    assert loaded.tokenizer.splits_sequences
    assert loaded.template.name == "plain text"
    assert vocabulary_fingerprint(loaded.tokenizer) == vocabulary_fingerprint(load_any(str(run)).tokenizer)
    assert loaded.fingerprint != load_any(str(run)).fingerprint


def test_losses_are_finite_numbers_of_a_sensible_size(run: Path) -> None:
    losses = record_losses(load_any(str(run)), RECORDS)
    vocabulary = json.loads((run / "model" / "config.json").read_text())["vocab_size"]
    for loss in losses:
        assert loss.nll / loss.num_targets == pytest.approx(math.log(vocabulary), rel=0.2)


def test_a_plain_prompt_is_the_head_of_its_record_in_gpt2s_tokenizer(tmp_path: Path) -> None:
    """Two newlines are one token before nothing and two before a text: a token of the prompt was a target."""
    backend = Backend(models.BPE({"Ċ": 0, "ĊĊ": 1, "a": 2, "b": 3, "<eos>": 4}, [("Ċ", "Ċ")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    reader, prompt_format = OtherReader(hf, "here"), PlainText()
    [encoding] = RecordEncoder(reader, prompt_format).encode([Record.of("a", "", "b")], 99)
    [(start, _)] = encoding.spans
    assert encoding.ids[start:] == [3, 4]
    assert list(encoding.ids[:start]) == reader.encode(prompt_format.prompts(Record.of("a")))[0]


def test_a_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    """It was drawn, compared, and put into the model's card."""
    loaded = load_any(str(gpt2(tmp_path / "plain", None, eos_token="<eos>")))
    with torch.no_grad():
        loaded.model.transformer.h[0].mlp.c_fc.bias.fill_(float("nan"))
    with pytest.raises(GalpacaError, match="3 of 3 records have no finite loss in float32"):
        record_losses(loaded, RECORDS)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_other_weights_are_another_model(tmp_path: Path, name: str) -> None:
    """Answers of the weights before were taken for theirs, where a file was a .bin, or only its middle had changed."""
    (tmp_path / "config.json").write_text("{}")
    weights = np.zeros(64 * 2**20, np.uint8)
    fingerprints = set()
    for start in (None, 5 * 2**20, 40 * 2**20):
        if start is not None:
            weights[start : start + 2**20] = 1  # a tensor
        weights.tofile(tmp_path / name)
        fingerprints.add(
            fingerprint_of(str(tmp_path), [tmp_path], GPT2LMHeadModel(GPT2Config(n_embd=2, n_layer=1, n_head=1)))
        )
    assert len(fingerprints) == 3


def test_another_commit_of_the_hub_is_another_model(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """transformers 5 keeps no commit in the configuration: answers of the one before were taken for the new one's."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    fingerprints = set()
    for commit in (COMMIT, "1" * 40):
        lay_out(tmp_path, "you/mine", run / "model", commit)
        fingerprints.add(load("you/mine").fingerprint)
    assert len(fingerprints) == 2


def test_a_model_of_the_hub_is_prompted_in_its_own_template(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A model that had been pushed was prompted in plain text, and its loss was that of a stranger."""
    cache = tmp_path / "models--you--mine"
    shutil.copytree(run / "model", cache / "snapshots" / COMMIT)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = prompt_folder("you/mine")
    assert folder is not None
    assert load_any("you/mine").template == load_any(str(run)).template == load("you/mine").template

    for name in ("galpaca.json", "chat_template.jinja"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="cannot find out whether the model has its own prompt template"):
        load_any("you/mine")
    (cache / ".no_exist" / COMMIT).mkdir(parents=True)
    (cache / ".no_exist" / COMMIT / "galpaca.json").touch()
    assert load_any("you/mine").template.name == "plain text"


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no eos_token"):
        load_any(str(gpt2(tmp_path / "endless", None)))


def test_a_chat_template_that_fails_is_refused_before_the_weights_are_read(tmp_path: Path) -> None:
    folder = gpt2(tmp_path / "broken", "{{ messages[7].content.nothing }}", eos_token="<eos>")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot use the tokenizer's chat template"):
        load_any(str(folder))
