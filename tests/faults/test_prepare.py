"""``galpaca prepare`` and the runs after it: without a network, with damaged files, killed in the middle."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, Started, command, completed
from forked import Server
from hub_downloads import COMMIT, hub, lay_out, lay_out_data_set
from safetensors.torch import load_file

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]

GALPACA = str(REPOSITORY / "src" / "galpaca" / "__main__.py")

# Loaded as Python starts, and handed down to what is forked: whoever asks for a name or a host beyond this machine is
# written down. Then the file of this name that comes next on the path, which it hides.
GUARD = """
import os, sys

log = os.environ["GUARD_LOG"]

def guard(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        outside = isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost")
    else:
        outside = event in ("socket.getaddrinfo", "socket.gethostbyname") and arguments[0] not in (
            None, "", "127.0.0.1", "::1", "localhost", os.uname().nodename
        )
    if outside:
        with open(log, "a") as file:
            file.write(f"{event} {arguments}\\n")
        raise OSError(f"no network: {event} {arguments}")

sys.addaudithook(guard)
sys.path.remove(os.path.dirname(__file__))
del sys.modules["sitecustomize"]
import sitecustomize
"""


@dataclass(frozen=True)
class Online:
    """A server of processes to which nothing says that there is no network, not even when they import.

    Attributes:
        server: its address.
        environment: that it imports with.
        hub_port: where they look for the Hub.
        asked: file of what they asked of anybody else.
    """

    server: str
    environment: Mapping[str, str]
    hub_port: int
    asked: Path


@pytest.fixture
def online(_online: Online) -> Iterator[Online]:
    yield _online
    shutil.rmtree(_online.environment["HF_HOME"], ignore_errors=True)  # what one test has downloaded, the next has not


@pytest.fixture(scope="module")
def _online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Online]:
    """Its Hub's cache is its own: what ``prepare`` of the other server found in a cache is not in it."""
    folder = tmp_path_factory.mktemp("online")
    (folder / "sitecustomize.py").write_text(GUARD)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    asked = folder / "guard.log"
    asked.touch()
    environment = {
        "HF_HOME": str(folder / "huggingface"),
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "GUARD_LOG": str(asked),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        for name, value in environment.items():
            patch.setenv(name, value)
        server = Server(REPOSITORY / "tests")
    yield Online(server.address, environment, port, asked)
    server.close()


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
def laid_out(home: Path) -> Iterator[Path]:
    """The caches of the Hub, for a model and records that a test lays out there."""
    yield home
    take_away(home)


def take_away(home: Path) -> None:
    for name in ("hub/models--acme--tiny", "datasets/acme___facts"):
        shutil.rmtree(home / name, ignore_errors=True)


@pytest.fixture
def galpaca(tmp_path: Path, server: str, home: Path) -> Run:
    """Runs a script in ``tmp_path``."""

    def run(script: str, *words: str, of: Online | None = None, **how: Any) -> Done:
        # What is imported by and by reads the environment when it is.
        address, env = (of.server, of.environment) if of else (server, {"HF_HOME": str(home)})
        return completed(Started(address, [sys.executable, script, *words], tmp_path, env, **how), 240)

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
    return lambda *more, **how: galpaca(GALPACA, "prepare", *overrides, *more, **how)


@pytest.fixture
def train(galpaca: Run, overrides: list[str]) -> Run:
    return lambda *more, **how: galpaca(str(REPOSITORY / "train.py"), *overrides, *more, **how)


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
    prepare: Run, train: Run, online: Online, model: Path, laid_out: Path, records_file: Path, tmp_path: Path
) -> None:
    """With model, tokenizer and records by Hub id, and nothing that says there is no network.

    The caches of the Hub are gone by then: what is prepared stands alone.
    """
    lay_out(laid_out / "hub", "acme/tiny", model)
    lay_out_data_set(laid_out / "datasets", "acme/facts", records_file)
    data = ["data.path=null", "data.hub_id=acme/facts"]
    shown = succeeded(prepare(*data))
    assert shown.count("created") == 3
    assert shown.rstrip().splitlines()[-1].split()[:2] == ["galpaca", "train"]
    again = succeeded(prepare(*data))
    assert again.count("already there, verified") == 3
    take_away(laid_out)

    typed = shlex.split(shown.rstrip().splitlines()[-1])
    assert typed[-2:] == data
    with hub({}, online.hub_port) as (_, requests):
        succeeded(train(*data, of=online))
    assert requests == []
    assert online.asked.read_text() == ""
    weights = weights_record(tmp_path)
    assert (weights["path"], weights["commit"]) == ("acme/tiny", COMMIT)
    assert weights["files"]["model.safetensors"]["sha256"]
    card = (tmp_path / "runs" / "test" / "model" / "README.md").read_text()
    assert "acme/tiny" in card
    assert str(tmp_path / "runs" / ".cache") not in card


def test_without_a_network_the_command_that_prepares_is_shown(train: Run, overrides: list[str], tmp_path: Path) -> None:
    message = refused(train())
    assert "acme/tiny: the model is not on this machine" in message
    assert shlex.join(["galpaca", "prepare", *overrides]) in message
    assert not (tmp_path / "runs" / "test").exists()


# Downloads ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pytorch_weights_of_the_hub_are_converted_and_trained_from_where_there_is_no_network_at_all(
    prepare: Run, train: Run, online: Online, pickled: Path, model: Path, tmp_path: Path
) -> None:
    (pickled / "flax_model.msgpack").write_bytes(b"not wanted")
    with hub({"acme/tiny": pickled}, online.hub_port) as (_, requests):
        succeeded(prepare(of=online))
    assert not [request for request in requests if "msgpack" in request]
    names = sorted(path.name for path in prepared_model(tmp_path).glob("*.safetensors"))
    assert names == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    found = {name: tensor for file in names for name, tensor in load_file(prepared_model(tmp_path) / file).items()}
    wanted = load_file(model / "model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    succeeded(train(of=online, hook="faults.crash:leave_the_network"))


FIND = """
import sys
from galpaca.app.config.composition import compose
from galpaca.app.console import make_console
from galpaca.app.prepared.weights import local_model

local_model(compose(sys.argv[1:])[0], make_console()).verify()
"""


@pytest.mark.slow
def test_ranks_that_start_together_download_once(
    online: Online, overrides: list[str], model: Path, tmp_path: Path
) -> None:
    """Those that srun starts at the same moment."""
    find = tmp_path / "find.py"
    find.write_text(FIND)
    with hub({"acme/tiny": model}, online.hub_port) as (_, requests):
        line = [sys.executable, str(find), *overrides]
        ranks = [Started(online.server, line, tmp_path, online.environment) for _ in range(3)]
        assert [completed(rank, 240).returncode for rank in ranks] == [0, 0, 0]
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
    killed = tmp_path / "killed.py"
    killed.write_text(KILLED_AT_THE_SECOND)
    done = galpaca(str(killed), *arguments)
    assert done.returncode == -signal.SIGKILL
    assert {name for name in names(pickled) if not name.startswith(".")} == before
    assert out is None or not target.exists()

    succeeded(galpaca(GALPACA, *arguments))
    made = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"}
    assert made | {"checksums.json"} <= names(target)
    assert not [name for place in (pickled, tmp_path) for name in names(place) if "partial" in name]


class TestRefused:
    def refusal(self, galpaca: Run, *words: str) -> str:
        return refused(galpaca(GALPACA, "prepare", *words))

    def test_weights_and_overrides_together(self, galpaca: Run, pickled: Path) -> None:
        assert "give either --weights FOLDER" in self.refusal(galpaca, "+experiment=demo", "--weights", str(pickled))
