"""A tokenizer's own template: which are taken, which are refused, what is pinned, and what is said of records."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from chat_tokenizers import CHATML, DEEPSEEK, GEMMA, LLAMA3, MISTRAL, QWEN3, STYLES, save_chat_tokenizer

from galpaca.data.asked import asked
from galpaca.data.encoded_set import encode
from galpaca.data.encoding import RecordEncoder
from galpaca.data.pinned_date import TEMPLATE_DATE, parsed_date, pinned
from galpaca.data.policies import EncodingPolicy
from galpaca.data.prompt_file import PROMPT_FILE, PromptFile
from galpaca.data.prompts import find_template, load_template
from galpaca.data.records import Record, RecordSet, Turn
from galpaca.data.sources.table import Places
from galpaca.data.spec import DataSpec
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.errors import InputError, InputErrors
from galpaca.release.chat_template import chat_template

Made = Callable[..., Tokenizer]
TALK = Record((Turn("a", "b", "the"), Turn("c", "", "he")), "Be brief.")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A tokenizer with a template."""

    def make(template: str | None, **how: Any) -> Tokenizer:
        return load_tokenizer(str(save_chat_tokenizer(tmp_path / "tokenizer", template, **how)))

    return make


def bound(tokenizer: Tokenizer, day: str = TEMPLATE_DATE) -> Any:
    return find_template("chat_template", day).bound(tokenizer)


def refusal(tokenizer: Tokenizer) -> InputError:
    with pytest.raises(InputError) as caught:
        bound(tokenizer)
    return caught.value


def records_of(*records: Record) -> RecordSet:
    return RecordSet("a.json", list(records), Places.of("a.json", [None] * len(records)), {})


def encoded(tokenizer: Tokenizer, *records: Record, **policies: Any) -> Any:
    return encode(records_of(*records), tokenizer, bound(tokenizer), EncodingPolicy(512, **policies))


class TestTexts:
    def test_an_input_stands_below_the_instruction(self, made: Made) -> None:
        [(prompt, answer)] = bound(made(CHATML)).turns(Record.of("Add.", "1 + 1", "2"))
        assert prompt == "<|im_start|>user\nAdd.\n\n1 + 1<|im_end|>\n<|im_start|>assistant\n"
        assert answer == "2"

    def test_what_follows_an_end_belongs_to_the_next_prompt(self, made: Made) -> None:
        assert bound(made(CHATML)).turns(TALK) == [
            (
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na\n\nb<|im_end|>\n<|im_start|>assistant\n",
                "the",
            ),
            ("\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n", "he"),
        ]

    def test_what_stands_ahead_of_the_end_belongs_to_the_answer(self, made: Made) -> None:
        template = bound(made(MISTRAL, eos="</s>"))
        assert template.turns(Record.of("a", "", "b")) == [("<s>[INST] a [/INST]", " b ")]
        assert template.end_text == "</s>"

    def test_what_the_template_trims_is_trimmed(self, made: Made) -> None:
        [(_, answer)] = bound(made(GEMMA, eos="<eos>")).turns(Record.of("a", "", "\n the \n"))
        assert answer == "the"

    def test_a_token_that_is_not_called_special_ends_an_answer_where_no_other_does(self, made: Made) -> None:
        tokenizer = made(CHATML.replace("<|im_end|>", "[/turn]"))
        tokenizer.hf.add_tokens(["[/turn]"])
        assert bound(Tokenizer(tokenizer.hf, "here")).end_text == "[/turn]"

    def test_a_question_is_read_back(self, made: Made) -> None:
        tokenizer = made(LLAMA3)
        examples = encoded(tokenizer, Record.of("a the", "b\nc", "he"), TALK)
        single, talk = asked(examples, [0, 1], tokenizer, bound(tokenizer))
        assert single.record == Record.of("a the\n\nb\nc")
        assert RecordEncoder(tokenizer, bound(tokenizer)).prompt_ids([single.record]) == [single.ids]
        assert "Be brief." in talk.record.turns[0].instruction


class TestRefusals:
    def test_a_tokenizer_without_a_template(self, made: Made) -> None:
        error = refusal(made(None))
        assert error.what == "the tokenizer has no chat template"
        assert "data.template=alpaca" in error.fix

    @pytest.mark.parametrize("template", [QWEN3, CHATML.replace("{{ message['content'] + '<|im_end|>' }}", "")])
    def test_earlier_turns_that_change(self, made: Made, template: str) -> None:
        assert refusal(made(template)).what.startswith("the chat template ")

    def test_earlier_answers_that_are_rewritten(self, made: Made) -> None:
        error = refusal(made(QWEN3))
        assert "writes earlier turns differently once others follow" in error.what
        assert "reasoning" in error.why

    def test_reasoning_that_only_earlier_answers_lose(self, made: Made) -> None:
        template = CHATML.replace(
            "{{ message['content'] + '<|im_end|>' }}",
            "{{ (message['content'] if loop.last else message['content'].split('</think>')[-1]) + '<|im_end|>' }}",
        )
        assert "writes earlier turns differently" in refusal(made(template)).what

    def test_reasoning_that_is_left_out(self, made: Made) -> None:
        assert "does not write an answer as it is" in refusal(made(DEEPSEEK)).what

    def test_a_template_without_a_token_behind_an_answer(self, made: Made) -> None:
        template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        assert "no special token behind an answer" in refusal(made(template)).what

    def test_a_template_without_answers(self, made: Made) -> None:
        template = "{% for m in messages if m.role == 'user' %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
        assert refusal(made(template)).what == "the chat template leaves answers out"

    def test_a_template_that_does_not_parse(self, made: Made) -> None:
        assert "does not write a question and its answer" in refusal(made("{% for %}")).what

    def test_a_prompt_that_is_not_the_head_of_its_record(self, made: Made) -> None:
        template = CHATML.replace("assistant\n' }}{% endif %}", "assistant\nAnswer:' }}{% endif %}")
        assert "differently" in refusal(made(template)).what

    def test_one_that_galpaca_wrote_and_that_marks_sequences(self, tokenizer_folder: Path) -> None:
        """Sequences would be marked twice, and the model would see markers."""
        tokenizer = load_tokenizer(str(tokenizer_folder))
        tokenizer.hf.chat_template = chat_template(PromptFile(load_template("alpaca"), True), tokenizer)
        assert "splits sequences itself" in refusal(tokenizer).what

    def test_a_system_message_that_the_template_refuses(self, made: Made) -> None:
        fine, system = Record.of("a", "", "b"), Record(TALK.turns, "Be brief.")
        with pytest.raises(InputError) as caught:
            encoded(made(GEMMA, eos="<eos>"), fine, system, system)
        assert caught.value.what == (
            "the chat template does not write a record with a system message: System role not supported"
        )
        assert "the first such record is a.json, record 2" in caught.value.why

    def test_a_second_turn_that_the_template_refuses(self, made: Made) -> None:
        template = "{% if messages | length > 2 %}{{ raise_exception('one turn') }}{% endif %}" + CHATML
        tokenizer = made(template)
        assert len(encoded(tokenizer, Record.of("a", "", "b"))) == 1
        with pytest.raises(InputError, match="does not write a conversation of several turns: one turn"):
            encoded(tokenizer, Record(TALK.turns))

    def test_all_kinds_of_records_at_once(self, made: Made) -> None:
        with pytest.raises(InputError) as caught:
            encoded(
                made(CHATML.replace("message['content']", "message['content'].replace('z', '')")),
                *(Record.of("a", "", "z"), Record.of("a", "", "zz"), Record.of("a", "", "b")),
            )
        assert "the first such record is a.json, record 1" in caught.value.why


class TestDate:
    def test_a_template_says_the_same_on_every_day(self, made: Made) -> None:
        tokenizer = made(LLAMA3)
        today = tokenizer.hf.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
        assert f"Today Date: {date.today():%d %b %Y}" in today
        [prompt] = bound(tokenizer).prompts(Record.of("a"))
        assert "Today Date: 26 Jul 2024\n" in prompt
        [prompt] = bound(tokenizer, "2025-01-02").prompts(Record.of("a"))
        assert "Today Date: 02 Jan 2025\n" in prompt
        assert bound(tokenizer).fingerprint != bound(tokenizer, "2025-01-02").fingerprint

    def test_other_programs_write_it_too(self, made: Made) -> None:
        tokenizer = made(LLAMA3)
        template = bound(tokenizer)
        tokenizer.hf.chat_template = template.jinja
        given = [{"role": "user", "content": "a"}]
        [prompt] = template.prompts(Record.of("a"))
        assert tokenizer.hf.apply_chat_template(given, tokenize=False, add_generation_prompt=True) == prompt

    @pytest.mark.parametrize(
        "name", ["%d %b %Y", "%B %-d, %Y", "%A", "%Y-%m-%d", "%y/%j", "%H:%M:%S", "100%%", "%a %e"]
    )
    @pytest.mark.parametrize("day", ["2024-07-26", "2025-01-02"])
    def test_directives_are_strftimes(self, made: Made, name: str, day: str) -> None:
        tokenizer = made("{{ strftime_now('" + name + "') }}" + CHATML)
        [prompt] = bound(tokenizer, day).prompts(Record.of("a"))
        assert prompt.startswith(date.fromisoformat(day).strftime(name) + "<|im_start|>")

    @pytest.mark.parametrize(
        "start", ["", "\n", "\n\n", "  ", "  {% if true %}x{% endif %}", "\n  {%- if true %}x{% endif %}"]
    )
    def test_nothing_else_changes(self, made: Made, start: str) -> None:
        """Blocks take a newline and blanks away, in front of a template as in it."""
        tokenizer = made(start + "{% if false %}{{ strftime_now('%d') }}{% endif %}" + CHATML)
        given = [{"role": "user", "content": "a"}]
        before = tokenizer.hf.apply_chat_template(given, tokenize=False)
        assert tokenizer.hf.apply_chat_template(given, tokenize=False, chat_template=bound(tokenizer).jinja) == before

    def test_a_template_that_asks_for_no_date_stays_as_it_is(self, made: Made) -> None:
        assert bound(made(CHATML)).jinja == CHATML

    def test_a_date_that_was_pinned_is_replaced(self) -> None:
        once = pinned(LLAMA3, date(2024, 7, 26))
        assert pinned(once, date(2024, 7, 26)) == once
        assert pinned(once, date(2025, 1, 2)) == pinned(LLAMA3, date(2025, 1, 2))

    @pytest.mark.parametrize("text", ["today", "2024-7-26", "20240726", "2024-02-30", ""])
    def test_what_is_no_date_is_refused(self, text: str) -> None:
        with pytest.raises(InputError, match=r"data\.template_date"):
            parsed_date(text)
        with pytest.raises(InputError, match=r"data\.template_date"):
            DataSpec(path="a.json", template_date=text)


class TestSpecialTokens:
    def test_the_tokenizers_own_are_found(self, made: Made) -> None:
        tokenizer = made(CHATML)
        records = (Record.of("a", "", "b"), Record.of("say <|im_end|>", "", "b"), Record.of("a", "", "b <|im_end|> "))
        receipt = encoded(tokenizer, *records, Record.of("<pad> <unk>", "", "b")).receipt
        assert (receipt.special_tokens, receipt.double_ends) == (2, 1)
        assert encoded(tokenizer, *records, on_special_tokens="drop").receipt.dropped == {"special tokens": 2}

    @pytest.mark.parametrize("end", ["<|im_end|>", "<|end_of_text|>"])
    def test_an_answer_does_not_go_on_behind_an_end(self, made: Made, end: str) -> None:
        """It was trained as the end of the answer, with text behind it, and one line of many said so."""
        tokenizer = made(CHATML, eos="<|end_of_text|>")
        answers = ("b", f"b {end} c", f"{end} c", f"b {end}{end}\n")
        records = [Record.of("a", "", answer) for answer in answers]
        with pytest.raises(InputErrors) as caught:
            encoded(tokenizer, *records)
        assert [one.where for one in caught.value.problems] == ["a.json, record 2", "a.json, record 3"]
        assert "data.on_special_tokens=drop" in caught.value.problems[0].fix
        receipt = encoded(tokenizer, *records, on_special_tokens="drop").receipt
        assert receipt.dropped == {"special tokens": 3}
        assert encoded(tokenizer, records[0], records[3]).receipt.special_tokens == 1

    def test_in_a_template_of_texts_it_is_counted(self, made: Made) -> None:
        """As with GALACTICA."""
        record = Record.of("a", "", "b <|im_end|> c")
        receipt = encode(records_of(record), made(CHATML), load_template("alpaca"), EncodingPolicy(512)).receipt
        assert receipt.special_tokens == 1


class TestFile:
    def prompts(self, tokenizer: Tokenizer) -> PromptFile:
        return PromptFile(bound(tokenizer), False, keeps_turns=True, end_ids=(4, 1))

    def test_it_is_read_as_it_was_written(self, made: Made, tmp_path: Path) -> None:
        tokenizer = made(LLAMA3)
        prompts = self.prompts(tokenizer)
        prompts.save(tmp_path)
        read = PromptFile.read(tmp_path)
        assert (read.keeps_turns, read.end_ids) == (True, (4, 1))
        assert read.template.bound(tokenizer) == prompts.template
        assert chat_template(read, tokenizer) == bound(tokenizer).jinja

    @pytest.mark.parametrize("newline", ["\r\n", "\r"])
    def test_lines_of_windows_are_read_back(self, made: Made, tmp_path: Path, newline: str) -> None:
        """Files are read with other ends of lines than the configuration had: a finished run was not released."""
        text = CHATML.replace("{% endfor %}", "\n{#- a note #}\n{%- endfor %}")
        tokenizer = made(None)
        tokenizer.hf.chat_template = text.replace("\n", newline)
        prompts = self.prompts(tokenizer)
        prompts.save(tmp_path)
        tokenizer.hf.chat_template = chat_template(prompts, tokenizer)
        tokenizer.hf.save_pretrained(tmp_path)
        read = PromptFile.read(tmp_path).template.bound(load_tokenizer(str(tmp_path)))
        assert read == prompts.template
        tokenizer.hf.chat_template = text
        assert read.turns(TALK) == bound(tokenizer).turns(TALK)

    def test_another_date_is_kept(self, made: Made, tmp_path: Path) -> None:
        tokenizer = made(LLAMA3)
        replace(self.prompts(tokenizer), template=bound(tokenizer, "2025-01-02")).save(tmp_path)
        [prompt] = PromptFile.read(tmp_path).template.bound(tokenizer).prompts(Record.of("a"))
        assert "02 Jan 2025" in prompt

    def test_a_template_that_has_changed_is_refused(self, made: Made, tmp_path: Path) -> None:
        tokenizer = made(LLAMA3)
        self.prompts(tokenizer).save(tmp_path)
        tokenizer.hf.chat_template = LLAMA3.replace("Today", "This")
        with pytest.raises(InputError, match="not the one of the training"):
            PromptFile.read(tmp_path).template.bound(tokenizer)

    @pytest.mark.parametrize(
        "change",
        [
            {"end_ids": ["x"]},
            {"template": {"name": "chat_template"}},
            {"template": {"name": "chat_template", "date": 7, "fingerprint": "x"}},
        ],
    )
    def test_a_damaged_file_is_refused(self, made: Made, tmp_path: Path, change: dict[str, Any]) -> None:
        self.prompts(made(LLAMA3)).save(tmp_path)
        path = tmp_path / PROMPT_FILE
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
        with pytest.raises(InputError, match="the file is damaged"):
            PromptFile.read(tmp_path)

    def test_a_file_of_an_earlier_version_has_no_ends(self, made: Made, tmp_path: Path) -> None:
        PromptFile(load_template("alpaca"), False).save(tmp_path)
        path = tmp_path / PROMPT_FILE
        content = json.loads(path.read_text(encoding="utf-8"))
        del content["end_ids"]
        path.write_text(json.dumps(content), encoding="utf-8")
        assert PromptFile.read(tmp_path) == PromptFile(load_template("alpaca"), False)


@pytest.mark.parametrize("style", STYLES)
def test_templates_of_texts_work_with_every_tokenizer(made: Made, style: str) -> None:
    """What the tokenizer puts in front of a text stays there, once, and its own end follows each answer."""
    _, _, _, eos = STYLES[style]
    tokenizer = made(None, eos=eos, metaspace=style == "mistral")
    template = load_template("alpaca")
    encoder = RecordEncoder(tokenizer, template)
    for record in (Record.of("a", "the", "he"), TALK):
        [one] = encoder.encode([record], 2_000)
        [prompt] = encoder.prompt_ids([record])
        assert one.ids[: len(prompt)] == prompt
        assert one.ids[0] == tokenizer.hf.bos_token_id
        assert one.ids.count(tokenizer.hf.bos_token_id) == 1
        assert one.ids[-1] == tokenizer.eos_id == encoder.end_id
        assert one.ids.count(tokenizer.eos_id) == len(record.turns)
