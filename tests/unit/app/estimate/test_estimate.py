"""``galpaca estimate``: what it says, that it needs no torch, and what it refuses."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from galpaca.app.config.shapes import raw_shape, shape_of
from galpaca.app.estimate.shape import architecture_of
from galpaca.cli import main
from galpaca.model.families.known import family_of

GALPACA_67B = ("estimate", "+experiment=galpaca67b")
Answer = Callable[..., Any]


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Answer:
    """JSON of the command with these arguments."""
    monkeypatch.delenv("GALPACA_GPU", raising=False)
    monkeypatch.delenv("GALPACA_GPUS", raising=False)

    def run(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What the command says where it refuses."""

    def run(*arguments: str, **variables: str) -> str:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert main([*arguments]) == 2
        return capsys.readouterr().err

    return run


@pytest.fixture
def refusal_of_trace(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command says where it fails."""

    def run(*arguments: str) -> str:
        assert main([*arguments]) == 1
        return capsys.readouterr().err

    return run


def test_the_published_recipe_on_its_machine(answer: Answer) -> None:
    found = answer(*GALPACA_67B, "--gpu", "A100-80")
    assert {key: found[key] for key in ("gpu", "gpus_per_node", "nodes", "verdict", "calibrated")} == {
        "gpu": "A100-80", "gpus_per_node": 4, "nodes": 1, "verdict": "fits", "calibrated": False
    }  # fmt: skip
    memory = found["memory_gib"]
    assert memory["total"] == pytest.approx(sum(value for key, value in memory.items() if key != "total"), abs=0.1)
    # 6.657 billion parameters on four cards: 12 bytes each, and as gradients of a single micro-batch 4 more, in copies.
    assert memory["weights"] + memory["optimizer_state"] == pytest.approx(18.6, abs=0.1)
    assert 0 < found["hours"]["low"] < found["hours"]["high"] < 2
    assert found["gpu_hours"]["high"] == pytest.approx(4 * found["hours"]["high"], rel=1e-2)
    assert any("sbatch" in line and "--time=" in line for line in found["sbatch"])


def test_several_cards_and_numbers_make_a_list(answer: Answer) -> None:
    found = answer(*GALPACA_67B, "--gpu", "A100-80,H200", "--gpus-per-node", "1,4", "--nodes", "1")
    assert [(one["gpu"], one["gpus_per_node"]) for one in found] == [
        ("A100-80", 1), ("A100-80", 4), ("H200", 1), ("H200", 4)
    ]  # fmt: skip
    assert [one["verdict"] for one in found] == ["does not fit", "fits", "tight", "fits"]


def test_one_card_is_not_sharded_and_the_job_says_so(answer: Answer) -> None:
    found = answer(*GALPACA_67B, "--gpu", "H200", "--gpus-per-node", "1")
    assert any("strategy=single" in line for line in found["sbatch"])


def test_advice_makes_it_fit_and_is_evaluated_like_the_run(answer: Answer) -> None:
    found = answer(*GALPACA_67B, "--gpu", "A100-80", "--gpus-per-node", "1")
    assert found["verdict"] == "does not fit"
    assert found["sbatch"] == []
    one = found["advice"][0]
    again = answer(*GALPACA_67B, "strategy=single", *one["change"].split(), "--gpu", "A100-80", "--gpus-per-node", "1")
    assert again["verdict"] != "does not fit"
    assert again["memory_gib"]["total"] == one["memory_gib"]
    assert again["hours"] == one["hours"]


def test_more_cards_than_examples_need_are_slower_or_no_faster(answer: Answer) -> None:
    few, many = answer(*GALPACA_67B, "--nodes", "1,16")
    assert many["gpu_hours"]["low"] > 4 * few["gpu_hours"]["low"]


def test_the_model_of_another_path_is_another_model(answer: Answer, tmp_path: Path) -> None:
    """Its path counts, as in training; the sizes that came with the experiment are of its own."""
    large = answer(*GALPACA_67B)["memory_gib"]["total"]
    assert answer(*GALPACA_67B, "model.path=facebook/galactica-1.3b")["memory_gib"]["total"] < 0.6 * large
    (tmp_path / "config.json").write_text(json.dumps(raw_shape("galactica-125m")), encoding="utf-8")
    assert answer(*GALPACA_67B, f"model.path={tmp_path}")["memory_gib"]["total"] < 0.3 * large


@pytest.mark.parametrize("values", [{"hidden_size": "x"}, {"num_hidden_layers": 0}, {"ffn_dim": None}])
def test_a_damaged_configuration_of_a_model_is_said_to_be(
    refusal: Callable[..., str], tmp_path: Path, values: dict[str, Any]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(raw_shape("galactica-125m") | values), encoding="utf-8")
    message = refusal(*GALPACA_67B, f"model.path={tmp_path}")
    assert "no sizes can be read" in message
    assert "Traceback" not in message


def test_what_cannot_be_estimated_keeps_no_others_from_it(answer: Answer) -> None:
    found = answer(*GALPACA_67B, "--gpu", "T4,A100-80")
    assert "capability 7.5" in found[0]["error"]
    assert found[1]["verdict"] == "fits"


def test_settings_of_a_sharded_strategy_do_not_hinder_one_card(answer: Answer) -> None:
    line = answer(*GALPACA_67B, "strategy.backward_prefetch=BACKWARD_POST", "--gpu", "B200", "--gpus-per-node", "1")
    assert not any("backward_prefetch" in one for one in line["sbatch"])


def test_a_trace_without_a_compiler_says_what_is_missing(
    refusal_of_trace: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The reason was its own last line, which is the fix."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    message = refusal_of_trace("estimate", "+experiment=galpaca125m", "--gpu", "H100", "--trace")
    assert "no card can be pretended" in message
    assert "Traceback" not in message


def test_fewer_records_are_fewer_steps(answer: Answer) -> None:
    every, few = (answer(*GALPACA_67B, *more)["hours"]["low"] for more in ((), ("--records", "1000")))
    assert few < 0.4 * every


def test_a_job_runs_where_its_site_says(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GALPACA_RUNS", raising=False)
    assert not any("run.root=" in line for line in answer(*GALPACA_67B)["sbatch"])
    assert any("run.root=/there" in line for line in answer(*GALPACA_67B, "run.root=/there")["sbatch"])
    monkeypatch.setenv("GALPACA_MEMORY_REQUEST", "")
    assert not any("--mem" in line for line in answer("estimate", "+experiment=galpaca30b")["sbatch"])


def test_a_warning_is_no_later_than_the_scripts_own(answer: Answer) -> None:
    """The script of 30B asks for ten minutes."""
    assert not any("--signal" in line for line in answer("estimate", "+experiment=galpaca30b")["sbatch"])


def test_copies_that_sum_once_a_step_take_less_than_those_that_sum_after_every_micro_batch(answer: Answer) -> None:
    nodes = ("--nodes", "4")
    often = answer("estimate", "+experiment=galpaca30b", "strategy.sharding_strategy=HYBRID_SHARD", *nodes)
    once = answer("estimate", "+experiment=galpaca30b", "strategy=fsdp2", "strategy.hybrid=true", *nodes)
    assert once["hours"]["low"] < often["hours"]["low"]


def test_a_table_and_rows_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GALPACA_67B, "--gpu", "A100-80"]) == 0
    shown = capsys.readouterr().out
    for word in ("verdict", "uncalibrated", "of a GPU", "GPU-hours", "no record was read", "sbatch"):
        assert word in shown
    assert main([*GALPACA_67B, "--gpu", "A100-80,H100"]) == 0
    assert "GPU-hours" in capsys.readouterr().out


def test_neither_torch_nor_transformers_is_imported() -> None:
    """Login nodes are slow, and have other things to do."""
    code = (
        "import sys; from galpaca.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or ', '.join({'torch', 'transformers', 'lightning'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *GALPACA_67B, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_site_has_a_card(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALPACA_GPU", "H200")
    assert answer(*GALPACA_67B)["gpu"] == "H200"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gpu", "A1000"), ("--gpu", "A1000", "A100-80", "export GALPACA_GPUS=")),
        (("--gpus-per-node", "0"), ("--gpus-per-node", "'0'")),
        (("--nodes", "-1"), ("--nodes", "'-1'")),
        (("--records", "0"), ("--records", "got 0")),
        (("--records", "-5"), ("--records", "got -5")),
        (("--records", "99999999999999"), ("--records", "10,000,000")),
        (("--nodes", "two"), ("--nodes", "'two'")),
        (("--interconnect", "string"), ("--interconnect", "string", "hdr200")),
        (("--nodes", "²"), ("--nodes",)),
        (("--interconnect", "1e-300"), ("--interconnect",)),
        (("trainer=cpu",), ("trains on a CPU", "trainer=gpu")),
        (("--gpu", "V100-32"), ("V100-32 is of compute capability 7", "another --gpu")),
        (("--nodes", "64"), ("256 GPUs share a step of 128 examples", "batch.examples")),
        (("strategy=single",), ("strategy=single is for 1 GPU", "strategy=fsdp")),
        (("model=random", "model.path=NoSuch/Model"), ("NoSuch/Model", "without a network", "model.config=FILE")),
        (("batch.max_tokens=100",), ("batch.max_tokens", "the longest example")),
        (("precision=32-true",), ("precision=32-true is none of 16 bits", "--trace")),
    ],
)
def test_what_is_refused(refusal: Callable[..., str], arguments: tuple[str, ...], said: tuple[str, ...]) -> None:
    message = refusal(*GALPACA_67B, *arguments)
    for word in said:
        assert word in message, message
    assert "Traceback" not in message


def test_all_that_is_wrong_is_said_at_once(refusal: Callable[..., str]) -> None:
    message = refusal(*GALPACA_67B, "--gpu", "X1", "--nodes", "0", "--interconnect", "string")
    for word in ("X1", "--nodes", "string"):
        assert word in message


def test_shapes_without_transformers_are_those_that_it_reads(tmp_path: Path) -> None:
    for name in ("galactica-125m", "galactica-30b", "smollm2-135m", "llama-3.2-1b"):
        content = raw_shape(name)
        assert architecture_of(content, family_of(content["model_type"], name)) == shape_of(name)
    bare = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    bare |= {"intermediate_size": 128, "vocab_size": 100}
    found = architecture_of(bare, family_of("llama", "here"))
    assert (found.kv_size, found.tied_head, found.num_biases) == (64, False, 0)
