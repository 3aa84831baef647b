"""Bad input is refused at the door by ``train.py``.

Exit code 2, one error that says what, where, why and how to fix it, no stack trace, nothing half-written.
"""

import fcntl
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

Done = subprocess.CompletedProcess[str]
Train = Callable[..., Done]


class Problem(NamedTuple):
    """What a message must contain: on one line the place and the mistake, on a ``fix:`` line the way out."""

    where: str
    what: str
    fix: str


def shown(done: Done) -> str:
    """The message of a refusal, after the checks that hold for each of them."""
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert done.returncode == 2, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("Loading weights:")]
    assert lines[0].startswith("error: "), f"something else comes before the error:\n{done.stderr}"
    assert sum(line.startswith("error: ") for line in lines) == 1, done.stderr
    return "\n".join(lines)


def assert_shows(message: str, *problems: Problem) -> None:
    lines = message.splitlines()
    fixes = [line for line in lines if line.strip().startswith("fix: ")]
    for where, what, fix in problems:
        assert any(where in line and what in line for line in lines), f"no line says {where!r} and {what!r}:\n{message}"
        assert any(fix in line for line in fixes), f"no fix says {fix!r}:\n{message}"


def assert_nothing_half_written(runs: Path) -> None:
    """No run folder, and in the cache whole entries only."""
    assert not (runs / "test").exists()
    cache = runs / ".cache" / "encoded"
    for entry in cache.iterdir() if cache.is_dir() else ():
        assert "partial" not in entry.name
        assert entry.is_file() or (entry / "meta.json").is_file()


@pytest.fixture
def refused(train: Train, tmp_path: Path) -> Callable[..., str]:
    """Runs ``train.py``, which must refuse; returns its message."""

    def run(*overrides: str, **how: Any) -> str:
        message = shown(train(*overrides, **how))
        assert_nothing_half_written(tmp_path / "runs")
        return message

    return run


# Data -----------------------------------------------------------------------------------------------------------------

GOOD = b'{"instruction": "Name a metal.", "input": "", "output": "Iron."}'


# What the fixture ``train`` gives besides.
SIZES = ("hidden_size", "ffn_size")


def record(**changes: object) -> bytes:
    return json.dumps({**json.loads(GOOD), **changes}).encode()


def records(*rows: bytes) -> bytes:
    """A JSON file whose record ``n`` stands on line ``n + 1``."""
    return b"[\n" + b",\n".join(rows) + b"\n]\n"


BAD_FILES = {
    "JSON without a comma": (
        "records.json",
        records(GOOD, b'{"instruction": "Name a gas." "input": "", "output": "Neon."}'),
        Problem("{path}, line 3", "invalid JSON", "-m json.tool {path}"),
    ),
    "JSON cut off": (
        "records.json",
        records(GOOD, GOOD)[:-30],
        Problem("{path}, line 3", "the file ends", "-m json.tool {path}"),
    ),
    "JSON that is no list": (
        "records.json",
        b'{"data": [' + GOOD + b"]}",
        Problem("{path}, line 1", "list of records", "records-list.json"),
    ),
    "JSON Lines under the name of JSON": (
        "records.json",
        GOOD + b"\n" + GOOD,
        Problem("{path}, line 1", "list of records", ".jsonl"),
    ),
    "a broken line of JSON Lines": (
        "records.jsonl",
        GOOD + b"\n{instruction: 'Name a gas.'}\n" + GOOD,
        Problem("{path}, line 2", "invalid JSON", "one JSON object on each line"),
    ),
    "a list in JSON Lines": (
        "records.jsonl",
        b"[" + GOOD + b", " + GOOD + b"]",
        Problem("{path}, line 1", "a list, not an object", ".json"),
    ),
    "a record that is no object": (
        "records.json",
        records(GOOD, b'"Name a gas."'),
        Problem("{path}, record 2 (line 3)", "expected an object, got a string", '"instruction"'),
    ),
    "a field missing in one record": (
        "records.json",
        records(GOOD, b'{"instruction": "Name a gas.", "input": ""}'),
        Problem("{path}, record 2 (line 3)", "the field 'output' is missing", "add 'output'"),
    ),
    "a field misspelt in one record": (
        "records.json",
        records(GOOD, b'{"instrution": "Name a gas.", "input": "", "output": "Neon."}'),
        Problem("{path}, record 2 (line 3)", "the field 'instruction' is missing", "rename 'instrution'"),
    ),
    "a field misspelt everywhere": (
        "records.json",
        records(*[b'{"instruction": "Name a gas.", "input": "", "ouput": "Neon."}'] * 2),
        Problem("{path}", "no record has the field 'output'", "data.fields.output=ouput"),
    ),
    "a number for a string": (
        "records.json",
        records(GOOD, record(output=7)),
        Problem("{path}, record 2 (line 3)", "the field 'output' is a number, not a string", "in quotes"),
    ),
    "null for a string": (
        "records.json",
        records(GOOD, record(output=None)),
        Problem("{path}, record 2 (line 3)", "the field 'output' is null, not a string", '""'),
    ),
    "bad UTF-8": (
        "records.json",
        records(GOOD, GOOD.replace(b"metal", b"m\xe9tal")),
        Problem("{path}, line 3", f"byte 0xe9 at byte offset {2 + len(GOOD) + 2 + 25} is not UTF-8", "iconv"),
    ),
    "an empty file": ("records.json", b" \n", Problem("{path}", "the file is empty", "at least one record")),
    "an empty list": ("records.json", b"[]", Problem("{path}", "the file has no records", "at least one record")),
    "an unknown kind of file": ("records.txt", GOOD, Problem("{path}", "unsupported file type: .txt", ".jsonl")),
    "a short row of CSV": (
        "records.csv",
        b"instruction,input,output\nName a metal.,,Iron.\nName a gas.,Neon.\n",
        Problem("{path}, line 3", "2 cells, but the header has 3", "write a comma for each cell that is empty"),
    ),
    "no Parquet": (
        "records.parquet",
        b"PAR1",
        Problem("{path}", "not a readable Parquet file", "write the file again"),
    ),
    "no target token: the prompts fill the context": (
        "records.json",
        records(record(instruction="Name a metal. " * 200)),
        Problem("{path}", "no target token", "data.max_length"),
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_data_is_refused_with_its_place_in_the_file(case: str, refused: Callable[..., str], tmp_path: Path) -> None:
    name, content, problem = BAD_FILES[case]
    path = tmp_path / "bad" / name
    path.parent.mkdir()
    path.write_bytes(content)
    assert_shows(refused(f"data.path={path}"), Problem(*(text.replace("{path}", str(path)) for text in problem)))
    assert not (tmp_path / "runs").exists(), "nothing comes of bad data, not even an empty folder"


def test_a_file_that_is_not_there_is_refused_with_the_name_of_one_that_is(
    refused: Callable[..., str], records_file: Path
) -> None:
    path = records_file.with_name("recods.json")
    message = refused(f"data.path={path}")
    assert_shows(message, Problem(str(path), "no such file", records_file.name))


def test_a_large_file_in_another_encoding_is_refused_in_seconds(train: Train, tmp_path: Path) -> None:
    """Every bad byte once cost a copy of the rest of the file: hours for Alpaca's size with umlauts."""
    path = tmp_path / "latin1.json"
    path.write_bytes(records(*[GOOD.replace(b"metal", b"m\xe9t\xe4l")] * 30_000))
    message = shown(train(f"data.path={path}", timeout=30))
    assert_shows(message, Problem(f"{path}, line 2", "0xe9", "iconv"))
    assert "60000 problems" in message.replace(",", "")


def test_data_of_which_nothing_is_kept_is_refused_with_the_true_reason(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    """The message once blamed prompts that fill the context where ``data.on_empty`` had dropped every record."""
    path = tmp_path / "no_answers.json"
    path.write_bytes(records(record(output=""), record(output="")))
    message = refused(f"data.path={path}", "data.on_empty=drop")
    assert_shows(message, Problem(str(path), "no target token", "outputs"))
    assert "empty output" in message
    assert "fill" not in message


def test_many_problems_of_a_file_are_reported_at_once_the_first_20_and_their_number(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "many.json"
    path.write_bytes(records(GOOD, *[record(output=None)] * 25))
    message = refused(f"data.path={path}")
    assert_shows(message, *(Problem(f"record {n} (line {n + 1})", "'output' is null", "quotes") for n in range(2, 22)))
    assert "25 problems" in message
    assert "record 22" not in message
    assert "5 more" in message
    assert message.count("fix: ") == 1, "20 times the same fix is noise"


def test_problems_of_several_kinds_are_reported_and_counted(refused: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "several.json"
    path.write_bytes(records(GOOD, record(output=7), b'{"instruction": "Name a gas.", "input": ""}', b"[]"))
    message = refused(f"data.path={path}")
    assert "3 problems" in message
    assert_shows(
        message,
        Problem(f"{path}, record 2 (line 3)", "'output'", "in quotes"),
        Problem(f"{path}, record 3 (line 4)", "the field 'output' is missing", "add 'output'"),
        Problem(f"{path}, record 4 (line 5)", "expected an object, got a list", '"instruction"'),
    )


def test_a_micro_batch_smaller_than_the_longest_example_is_refused(refused: Callable[..., str]) -> None:
    assert_shows(refused("batch.max_tokens=16"), Problem("batch.max_tokens", "the longest example has", "or more"))


# Templates ------------------------------------------------------------------------------------------------------------

BAD_TEMPLATES = {
    "no YAML": (
        'with_input: "{instruction} {input}"\nwithout_input: "{instruction}\n',
        [Problem("{path}, line", "invalid YAML", "with_input")],
    ),
    "no mapping": ("- with_input\n", [Problem("{path}", "not a mapping", "with_input")]),
    "a missing and an unknown key": (
        'with_input: "{instruction} {input}"\nwithout: "{instruction}"\n',
        [
            Problem("{path}", "unknown key 'without'", "without_input"),
            Problem("{path}", "'without_input' is missing", "without_input"),
        ],
    ),
    "another placeholder": (
        'with_input: "{instruction} {input}"\nwithout_input: "{question}"\n',
        [Problem("{path}", "'question'", "placeholder")],
    ),
    "a single brace": (
        'with_input: "{instruction} {input} {"\nwithout_input: "{instruction}"\n',
        [Problem("{path}", "'with_input'", "{{ and }}")],
    ),
}


@pytest.mark.parametrize("case", BAD_TEMPLATES)
def test_a_broken_template_file_is_refused(case: str, refused: Callable[..., str], tmp_path: Path) -> None:
    text, problems = BAD_TEMPLATES[case]
    path = tmp_path / "template.yaml"
    path.write_text(text, encoding="utf-8")
    message = refused(f"data.template={path}")
    assert_shows(message, *(problem._replace(where=problem.where.replace("{path}", str(path))) for problem in problems))
    assert "<unicode string>" not in message, "a parser's name for the text says nothing to a person"


def test_an_unknown_template_is_refused_with_the_names_of_those_that_there_are(refused: Callable[..., str]) -> None:
    assert_shows(refused("data.template=alpacca"), Problem("data.template", "'alpacca'", "alpaca, science"))


# Models ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A tiny OPT model in two or more shards, with room for the tokenizer."""
    from tokenizers import Tokenizer
    from transformers import OPTConfig, OPTForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_hidden_layers": 1}
    vocab_size = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json")).get_vocab_size()
    config = OPTConfig(**sizes, num_attention_heads=2, vocab_size=vocab_size, max_position_embeddings=1024)
    folder = tmp_path_factory.mktemp("model") / "opt"
    OPTForCausalLM(config).save_pretrained(folder, max_shard_size="50KB")
    assert len(shards(folder)) > 1
    return folder


@pytest.fixture
def model(model_folder: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(model_folder, tmp_path / "opt"))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_a_folder_without_weights_is_refused(refused: Callable[..., str], model: Path) -> None:
    for path in (*shards(model), model / "model.safetensors.index.json"):
        path.unlink()
    assert_shows(refused(f"model.path={model}"), Problem(str(model), "no weights", "again"))


def test_a_missing_shard_of_an_index_is_refused_by_its_name(refused: Callable[..., str], model: Path) -> None:
    first, *_ = shards(model)
    first.unlink()
    assert_shows(refused(f"model.path={model}"), Problem(str(first), "missing", "again"))


def test_a_truncated_weight_file_is_refused_by_its_name(refused: Callable[..., str], model: Path) -> None:
    """Of a hundred gigabytes in many shards, only this one need be fetched again."""
    *_, last = shards(model)
    last.write_bytes(last.read_bytes()[:-8])
    assert_shows(refused(f"model.path={model}"), Problem(str(last), "truncated", "again"))


def test_a_broken_index_is_refused(refused: Callable[..., str], model: Path) -> None:
    index = model / "model.safetensors.index.json"
    index.write_text('{"weight_map": {', encoding="utf-8")
    assert_shows(refused(f"model.path={model}"), Problem(str(index), "JSON", "again"))


def test_weights_of_another_size_are_refused_by_their_names(refused: Callable[..., str], model: Path) -> None:
    change_config(model, ffn_dim=32)
    assert_shows(refused(f"model.path={model}"), Problem(str(model), "fc1.weight", "again"))


@pytest.mark.parametrize("kind", ["gpt2", "mistral", "qwen2"])
def test_a_model_of_no_known_family_is_refused_by_name(kind: str, refused: Callable[..., str], tmp_path: Path) -> None:
    from transformers import AutoConfig

    folder = tmp_path / kind
    AutoConfig.for_model(kind).save_pretrained(folder)
    message = refused(f"model.path={folder}")
    assert_shows(message, Problem(str(folder), f"models of the type {kind!r} are not supported", "GALACTICA"))
    assert "OPT, Llama" in message


def test_rotary_positions_that_depend_on_the_longest_text_are_refused(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    """An example would have other logits beside a longer one."""
    from transformers import LlamaConfig

    rotation = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    LlamaConfig(rope_parameters=rotation).save_pretrained(tmp_path / "dynamic")
    message = refused(f"model.path={tmp_path / 'dynamic'}")
    assert_shows(message, Problem("dynamic", "rotary positions of the kind 'dynamic'", "linear, llama3, yarn"))


OF_THE_FAMILY = {
    "dropout that a Llama has not": (
        ("model=tiny_llama", "model.dropout=0.1"),
        Problem("model.dropout", "no dropout on the residual stream", "model.dropout=null"),
    ),
    "heads that OPT does not share": (
        ("model.num_kv_heads=2",),
        Problem("model.num_kv_heads", "as many key-value heads as heads (4), got 2", "model.family=llama"),
    ),
    "heads that cannot be shared": (
        ("model=tiny_llama", "model.num_kv_heads=3"),
        Problem("model.num_kv_heads", "must divide model.num_heads=4, got 3", "change model.num_kv_heads"),
    ),
    "sizes beside a configuration": (
        ("model=smollm2-135m", "model.path=null"),
        Problem("model.hidden_size", "the sizes are those of model.config", "model=random model.config=FILE"),
    ),
    "a configuration that is not there": (
        ("model=smollm2-135m", "model.path=null", "model.config=no.json", *(f"model.{one}=null" for one in SIZES)),
        Problem("no.json", "cannot read the model's configuration", "model.config=FILE"),
    ),
    "layers of another family": (
        ("model=tiny_llama", "tuning=lora", "tuning.targets=[q_proj,fc1]", "model.path=llama"),
        Problem("tuning.targets", "not a linear layer of Llama's decoder: 'fc1'", "q_proj,k_proj,v_proj,o_proj"),
    ),
}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("[1, 2]", "it has no model_type"),
        ('{"hidden_size": 8}', "it has no model_type"),
        ('{"model_type": "llama", "hidden_size": "big"}', "hidden_size': TypeError"),
        ('{"model_type": "llama", "num_attention_heads": 3, "hidden_size": 16}', "(16) is not a multiple"),
        ("{", "Expecting property name"),
    ],
)
def test_a_configuration_that_is_none_is_refused(
    content: str, what: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "sizes.json"
    path.write_text(content, encoding="utf-8")
    without = [f"model.{one}=null" for one in SIZES]
    assert_shows(
        refused("model=random", f"model.config={path}", *without), Problem(str(path), what, "model.config=FILE")
    )


@pytest.mark.parametrize("name", OF_THE_FAMILY)
def test_what_the_family_does_not_have_is_refused(
    name: str, refused: Callable[..., str], tmp_path: Path, tokenizer_folder: Path
) -> None:
    from families import PLAIN_LLAMA
    from parity.flat_run import save_model

    overrides, problem = OF_THE_FAMILY[name]
    if "model.path=llama" in overrides:
        save_model(tmp_path / "llama", tokenizer_folder, PLAIN_LLAMA)
    assert_shows(refused(*overrides, "data.max_length=64"), problem)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(
    refused: Callable[..., str], model: Path, tokenizer_folder: Path
) -> None:
    change_config(model, vocab_size=99)
    message = refused(f"model.path={model}")
    assert_shows(message, Problem("model.tokenizer", "the model's vocabulary has 99", "model.tokenizer=null"))
    assert f"why: {tokenizer_folder}" in message


def test_more_tokens_than_the_model_has_positions_are_refused(refused: Callable[..., str]) -> None:
    message = refused("data.max_length=5000")
    assert_shows(message, Problem("data.max_length", "context length of 2,048", "data.max_length=2048 or less"))


def test_a_model_folder_that_is_not_there_is_refused_as_one(refused: Callable[..., str], tmp_path: Path) -> None:
    """A mistyped path once read "Repo id must be in the form 'repo_name' or 'namespace/repo_name'"."""
    folder = tmp_path / "no" / "such" / "model"
    message = refused(f"model.path={folder}", "model.tokenizer=null")
    assert_shows(message, Problem(str(folder), "no such folder", "model.path="))


@pytest.mark.parametrize("tokenizer", [[], ["model.tokenizer=null"]], ids=["with a tokenizer", "without"])
def test_a_hub_id_that_cannot_be_reached_is_refused(tokenizer: list[str], refused: Callable[..., str]) -> None:
    message = refused("model.path=nobody/nothing", *tokenizer)
    assert_shows(message, Problem("nobody/nothing", "not on this machine", "galpaca prepare "))
    assert "model.path=FOLDER" in message


def test_a_data_set_that_cannot_be_reached_is_refused(refused: Callable[..., str]) -> None:
    message = refused("data.path=null", "data.hub_id=nobody/nothing")
    assert_shows(message, Problem("nobody/nothing", "cannot load the data set", "data.path=FILE"))


# Configuration --------------------------------------------------------------------------------------------------------

BAD_OVERRIDES = {
    "a misspelt key": (["optim.lrr=1"], Problem("optim.lrr", "unknown", "optim.lr")),
    "a misspelt key with a plus": (["+optim.lrr=1"], Problem("optim.lrr", "unknown", "optim.lr")),
    "a misspelt key with two": (["++optim.lrr=1"], Problem("optim.lrr", "unknown", "optim.lr")),
    "a key of no kind": (["qqqq=1"], Problem("qqqq", "unknown", "--cfg job")),
    "a key of other scripts": (["learning_rate=1"], Problem("learning_rate", "unknown", "optim.lr=1")),
    "a key of no kind with a plus": (["+learning_rate=1"], Problem("learning_rate", "unknown", "optim")),
    "a key that every experiment has": (["experiment=demo"], Problem("experiment", "unknown", "+experiment=demo")),
    "a group's unknown choice": (["optim=sgd"], Problem("optim", "'sgd'", "adamw")),
    "an unknown experiment": (["+experiment=demoo"], Problem("experiment", "'demoo'", "demo")),
    "an unknown group": (["optimizer=adamw"], Problem("optimizer", "unknown", "optim")),
    "an unknown group with a plus": (["+optimizer=adamw"], Problem("optimizer", "unknown", "optim")),
    "a number for a group": (["model=3"], Problem("model", "3", "tiny")),
    "a mapping for a group": (["optim={lrr: 1}"], Problem("optim", "takes one of its files", "optim.KEY=VALUE")),
    "text for a number": (["optim.lr=fast"], Problem("optim.lr", "'fast'", "optim.lr=")),
    "a fraction for a whole number": (["batch.examples=1.5"], Problem("batch.examples", "1.5", "batch.examples=")),
    "text for the seed": (["seed=random"], Problem("seed", "must be an integer", "seed=42")),
    "a fraction for the seed": (["seed=1.5"], Problem("seed", "must be an integer", "seed=42")),
    "no run.name": (["run.name=???"], Problem("run.name", "missing value", "run.name=")),
    "null for run.name": (["run.name=null"], Problem("run.name", "missing value", "run.name=")),
    "a run.name that leaves the root": (["run.name=../up"], Problem("run.name", "'../up'", "run.name=")),
    "no data": (["data.path=null"], Problem("data", "no data", "data.path=FILE")),
    "no tokenizer": (["model.tokenizer=null"], Problem("model.tokenizer", "no tokenizer", "model.tokenizer=")),
    "an override that Hydra cannot read": (["data.path=~records.json"], Problem("data.path=~", "", "quote")),
}


@pytest.mark.parametrize("case", BAD_OVERRIDES)
def test_a_bad_override_is_refused_with_its_key(case: str, refused: Callable[..., str]) -> None:
    overrides, problem = BAD_OVERRIDES[case]
    message = refused(*overrides)
    assert_shows(message, problem)
    assert "Spec" not in message, "a person knows the keys, not our classes"


NEGATIVE = {
    "batch": ["batch.examples=-8", "batch.max_tokens=-1"],
    "trainer": [
        "trainer.devices=-1",
        "trainer.num_nodes=-1",
        "trainer.max_epochs=-3",
        "trainer.max_steps=-1",
        "trainer.val_every_steps=-1",
        "trainer.read_metrics_every_steps=-1",
    ],
    "optim": [
        "optim.lr=-1",
        "optim.weight_decay=-0.1",
        "optim.beta1=-0.9",
        "optim.beta2=-0.9",
        "optim.eps=-1",
        "optim.warmup_ratio=-0.1",
        "optim.clip_norm=-1",
    ],
    "data": ["data.max_length=-5", "data.val_fraction=-0.1", "data.expected_records=-1"],
    "model": ["model.dropout=-0.1", "model.attention_dropout=-0.1", "model.num_layers=-2", "model.hidden_size=-32"],
    "the rest": ["checkpoint.every_steps=-1", "checkpoint.keep_last=-1", "release.max_new_tokens=-1", "seed=-1"],
}


@pytest.mark.parametrize("section", NEGATIVE)
def test_negative_values_are_refused_each_with_its_key(section: str, refused: Callable[..., str]) -> None:
    """A negative weight decay, beta or epsilon once passed; the last two ended in a stack trace and half a run."""
    overrides = NEGATIVE[section]
    message = refused(*overrides)
    for key, _, value in (override.partition("=") for override in overrides):
        problem = next((line for line in message.splitlines() if f"{key}: " in line), None)
        assert problem, f"{key}={value} is not reported:\n{message}"
        assert value in problem, f"its value is not reported: {problem}"
    assert "fix: " in message


def test_zero_devices_are_refused(refused: Callable[..., str]) -> None:
    assert_shows(
        refused("trainer.devices=0"), Problem("trainer.devices", "must be at least 1, got 0", "trainer.devices=1")
    )


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_learning_rate_that_is_no_finite_number_is_refused(value: str, refused: Callable[..., str]) -> None:
    """``inf`` once trained to a loss of nan, released the model and exited with 0."""
    assert_shows(refused(f"optim.lr={value}"), Problem("optim.lr", "must be > 0", "optim.lr=2e-5"))


def test_several_configuration_problems_are_reported_at_once(refused: Callable[..., str]) -> None:
    message = refused(
        "+optim.lrr=1", "trainer.devices=0", "batch.examples=many", "model.dropout=2", "run.name=???", "seed=-1"
    )
    assert_shows(
        message,
        Problem("optim.lrr", "unknown", "optim.lr"),
        Problem("trainer.devices", "must be at least 1, got 0", "trainer.devices=1"),
        Problem("batch.examples", "'many'", "batch.examples="),
        Problem("model.dropout", "must be in [0, 1), got 2", "model.dropout=0"),
        Problem("run.name", "missing value", "run.name="),
        Problem("seed", "must be an integer in [0, 2**63), got -1", "seed=42"),
    )
    assert "6 problems" in message


def test_several_unknown_keys_are_reported_at_once(refused: Callable[..., str]) -> None:
    """Hydra stops at the first."""
    assert_shows(
        refused("optim.lrr=1", "trainer.maxsteps=1"),
        Problem("optim.lrr", "unknown", "optim.lr"),
        Problem("trainer.maxsteps", "unknown", "trainer.max_steps"),
    )


def test_one_mistake_is_reported_once(refused: Callable[..., str]) -> None:
    """A mapping for data.path once brought "no data given" along."""
    message = refused("data.path=[1,b]")
    assert_shows(message, Problem("data.path", "[1, 'b']", "data.path="))
    assert "no data given" not in message


# A user's own experiment file -----------------------------------------------------------------------------------------


@pytest.fixture
def experiment(refused: Callable[..., str], tmp_path: Path) -> Callable[..., str]:
    """Runs a user's experiment file, named ``mine``, from a folder of their own."""

    def run(text: str, *, by_search_path: bool = False) -> str:
        folder = tmp_path / "my_conf"
        (folder / "experiment").mkdir(parents=True)
        (folder / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
        found = [f"hydra.searchpath=[file://{folder}]"] if by_search_path else ["--config-dir", str(folder)]
        return refused("+experiment=mine", *found)

    return run


@pytest.mark.parametrize("by_search_path", [False, True], ids=["--config-dir", "hydra.searchpath"])
def test_unknown_keys_in_a_users_experiment_are_refused(by_search_path: bool, experiment: Callable[..., str]) -> None:
    text = "# @package _global_\noptim:\n  lr: 1e-5\n  weight_decy: 0.1\ntrainer:\n  max_step: 3\n"
    assert_shows(
        experiment(text, by_search_path=by_search_path),
        Problem("optim.weight_decy", "unknown", "optim.weight_decay"),
        Problem("trainer.max_step", "unknown", "trainer.max_steps"),
    )


BAD_EXPERIMENTS = {
    "an unknown choice": (
        "# @package _global_\ndefaults:\n  - override /optim: sgd\n",
        Problem("optim", "'sgd'", "adamw"),
    ),
    "an unknown group": (
        "# @package _global_\ndefaults:\n  - override /optimizer: adamw\n",
        Problem("experiment/mine", "'optimizer'", "optim"),
    ),
    "a value of a wrong type": (
        "# @package _global_\noptim:\n  lr: fast\n",
        Problem("optim.lr", "'fast'", "optim.lr="),
    ),
    "an interpolation of nothing": (
        "# @package _global_\noptim:\n  lr: ${optim.learning_rate}\n",
        Problem("optim.lr", "optim.learning_rate", "optim.lr="),
    ),
    "no @package line": ("optim:\n  lr: 1e-5\n", Problem("experiment", "unknown", "# @package _global_")),
    "no YAML": ("# @package _global_\noptim: {lr: 1e-5\n", Problem("mine.yaml, line", "invalid YAML", "fix the file")),
}


@pytest.mark.parametrize("case", BAD_EXPERIMENTS)
def test_a_broken_experiment_of_a_user_is_refused(case: str, experiment: Callable[..., str]) -> None:
    text, problem = BAD_EXPERIMENTS[case]
    assert_shows(experiment(text), problem)


# Machine --------------------------------------------------------------------------------------------------------------


def test_more_gpus_than_there_are_are_refused_with_the_overrides_that_help(refused: Callable[..., str]) -> None:
    message = refused("trainer=gpu", "trainer.devices=4", "strategy=ddp", env={"CUDA_VISIBLE_DEVICES": ""}, forked=True)
    assert_shows(message, Problem("trainer.devices", "needs 4 GPU(s)", "trainer=cpu trainer.devices=1 strategy=single"))


def test_one_gpu_that_is_not_there_is_refused_in_good_english(refused: Callable[..., str]) -> None:
    message = refused("trainer=gpu", env={"CUDA_VISIBLE_DEVICES": ""}, forked=True)
    assert_shows(message, Problem("trainer.devices", "needs 1 GPU(s)", "trainer=cpu"))


def test_a_precision_that_the_strategy_refuses_is_reported_with_those_it_takes(refused: Callable[..., str]) -> None:
    message = refused("strategy=fsdp", "precision=64-true")
    assert_shows(message, Problem("precision", "'64-true'", "bf16-mixed"))
    assert "fsdp" in message


def test_two_processes_with_the_strategy_of_one_are_refused(refused: Callable[..., str]) -> None:
    message = refused("strategy=single", "trainer.devices=2")
    assert_shows(message, Problem("strategy", "one process, got 2", "strategy=fsdp or strategy=ddp"))


def test_two_processes_with_a_users_own_strategy_of_one_are_refused(refused: Callable[..., str]) -> None:
    """It was known by its name, and a strategy of another name started two processes that each trained alone."""
    message = refused(
        "strategy=single",
        "strategy._target_=faults.own_strategy.Alone",
        "trainer.devices=2",
    )
    assert_shows(message, Problem("strategy", "strategy=Alone supports one process", "strategy=fsdp or strategy=ddp"))


def test_a_strategy_is_refused_before_a_model_is_looked_for(refused: Callable[..., str]) -> None:
    """Which may take a download."""
    assert_shows(
        refused("strategy=single", "trainer.devices=2", "model.path=/no/such/folder"),
        Problem("strategy", "one process, got 2", "strategy=fsdp or strategy=ddp"),
    )


BAD_TARGETS = {
    "a strategy that is not there": (
        "strategy._target_=galpaca.no.such",
        Problem("strategy._target_", "galpaca.no.such", "conf/"),
    ),
    "an argument that it does not take": (
        "+strategy.buckets=3",
        Problem("strategy.buckets", "unknown key", "known keys"),
    ),
    "a logger that is not there": ("logger._target_=galpaca.no.such", Problem("logger", "galpaca.no.such", "conf/")),
    "a callback that is no node": ("+callbacks.mine=3", Problem("callbacks.mine", "3", "_target_")),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_a_target_that_does_not_bind_is_refused(case: str, refused: Callable[..., str]) -> None:
    """A logger's was once reported after the run folder had been written."""
    override, problem = BAD_TARGETS[case]
    assert_shows(refused(override), problem)


# The run folder -------------------------------------------------------------------------------------------------------


def test_a_run_folder_that_cannot_be_written_is_refused(refused: Callable[..., str], records_file: Path) -> None:
    """The message once named the cache below run.root, and data.cache_dir for its fix."""
    before = records_file.read_bytes()
    root = records_file / "runs"
    assert_shows(refused(f"run.root={root}"), Problem(str(root), "cannot write to the run folder", "run.root="))
    assert records_file.read_bytes() == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_started_with_another_recipe_or_other_data_is_refused_and_left_as_it_was(
    train: Train, tmp_path: Path, records_file: Path
) -> None:
    """Every difference is shown, and the folder stays byte for byte."""
    started = train("trainer.max_steps=1")
    assert started.returncode == 0, started.stderr
    folder = tmp_path / "runs" / "test"
    before = contents(folder)

    message = shown(train("trainer.max_steps=1", "optim.lr=1e-4", "optim.schedule=linear", "seed=7"))
    assert_shows(message, Problem(str(folder), "different recipe", "run.name="))
    for difference in ("optim.lr: 2e-05 -> 0.0001", "optim.schedule: cosine -> linear", "seed: 42 -> 7"):
        assert difference in message
    assert "fingerprint" not in message, "the data is the same"
    assert contents(folder) == before

    fewer = records_file.with_name("fewer.json")
    fewer.write_text(json.dumps(json.loads(records_file.read_text(encoding="utf-8"))[1:]), encoding="utf-8")
    message = shown(train("trainer.max_steps=1", f"data.path={fewer}"))
    assert_shows(message, Problem(str(folder), "different data", "run.name="))
    assert "data.fingerprint" in message
    assert "optim" not in message, "the recipe is the same"
    assert contents(folder) == before


@contextmanager
def locked_by_another_process(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True)
    with (folder / "run.lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(json.dumps({"host": "node17", "pid": 4242}))
        file.flush()
        yield


def test_a_run_folder_in_which_another_process_is_writing_is_refused(train: Train, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "test"
    with locked_by_another_process(folder):
        before = contents(folder)
        message = shown(train())
        assert_shows(message, Problem(str(folder), "another process is writing", "run.name="))
        assert "process 4242 on node17" in message
        assert contents(folder) == before


class TestCompute:
    def test_unknown_values(self, train: Train) -> None:
        done = train("compute.activation_checkpointing=some", "optim.moments_dtype=float8")
        assert_shows(
            shown(done),
            Problem(
                "compute.activation_checkpointing",
                "must be one of none, selective, full; got 'some'",
                "none or selective or full",
            ),
            Problem("optim.moments_dtype", "must be one of float32, bfloat16; got 'float8'", "float32 or bfloat16"),
        )

    def test_an_unknown_back_end(self, train: Train) -> None:
        done = train("compute.compile=true", "compute.compile_backend=inductr")
        assert_shows(shown(done), Problem("compute.compile_backend", "got 'inductr'", "inductor"))

    def test_what_the_compiler_would_silently_leave_alone(self, train: Train) -> None:
        done = train("compute.compile=true", "compute.activation_checkpointing=full")
        assert_shows(
            shown(done), Problem("compute.compile", "cannot be combined with compilation", "compute.compile=false")
        )

    @pytest.mark.parametrize(
        ("strategy", "defaults"),
        [("fsdp", {"forward_prefetch": "false", "limit_all_gathers": "true"}), ("fsdp2", {"hybrid": "false"})],
    )
    def test_what_is_neither_true_nor_false(
        self, refused: Callable[..., str], strategy: str, defaults: dict[str, str]
    ) -> None:
        """Any text was as good as true."""
        message = refused(f"strategy={strategy}", *(f"strategy.{key}=maybe" for key in defaults))
        for key, value in defaults.items():
            assert_shows(message, Problem(f"strategy.{key}", "must be true or false, got 'maybe'", f"{key}={value}"))

    def test_fsdp_options(self, train: Train) -> None:
        done = train("strategy=fsdp", "strategy.sharding_strategy=HALF", "strategy.backward_prefetch=SOON")
        assert_shows(
            shown(done),
            Problem("strategy.sharding_strategy", "got 'HALF'", "FULL_SHARD"),
            Problem("strategy.backward_prefetch", "got 'SOON'", "BACKWARD_PRE"),
        )


@pytest.mark.slow
def test_a_full_gpu_is_reported_with_advice(train: Train) -> None:
    """Exit code 1, and what would help, cheapest first; a stack trace helps nobody."""
    done = train("+callbacks.fault._target_=faults.out_of_memory.OutOfMemory")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: batch.max_tokens=4096: GPU out of memory" in done.stderr
    assert "Tried to allocate 2.00 GiB" in done.stderr
    assert "A long story" not in done.stderr
    numbered = [line.strip() for line in done.stderr.splitlines() if line.strip()[:2] in ("1.", "2.", "3.")]
    assert "batch.max_tokens=2048" in numbered[0]
    assert "compute.activation_checkpointing=selective" in numbered[1]
