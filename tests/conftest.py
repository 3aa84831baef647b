"""What all tests share: real data where it is at hand, a small model, ``train.py`` as a user runs it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from forked import Forked, Server
from libraries import deprecations

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = Path(os.environ.get("GALPACA_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
DEMO = REPOSITORY / "src" / "galpaca" / "demo"

# No test reaches for a network, and processes side by side leave each other a core.
os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="true")

# Every Python that tests start reads the file in there first; see ``announcements``.
STARTUP = str(REPOSITORY / "tests" / "libraries" / "startup")


def pytest_configure(config: pytest.Config) -> None:
    for line in deprecations.filters():
        config.addinivalue_line("filterwarnings", line)
    sys.warnoptions.append("default")  # what was requested with -W, training does not hush
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, all that tests start would ignore it


@pytest.fixture(scope="session", autouse=True)
def announcements(tmp_path_factory: pytest.TempPathFactory) -> Iterator[deprecations.Log]:
    """What libraries announce, in this worker's runs, about their own future."""
    log = deprecations.Log(tmp_path_factory.getbasetemp() / "announcements.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", STARTUP, prepend=os.pathsep)
        patch.setenv("GALPACA_TEST_WARNINGS", str(log.path))
        yield log


@pytest.fixture(autouse=True)
def _announces_nothing_new(announcements: deprecations.Log) -> Iterator[None]:
    """A test in whose processes a library announces what is not listed fails."""
    yield
    found = deprecations.unlisted(announcements.new_lines())
    assert not found, "see tests/libraries/deprecations.py:\n" + "\n".join(found)


# Files that take longest, the longest first. Workers begin with them, so that none is left alone with one in the end.
LONGEST = (
    "cluster/test_requeue.py",
    "faults/test_bad_input.py",
    "cluster/test_scripts.py",
    "faults/test_signals.py",
    "faults/test_wandb.py",
    "faults/test_rehearse.py",
    "faults/test_wandb_network.py",
    "bench/test_benchmarks.py",
    "cluster/test_end.py",
    "wheel/test_wheel.py",
    "faults/test_kills.py",
    "invariants/test_adapter_runs.py",
    "browser/test_chat_page.py",
    "faults/test_wandb_sender.py",
    "invariants/test_compile.py",
    "parity/test_adapters.py",
    "invariants/test_adapter_release.py",
    "faults/test_adapter_bad_input.py",
    "invariants/test_gradients.py",
    "browser/test_report.py",
    "faults/test_torchrun.py",
    "invariants/test_resume.py",
    "invariants/test_compiled_run.py",
    "faults/test_prepare.py",
    "faults/test_non_finite.py",
    "browser/test_comparison.py",
    "faults/test_compare_bad_input.py",
    "faults/test_checkpoints.py",
    "faults/test_starts.py",
    "cluster/test_offline.py",
    "faults/test_watch.py",
)

# For whatever is started: it ends what hangs, and is no measure of speed.
LIMIT_SECONDS = 600.0

Train = Callable[..., subprocess.CompletedProcess[str]]
Galpaca = Callable[..., subprocess.CompletedProcess[str]]
MadeOnce = Callable[[str, Callable[[Path], None]], Path]
OnCard = Callable[..., Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {REPOSITORY / "tests" / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pytest's workers share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def made_once(of_all_workers: Path) -> MadeOnce:
    """A folder by its name, which the first pytest worker that asks for it fills, and which tests leave as it is."""
    base = of_all_workers

    def made(name: str, make: Callable[[Path], None]) -> Path:
        folder, is_made = base / name, base / f"{name}.made"
        with FileLock(base / f"{name}.lock"):
            if not is_made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                is_made.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def library_cache(of_all_workers: Path) -> Path:
    """Where the library for pretended cards is; skips where it cannot be built."""
    from fake_cuda.processes import built_library

    return built_library(of_all_workers / "cache")


@pytest.fixture(scope="session")
def on_card(library_cache: Path) -> OnCard:
    """``on_card(card, module, *arguments)`` runs a module on a pretended card and returns the JSON that it prints."""
    from fake_cuda.processes import finished, start

    return lambda card, module, *arguments: finished(start(library_cache, card, module, *arguments))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real records, a tokenizer of GALACTICA's kind, and what the reference makes of them."""
    if not SHARED_DATA.is_dir():
        pytest.skip(
            f"needs alpaca_999.json, galactica_tokenizer/ and alpaca_999_reference.jsonl in {SHARED_DATA}, or where "
            "GALPACA_TEST_DATA says; their licences differ from the code's. With 999 of Alpaca's records and "
            "GALACTICA's tokenizer, tests/parity/plain_reference.py writes the third. Records of the repository prove "
            "the same in tests/parity/test_plain_reference.py"
        )
    return SHARED_DATA


@pytest.fixture(scope="session")
def tokenizer_folder() -> Path:
    """A small tokenizer with GALACTICA's pipeline and special ids."""
    return DEMO / "tokenizer" if (DEMO / "tokenizer").is_dir() else SHARED_DATA / "galactica_tokenizer"


@pytest.fixture(scope="session")
def demo_records() -> list[dict[str, str]]:
    return json.loads((DEMO / "records.json").read_text(encoding="utf-8"))


@pytest.fixture
def records_file(tmp_path: Path, demo_records: list[dict[str, str]]) -> Path:
    """Forty real records."""
    path = tmp_path / "records.json"
    path.write_text(json.dumps(demo_records[::12][:40]), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def home(of_all_workers: Path) -> Path:
    """Where what ``server`` forks has its caches of the Hub (``HF_HOME``), which libraries read at import."""
    return of_all_workers / "huggingface"


@pytest.fixture(scope="session")
def server(of_all_workers: Path, home: Path) -> Iterator[str]:
    """Forks processes that have imported everything, for all workers; see ``forked``."""
    tests, running = REPOSITORY / "tests", of_all_workers / "server"
    with FileLock(f"{running}.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(home))
        try:
            server = Server(tests, running.read_text(encoding="utf-8"))
        except OSError:  # there is none yet, or whoever held it has ended
            server = Server(tests)
            running.write_text(server.address, encoding="utf-8")
    yield server.address
    server.close()


@pytest.fixture
def train(tmp_path: Path, tokenizer_folder: Path, records_file: Path, server: str) -> Train:
    """Runs ``train.py`` as a user would: a tiny model, one CPU process, a run folder ``<tmp_path>/runs/test``.

    Later overrides win over these. With environment variables of its own, it is a process of its own from the start,
    unless ``forked``: libraries must read them when they are used, not when they are imported.
    """

    def run(
        *overrides: str,
        timeout: float = LIMIT_SECONDS,
        env: dict[str, str] | None = None,
        forked: bool = False,
        **how: Any,
    ) -> subprocess.CompletedProcess[str]:
        line = command(tmp_path, tokenizer_folder, records_file, *overrides)
        if env is not None and not forked:
            return subprocess.run(
                line,
                capture_output=True,
                text=True,
                timeout=timeout,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **env},
            )
        return completed(Started(server, line, tmp_path, env=env, **how), timeout)

    return run


@pytest.fixture
def galpaca(tmp_path: Path, server: str) -> Galpaca:
    """Runs a command of ``galpaca``, which shows no stack trace."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        done = completed(Started(server, ["python", "-m", "galpaca", *map(str, arguments)], tmp_path))
        assert "Traceback" not in done.stderr
        return done

    return run


class Started(Forked):
    """A running script whose output goes to files.

    Args:
        line: the command, as one would type it.
        folder: where it runs.
        env: further variables of its environment, which libraries read when they are used.
    """

    def __init__(
        self, server: str, line: list[str], folder: Path, env: Mapping[str, str] | None = None, **how: Any
    ) -> None:
        # Closed by ``completed``.
        self.out, self.err = (tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder) for _ in range(2))  # noqa: SIM115
        stdout, stderr = self.out.fileno(), self.err.fileno()
        variables = {**os.environ, **(env or {})}
        super().__init__(server, line[1:], cwd=folder, env=variables, stdout=stdout, stderr=stderr, **how)


def completed(process: Started, timeout: float = LIMIT_SECONDS) -> subprocess.CompletedProcess[str]:
    """Waits for a process, which is killed when it takes too long, and reads what it said."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill_group()
        raise
    outputs = []
    for file in (process.out, process.err):
        file.seek(0)
        outputs.append(file.read())
        file.close()
    return subprocess.CompletedProcess(process.args, process.wait(), *outputs)


def start_ranks(
    server: str, line: list[str], folder: Path, num_ranks: int, *, per_node: int | None = None, **how: Any
) -> list[Started]:
    """Starts a command in several processes that find each other as under ``torchrun``."""
    per_node = per_node or num_ranks
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_ranks)}
    launched = {"TORCHELASTIC_RUN_ID": "test", "LOCAL_WORLD_SIZE": str(per_node)}
    ranks = [
        {"RANK": str(rank), "LOCAL_RANK": str(rank % per_node), "GROUP_RANK": str(rank // per_node)}
        for rank in range(num_ranks)
    ]
    return [
        Started(server, line, folder, env={**shared, **launched, **rank} if num_ranks > 1 else None, **how)
        for rank in ranks
    ]


def run_ranks(
    server: str,
    line: list[str],
    folder: Path,
    num_ranks: int,
    *,
    per_node: int | None = None,
    seconds: float = LIMIT_SECONDS,
) -> None:
    """Runs a command in several processes, all of which must succeed.

    Args:
        per_node: of them on what each takes for one node.
    """
    processes = start_ranks(server, line, folder, num_ranks, per_node=per_node)
    deadline = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        if any(process.poll() for process in processes):  # the others would wait for it
            break
        time.sleep(0.02)
    for process in processes:
        process.kill()
    done = [completed(process) for process in processes]
    assert [one.returncode for one in done] == [0] * num_ranks, "\n".join(one.stderr for one in done)


def command(tmp_path: Path, tokenizer: Path, records: Path, *overrides: str) -> list[str]:
    """The command line behind ``train``."""
    given = [
        "model=tiny",
        f"model.tokenizer={tokenizer}",
        "model.hidden_size=32",
        "model.ffn_size=64",
        "data=local",
        f"data.path={records}",
        "data.max_length=256",
        "batch.examples=8",
        "trainer=cpu",
        "trainer.max_steps=4",
        f"run.root={tmp_path / 'runs'}",
        "run.name=test",
    ]
    # Hydra takes the last of several values of a key, but only one choice for a group.
    chosen = {override.partition("=")[0] for override in overrides}
    return [
        sys.executable,
        str(REPOSITORY / "train.py"),
        *(default for default in given if default.partition("=")[0] not in chosen),
        *overrides,
    ]


@pytest.fixture(scope="session")
def run(made_once: MadeOnce, server: str, tokenizer_folder: Path, demo_records: list[dict[str, str]]) -> Path:
    """A finished run of 4 steps on two FSDP processes, with checkpoints of steps 2 and 4; tests leave it as it is."""

    def make(folder: Path) -> None:
        records = folder / "records.json"
        records.write_text(json.dumps(demo_records[::12][:40]), encoding="utf-8")
        arguments = command(
            folder, tokenizer_folder, records, "strategy=fsdp", "trainer.devices=2", "checkpoint.every_steps=2"
        )
        done = completed(Started(server, arguments, folder))
        assert done.returncode == 0, done.stderr

    return made_once("run", make) / "runs" / "test"


@pytest.fixture(scope="session")
def base_model_of(made_once: MadeOnce, tokenizer_folder: Path) -> Callable[[Any], Path]:
    """A small model of a kind with its tokenizer, which adapters are trained beside; tests leave it as it is."""

    def made(tiny: Any) -> Path:
        def make(folder: Path) -> None:
            from parity.flat_run import save_model

            save_model(folder, tokenizer_folder, tiny)
            for file in tokenizer_folder.iterdir():
                shutil.copy(file, folder)

        return made_once(f"base_model_{tiny.name}", make)

    return made


@pytest.fixture(scope="session")
def base_model(base_model_of: Callable[[Any], Path]) -> Path:
    """That of the first family."""
    from families import PLAIN_OPT

    return base_model_of(PLAIN_OPT)


@pytest.fixture(scope="session")
def adapted_run(made_once: MadeOnce, server: str, base_model: Path, demo_records: list[dict[str, str]]) -> Path:
    """Finished runs of QLoRA and LoRA, ``qlora`` and ``lora`` in this folder, with checkpoints of steps 4 and 8."""

    def make(folder: Path) -> None:
        records = folder / "records.json"
        records.write_text(json.dumps(demo_records[::12][:40]), encoding="utf-8")
        chosen = ("trainer.max_steps=8", "trainer.max_epochs=9", "checkpoint.every_steps=4", "data.val_fraction=0.1")
        for name in ("lora", "qlora"):
            how = (
                f"run.name={name}",
                f"tuning={name}",
                f"model.path={base_model}",
                "data.max_length=64",
                "optim.lr=1e-2",
            )
            done = completed(Started(server, command(folder, base_model, records, *chosen, *how), folder))
            assert done.returncode == 0, done.stderr

    return made_once("adapted_run", make) / "runs"


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


# By pytest itself, and by torch, Lightning, lm-eval and RDKit when they are imported.
_SET_BY_LIBRARIES = {
    "HF_XET_HIGH_PERFORMANCE",
    "KMP_DUPLICATE_LIB_OK",
    "PIP_DISABLE_PIP_VERSION_CHECK",
    "PYTEST_CURRENT_TEST",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "RDBASE",
    "TORCHINDUCTOR_CACHE_DIR",
    "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR",
}


@pytest.fixture(autouse=True)
def _leaves_no_trace() -> Iterator[None]:
    """A test that changes the environment or leaves a process group behind fails."""
    before = dict(os.environ)
    yield
    changed = {k: v for k, v in os.environ.items() if before.get(k) != v and k not in _SET_BY_LIBRARIES}
    assert changed == {}, "environment variables were left behind"
    if "torch" in sys.modules:
        import torch.distributed

        assert not torch.distributed.is_initialized(), "a process group was left behind"
