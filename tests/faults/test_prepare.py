"""``galpaca prepare`` and the runs after it: without a network, with damaged files, killed in the middle."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import command
from hub_downloads import COMMIT, hub, lay_out, lay_out_data_set
from safetensors.torch import load_file

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]

# Loaded by every Python process of a run: whoever asks for a name or a host beyond this machine is written down.
GUARD = """
import os, sys

def guard(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        outside = isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost")
    else:
        outside = event in ("socket.getaddrinfo", "socket.gethostbyname") and arguments[0] not in (
            None, "", "127.0.0.1", "::1", "localhost", os.uname().nodename
        )
    if outside:
        with open(os.environ["GUARD_LOG"], "a") as file:
            file.write(f"{event} {arguments}\\n")
        raise OSError(f"no network: {event} {arguments}")

sys.addaudithook(guard)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A tiny OPT model with its tokenizer, as a folder with safetensors."""
    from tokenizers import Tokenizer
    from transformers import OPTConfig, OPTForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_hidden_layers": 2}
    vocab_size = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json")).get_vocab_size()
    torch.manual_seed(0)
    config = OPTConfig(**sizes, num_attention_heads=2, vocab_size=vocab_size, max_position_embeddings=512)
    folder = tmp_path_factory.mktemp("model") / "opt"
    OPTForCausalLM(config).half().save_pretrained(folder)
    for path in tokenizer_folder.iterdir():
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def pickled(model: Path, tmp_path: Path) -> Path:
    """The same with two ``.bin`` shards instead, the head in the second."""
    folder = Path(shutil.copytree(model, tmp_path / "bin"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    items = list(tensors.items())
    shards = {1: dict(items[:5]), 2: dict(items[5:])}
    places = {}
    for number, shard in shards.items():
        name = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save(shard, folder / name)
        places.update(dict.fromkeys(shard, name))
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "hf"


@pytest.fixture
def galpaca(tmp_path: Path, home: Path) -> Run:
    """Runs a command line in ``tmp_path``, its Hub's cache below it."""

    def run(*words: str, **env: str) -> Done:
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            timeout=240,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "HF_HOME": str(home), **env},
        )

    return run


@pytest.fixture
def overrides(tmp_path: Path, tokenizer_folder: Path, records_file: Path) -> list[str]:
    """Of a run of two steps with a Hub id."""
    given = ["model=galactica-125m", "model.path=acme/tiny", "model.tokenizer=null", "trainer.max_steps=2"]
    kept = [
        word
        for word in command(tmp_path, tokenizer_folder, records_file, *given)[2:]
        if not word.startswith(("model.hidden", "model.ffn"))
    ]
    return kept


@pytest.fixture
def prepare(galpaca: Run, overrides: list[str]) -> Run:
    return lambda *more, **env: galpaca("-m", "galpaca", "prepare", *overrides, *more, **env)


@pytest.fixture
def train(galpaca: Run, overrides: list[str], tmp_path: Path) -> Run:
    """Under the guard."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)

    def run(*more: str, **env: str) -> Done:
        paths = os.pathsep.join(filter(None, [str(tmp_path / "guard"), os.environ.get("PYTHONPATH")]))
        run_command = {"PYTHONPATH": paths, "GUARD_LOG": str(tmp_path / "guard.log"), "HF_HUB_OFFLINE": "0"}
        return galpaca(command(tmp_path, tmp_path, tmp_path)[1], *overrides, *more, **{**run_command, **env})

    return run


def requested_outside(tmp_path: Path) -> str:
    log = tmp_path / "guard.log"
    return log.read_text() if log.exists() else ""


def succeeded(done: Done) -> str:
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def refused(done: Done) -> str:
    assert done.returncode == 2, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stderr


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def prepared_model(tmp_path: Path) -> Path:
    return tmp_path / "runs" / ".cache" / "models" / "acme--tiny"


def weights_record(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "runs" / "test" / "run.json").read_text())["weights"]


# Without a network ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_of_prepared_hub_ids_asks_nobody(
    prepare: Run, train: Run, model: Path, home: Path, records_file: Path, tmp_path: Path
) -> None:
    """With model, tokenizer and records by Hub id, and nothing that says there is no network.

    The caches of the Hub are gone by then: what is prepared stands alone.
    """
    lay_out(home / "hub", "acme/tiny", model)
    lay_out_data_set(home / "datasets", "acme/facts", records_file)
    data = ["data.path=null", "data.hub_id=acme/facts"]
    shown = succeeded(prepare(*data))
    assert shown.count("created") == 3
    assert shown.rstrip().splitlines()[-1].split()[:2] == ["python", "train.py"]
    again = succeeded(prepare(*data))
    assert again.count("already there, verified") == 3
    shutil.rmtree(home)

    typed = shlex.split(shown.rstrip().splitlines()[-1])
    assert typed[-2:] == data
    succeeded(train(*data))
    assert requested_outside(tmp_path) == ""
    weights = weights_record(tmp_path)
    assert (weights["path"], weights["commit"]) == ("acme/tiny", COMMIT)
    assert weights["files"]["model.safetensors"]["sha256"]
    card = (tmp_path / "runs" / "test" / "model" / "README.md").read_text()
    assert "acme/tiny" in card
    assert str(tmp_path / "runs" / ".cache") not in card


def test_without_a_network_the_command_that_prepares_is_shown(train: Run, overrides: list[str], tmp_path: Path) -> None:
    message = refused(train(HF_HUB_OFFLINE="1"))
    assert "acme/tiny: the model is not on this machine" in message
    assert shlex.join(["galpaca", "prepare", *overrides]) in message
    assert not (tmp_path / "runs" / "test").exists()


# Downloads ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pytorch_weights_of_the_hub_are_converted_and_trained_from_where_there_is_no_network_at_all(
    prepare: Run, pickled: Path, model: Path, home: Path, tmp_path: Path, overrides: list[str]
) -> None:
    (pickled / "flax_model.msgpack").write_bytes(b"not wanted")
    with hub({"acme/tiny": pickled}) as (address, requests):
        succeeded(prepare(HF_ENDPOINT=address, HF_HUB_OFFLINE="0"))
    assert not [request for request in requests if "msgpack" in request]
    names = sorted(path.name for path in prepared_model(tmp_path).glob("*.safetensors"))
    assert names == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    found = {name: tensor for file in names for name, tensor in load_file(prepared_model(tmp_path) / file).items()}
    wanted = load_file(model / "model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    line = shlex.join([sys.executable, command(tmp_path, tmp_path, tmp_path)[1], *overrides])
    env = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    words = ["unshare", "-rn", "sh", "-c", line]
    succeeded(subprocess.run(words, capture_output=True, text=True, timeout=240, cwd=tmp_path, env=env))


FIND = """
import sys
from galpaca.app.config.composition import compose
from galpaca.app.console import make_console
from galpaca.app.prepared.weights import local_model

local_model(compose(sys.argv[1:])[0], make_console()).verify()
"""


@pytest.mark.slow
def test_ranks_that_start_together_download_once(overrides: list[str], model: Path, home: Path, tmp_path: Path) -> None:
    """Those that srun starts at the same moment."""
    with hub({"acme/tiny": model}) as (address, requests):
        env = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
        line = [sys.executable, "-c", FIND, *overrides]
        ranks = [subprocess.Popen(line, cwd=tmp_path, env=env) for _ in range(3)]
        assert [rank.wait(timeout=240) for rank in ranks] == [0, 0, 0]
    assert sum(request.startswith("GET") and "model.safetensors" in request for request in requests) == 1
    assert [path.name for path in prepared_model(tmp_path).parent.glob(".*")] == []


# Conversion of a folder -----------------------------------------------------------------------------------------------

KILLED_AT_THE_SECOND = """
import os, signal, sys
from galpaca.cli import main
from galpaca.model import pickled_weights

compare = pickled_weights._compare

def kill(path, *arguments):
    if "00002" in path.name:
        os.kill(os.getpid(), signal.SIGKILL)
    compare(path, *arguments)

pickled_weights._compare = kill
main(sys.argv[1:])
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("out", [None, "converted"], ids=["in place", "elsewhere"])
def test_a_conversion_that_was_killed_leaves_nothing_half_written_and_starts_again(
    out: str | None, galpaca: Run, pickled: Path, tmp_path: Path
) -> None:
    target = tmp_path / out if out else pickled
    arguments = ["prepare", "--weights", str(pickled), *(["--out", str(target)] if out else [])]
    before = names(pickled)
    done = galpaca("-c", KILLED_AT_THE_SECOND, *arguments)
    assert done.returncode == -signal.SIGKILL
    assert {name for name in names(pickled) if not name.startswith(".")} == before
    assert out is None or not target.exists()

    succeeded(galpaca("-m", "galpaca", *arguments))
    made = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"}
    assert made | {"checksums.json"} <= names(target)
    assert not [name for place in (pickled, tmp_path) for name in names(place) if "partial" in name]


class TestRefused:
    def refusal(self, galpaca: Run, *words: str) -> str:
        return refused(galpaca("-m", "galpaca", "prepare", *words))

    def test_weights_and_overrides_together(self, galpaca: Run, pickled: Path) -> None:
        assert "give either --weights FOLDER" in self.refusal(galpaca, "+experiment=demo", "--weights", str(pickled))
