"""Every file of conf/ composes into a checked configuration, and every target takes its arguments."""

import inspect
import itertools
import shlex
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
from configuration_keys import keys_of
from conftest import REPOSITORY
from hydra.utils import get_class, get_method, instantiate
from omegaconf import DictConfig, OmegaConf

from galpaca.app.config.composition import compose, parse, register, with_home
from galpaca.app.config.schema import Config
from galpaca.errors import InputError
from galpaca.model.configuration import check_model
from galpaca.runs.recipe import RENAMED
from galpaca.training.optimizers.adamw import AdamW
from galpaca.training.strategies import Fsdp

CONF = REPOSITORY / "conf"
GIVEN = {"logger": ("folder", "run_id")}


def files(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def bind(node: dict[str, object], *given: str) -> None:
    partial = instantiate(node, _partial_=True)
    inspect.signature(partial.func).bind(*partial.args, **partial.keywords, **dict.fromkeys(given))


# What an experiment leaves to its user.
REQUIRED = {"replay": ["data.mix.own.path=x"], "own_records": ["data.path=x"]}


OF_RANDOM_WEIGHTS = ("tiny", "tiny_llama", "random")


@pytest.mark.parametrize("experiment", files("experiment"))
def test_every_experiment_composes_and_binds(experiment: str) -> None:
    config, _ = compose([f"+experiment={experiment}", *REQUIRED.get(experiment, [])])
    assert config.run.name == experiment
    bind(config.logger, *GIVEN["logger"])


GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("experiment", "recipe"))


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in files(group)])
def test_every_file_composes_and_binds(group: str, name: str) -> None:
    config, _ = compose([f"{group}={name}", "run.name=test", *needed(group, name)])
    node = getattr(config, group)
    for target in node.values() if group == "callbacks" else [node] if group in GIVEN else []:
        bind(target, *GIVEN.get(group, ()))


def needed(group: str, name: str) -> list[str]:
    overrides = (
        [] if (group, name) in itertools.product(["data"], ["alpaca", "evol_instruct", "demo"]) else ["data.path=x"]
    )
    if group == "model" and name == "random":
        overrides += ["model.config=x"]
    return overrides if group == "model" and name not in OF_RANDOM_WEIGHTS else [*overrides, "model.tokenizer=x"]


@pytest.mark.parametrize("name", [name for name in files("model") if name not in OF_RANDOM_WEIGHTS])
def test_a_model_is_named_like_its_hub_id_and_has_its_sizes(name: str) -> None:
    """Random weights of these sizes need no network."""
    overrides = [f"model={name}", "model.path=null", "model.tokenizer=x", "data.path=x", "run.name=test"]
    config, _ = compose(overrides)
    named, _ = compose([f"model={name}", "data.path=x", "run.name=test"])
    assert str(named.model.path).rpartition("/")[2].lower() == name
    assert named.model.license
    assert check_model(config.model, 512).model_type in ("opt", "llama")


@pytest.mark.parametrize(
    ("path", "license"),
    [
        ("facebook/galactica-1.3b", "cc-by-nc-4.0"),
        ("/data/models/galactica-1.3b", "cc-by-nc-4.0"),
        ("/data/models/Galactica-1.3B/", "cc-by-nc-4.0"),
        ("/data/models/SmolLM2-135M-Instruct", None),
        ("HuggingFaceTB/SmolLM2-135M", None),
    ],
)
def test_a_license_is_that_of_the_model_it_belongs_to(path: str, license: str | None) -> None:
    """The card of a Llama said that GALACTICA's license holds for it, since the experiment names GALACTICA."""
    config, _ = compose(["+experiment=own_records", "data.path=x", f"model.path={path}"])
    assert config.model.license == license
    stated, _ = compose(["+experiment=own_records", "data.path=x", f"model.path={path}", "model.license=mit"])
    assert stated.model.license == "mit"


def test_galpaca67b_is_the_recipe() -> None:
    """Value by value, as GALPACA's card and Stanford Alpaca's trainer state it."""
    config, _ = compose(["+experiment=galpaca67b"])
    assert config.model.path == "facebook/galactica-6.7b"
    assert (config.data.hub_id, config.data.expected_records) == ("tatsu-lab/alpaca", 52_002)
    assert (config.data.template, config.data.max_length, config.data.val_fraction) == ("alpaca", 512, 0.0)
    assert (config.data.on_empty, config.data.on_truncation) == ("keep", "keep")
    assert config.batch.examples == 128
    assert (config.trainer.max_epochs, config.trainer.max_steps) == (3, None)
    assert (config.optim.lr, config.optim.schedule, config.optim.warmup_ratio) == (2e-5, "cosine", 0.03)
    assert config.optim.clip_norm == 1.0
    assert config.optim.factory == AdamW(
        beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, moments_dtype="float32", fused=True
    )
    assert config.strategy.factory == Fsdp(sharding_strategy="FULL_SHARD")
    assert config.strategy.factory.values()["_target_"] == "galpaca.training.strategies.fsdp"
    assert (config.precision.name, config.precision.reduce_dtype) == ("16-mixed", "float32")
    assert (config.trainer.accelerator, config.trainer.devices, config.trainer.num_nodes) == ("gpu", 4, 1)
    assert str(config.logger["_target_"]).endswith(".wandb")
    assert (config.model.dropout, config.model.attention_dropout) == (0.1, 0.0)


def test_galpaca30b_is_its_recipe() -> None:
    config, _ = compose(["+experiment=galpaca30b"])
    assert config.model.path == "facebook/galactica-30b"
    assert (config.batch.examples, config.data.max_length) == (1_024, 384)
    assert config.trainer.num_ranks == 16


DOCUMENTED_LINE = """\
+experiment=galpaca67b model=tiny model.tokenizer=DIR data=local data.path=FILE data.val_fraction=0.05 strategy=fsdp
precision=32-true trainer=cpu trainer.devices=2 trainer.max_steps=20 optim.lr=1e-3 model.dropout=0.1 batch.examples=32
batch.max_tokens=4096 checkpoint.every_steps=5 seed=7 logger=local run.root=DIR run.name=NAME"""


def test_the_documented_command_line_is_valid_as_it_stands() -> None:
    config, _ = compose(shlex.split(DOCUMENTED_LINE))
    assert (config.model.path, config.data.hub_id, config.data.expected_records) == (None, None, None)
    assert (config.model.num_layers, config.model.hidden_size, config.model.num_heads) == (2, 128, 4)
    assert (config.optim.lr, config.seed, config.checkpoint.every_steps) == (1e-3, 7, 5)


def test_a_run_saves_the_configuration_it_can_be_read_back_from() -> None:
    config, resolved = compose(["+experiment=demo"])
    node = OmegaConf.create(resolved)
    assert parse(node) == config  # type: ignore[arg-type]


RATES = {"alpaca": 2e-5, "alpaca_lora": 2e-4}


@pytest.mark.parametrize("recipe", files("recipe"))
def test_a_recipe_makes_a_run_of_any_model(recipe: str) -> None:
    config, _ = compose([f"+recipe={recipe}", "model=galactica-125m", "logger=local", "run.name=test"])
    assert (config.optim.lr, config.batch.examples, config.data.max_length) == (RATES[recipe], 128, 512)
    assert str(config.logger["_target_"]).endswith(".none")


def values_of(path: Path) -> dict[str, object]:
    """Dotted keys and values that a file sets by itself."""
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig)
    node.pop("defaults", None)
    return {key: OmegaConf.select(node, key) for key in keys_of(node) if not OmegaConf.is_config(node.get(key, 0))}


SECTIONS = {name: kind for name, kind in get_type_hints(Config).items() if is_dataclass(kind)}

# What a file is named for stands in it, although it is the default.
NAMED_FOR = {("trainer", "gpu", "accelerator"), ("precision", "32-true", "name")}


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in GROUPS for name in files(group) if group in SECTIONS]
)
def test_no_group_file_repeats_a_default(group: str, name: str) -> None:
    """Defaults have one home, the records of the code; a second one goes stale."""
    defaults = {item.name: item.default for item in fields(SECTIONS[group])}
    for key, value in values_of(CONF / group / f"{name}.yaml").items():
        assert defaults.get(key, value) != value or (group, name, key) in NAMED_FOR or key not in defaults


@pytest.mark.parametrize("name", [name for name in files("experiment") if name != "demo"])
def test_an_experiment_sets_only_what_differs_from_the_recipe(name: str) -> None:
    register()  # files name others by a resolver
    recipe = values_of(CONF / "recipe" / "alpaca.yaml")
    for key, value in values_of(CONF / "experiment" / f"{name}.yaml").items():
        assert key not in recipe or recipe[key] != value, f"{key} stands in the recipe"


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GIVEN for name in files(group)])
def test_a_target_and_its_file_have_the_same_defaults(group: str, name: str) -> None:
    """Both can be read alone: the file by Hydra, which must know every key, and the function in Python."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    assert isinstance(values, dict)
    signature = inspect.signature(get_method(values.pop("_target_")))
    defaults = {k: p.default for k, p in signature.parameters.items() if p.default is not p.empty}
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()} == defaults


@pytest.mark.parametrize("name", files("optim"))
def test_an_optimizers_file_has_the_defaults_of_its_class(name: str) -> None:
    """All of them, so that each can be overridden without a plus."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / "optim" / f"{name}.yaml"))
    assert isinstance(values, dict)
    assert values == {"_target_": values["_target_"], **asdict(get_class(values["_target_"])())}


def test_an_optimizer_is_chosen_and_its_keys_are_the_groups() -> None:
    config, resolved = compose(["+experiment=demo", "optim.beta1=0.8", "optim.lr=1"])
    assert config.optim.factory == AdamW(beta1=0.8, beta2=0.95)
    assert config.optim.lr == 1.0
    assert config.values()["optim"] == OmegaConf.to_container(OmegaConf.create(resolved).optim)


def test_what_decides_the_weights_of_adamw_is_in_the_recipe() -> None:
    """How its update is computed is not."""
    config, _ = compose(["+experiment=demo"])
    assert sorted(config.recipe_values()["optim"]) == [
        *("_target_", "beta1", "beta2", "clip_norm", "eps", "lr", "moments_dtype"),
        *("schedule", "warmup_ratio", "weight_decay"),
    ]


def test_an_unknown_key_in_a_file_is_an_error(tmp_path: Path) -> None:
    node = OmegaConf.create({"run": {"name": "x", "rooot": "y"}, "seeed": 1})
    with pytest.raises(InputError) as error:
        parse(node)
    assert "rooot" in str(error.value)
    assert "seeed" in str(error.value)


@pytest.mark.parametrize("former", [key for key in RENAMED if "." in key])  # others are groups now
def test_a_former_name_is_refused_with_the_name_of_today(former: str) -> None:
    group, _, name = former.partition(".")
    fix = f"{RENAMED[former]}=drop"
    with pytest.raises(InputError) as typed:
        compose(["+experiment=demo", f"{former}=drop"])
    assert fix in typed.value.fix
    with pytest.raises(InputError) as in_a_file:
        parse(OmegaConf.create({group: {name: "drop"}}))
    assert fix in str(in_a_file.value)


def test_every_experiment_states_what_was_measured() -> None:
    """A figure that was not measured is marked so, and the command stands at the top."""
    for name in files("experiment"):
        text = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
        header = text.partition("\ndefaults:")[0]
        assert f"python train.py +experiment={name}" in header or f"make {name}" in header
        assert "measured" in header.lower()
        for words in (("memory",), ("time", "hours"), ("loss",)):
            assert any(word in header.lower() for word in words), f"{name}: {words}"


def test_runs_are_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """README's two commands went to two places; an empty folder became the root of the disk's names."""
    monkeypatch.delenv("GALPACA_RUNS", raising=False)
    assert compose(["+experiment=demo"])[0].run.root == "runs"
    monkeypatch.setenv("GALPACA_RUNS", "/scratch/mine")
    assert compose(["+experiment=demo"])[0].run.root == "/scratch/mine"
    assert compose(["+experiment=demo", "run.root=here"])[0].run.root == "here"
    monkeypatch.setenv("GALPACA_RUNS", "")
    with pytest.raises(InputError, match="is empty") as caught:
        compose(["+experiment=demo"])
    assert "GALPACA_RUNS" in str(caught.value)


def test_config_is_frozen() -> None:
    config, _ = compose(["+experiment=demo"])
    assert isinstance(config, Config)
    with pytest.raises(AttributeError):
        config.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("data", [name for name in files("data") if name != "local"])
def test_what_holds_for_a_data_set_is_not_said_of_others(data: str) -> None:
    """``data.path`` in place of the demo's records kept their license."""
    shipped, _ = compose([f"data={data}", "run.name=t", "model.tokenizer=t"])
    own, _ = compose([f"data={data}", "data.path=own.json", "run.name=t", "model.tokenizer=t"])
    assert any((shipped.data.license, shipped.data.terms))
    assert (own.data.license, own.data.terms, own.data.expected_records) == (None, None, None)


def test_a_home_folder_stands_anywhere_in_a_value() -> None:
    home = f"{Path.home()}/"
    typed = ["data.path=~/a", "data.path=[~/a, ~/b]", "data.mix.own={path: ~/a}", "+x=a~/b", "~data"]
    assert with_home(typed) == [
        f"data.path={home}a",
        f"data.path=[{home}a, {home}b]",
        f"data.mix.own={{path: {home}a}}",
        "+x=a~/b",
        "~data",
    ]


@pytest.mark.parametrize(
    "chosen",
    [
        ("strategy=fsdp", "strategy.forward_prefetch=true"),
        ("strategy=fsdp2", "strategy.hybrid=true"),
        ("+experiment=galpaca67b", "tuning=lora", "tuning.rank=4"),
        ("logger=wandb", "logger.project=mine"),
    ],
)
def test_keys_of_a_chosen_file_are_known_beside_one_that_is_not(chosen: tuple[str, ...]) -> None:
    """Those that the demo's own files lack were called unknown, too."""
    with pytest.raises(InputError) as caught:
        compose([*chosen, "logger.nonsense=1"])
    assert str(caught.value).count("unknown configuration key") == 1
    assert "logger.nonsense" in str(caught.value)
