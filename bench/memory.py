"""``python -m bench.memory``: memory of exporting a model, and of loading one on the ranks of a run.

Memory is what a process has of its own (RssAnon), read from outside every few milliseconds: files that are mapped are
left out, since the system drops them when it needs the room.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.results import REPOSITORY, RESULTS, save

if TYPE_CHECKING:
    from transformers import OPTConfig

    from galpaca.model.tensors import TensorSource

_DEMO = REPOSITORY / "src" / "galpaca" / "demo"
_EVERY_SECONDS = 0.003
# Of a 1.3b-shaped model: the export at float16, and a rank's load beside its own part of the weights.
BARS_GIB = {"export": 1.5, "load": 1.25}
_SPLITS = 2  # ranks that wrote the checkpoint, and that load the model


@dataclass(frozen=True)
class Shape:
    """A model's sizes; by default those of GALACTICA 1.3b."""

    layers: int
    hidden_size: int
    ffn_size: int
    heads: int
    vocabulary: int


def main() -> int:
    given = _arguments()
    shape = Shape(given.layers, given.hidden_size, given.ffn_size, given.heads, given.vocabulary)
    with tempfile.TemporaryDirectory(prefix="galpaca-memory-", dir=given.folder) as name:
        rows = [row for part in given.parts.split(",") for row in PARTS[part](shape, Path(name) / part)]
    print(f"{'what':<42}{'own':>9}{'weights':>9}{'counted':>9}{'bar':>7}")
    for row in rows:
        bar = f"{row['bar_gib']:7.2f}   {'ok' if row['ok'] else 'TOO MUCH'}" if row["bar_gib"] else ""
        print(f"{row['what']:<42}{row['own_gib']:>9.2f}{row['weights_gib']:>9.2f}{row['counted_gib']:>9.2f}{bar}")
    print("GiB; counted is own memory less the rank's part of the float32 weights")
    print(f"written: {save('memory', {'shape': vars(shape), 'rows': rows}, given.out)}")
    return 0 if all(row["ok"] for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--parts", default="export,load", help="which (%(default)s)")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden-size", type=int, default=2_048)
    parser.add_argument("--ffn-size", type=int, default=8_192)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--vocabulary", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, help="on a disk with room for 8 GB (the system's temporary folder)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    return parser.parse_args()


def measure_export(shape: Shape, folder: Path) -> list[dict[str, Any]]:
    """``galpaca export`` of a checkpoint that two ranks wrote, to float16, checks and all."""
    run = _forked(_make_run, shape, folder)
    command = ["-m", "galpaca", "export", str(run), str(folder / "model"), "--dtype", "float16"]
    (own,) = _peaks([command], [{}])
    shutil.rmtree(folder)
    return [_row("galpaca export, float16", own, 0.0, "export")]


def measure_load(shape: Shape, folder: Path) -> list[dict[str, Any]]:
    """``train.py`` with fsdp on two CPU ranks up to its first step, and ``from_pretrained`` beside it."""
    model = _forked(_make_model, shape, folder)
    weights_gib = _num_values(shape) * 4 / 2**30
    overrides = [
        "+experiment=demo",
        f"model.path={model}",
        f"model.tokenizer={_DEMO / 'tokenizer'}",
        "strategy=fsdp",
        f"trainer.devices={_SPLITS}",
        "checkpoint.keep_last=1",
        "optim.moments_dtype=bfloat16",  # room is requested, and no update is made
        "+callbacks.stop._target_=bench.memory.stop_at_the_first_step",
        f"run.root={folder / 'runs'}",
    ]
    ours = _peaks([["train.py", *overrides]] * _SPLITS, _ranks(_SPLITS), expected=143)
    theirs = _peaks([["-c", _FROM_PRETRAINED, str(model)]] * _SPLITS, [{}] * _SPLITS)
    shutil.rmtree(folder)
    part = weights_gib / _SPLITS
    return [
        *(_row(f"fsdp, rank {rank} of {_SPLITS}", own, part, "load") for rank, own in enumerate(ours)),
        *(_row(f"from_pretrained, rank {rank} of {_SPLITS}", own, part, None) for rank, own in enumerate(theirs)),
    ]


PARTS: dict[str, Callable[[Shape, Path], list[dict[str, Any]]]] = {"export": measure_export, "load": measure_load}

_FROM_PRETRAINED = """\
import sys, torch
from transformers import OPTForCausalLM
OPTForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
"""


def stop_at_the_first_step() -> Any:
    """A callback that ends training when all is loaded."""
    import lightning as L

    from galpaca.errors import StoppedBySignal

    class Stop(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            raise StoppedBySignal("loaded")

    return Stop()


def _row(what: str, own_gib: float, weights_gib: float, bar: str | None) -> dict[str, Any]:
    counted = own_gib - weights_gib
    limit = BARS_GIB[bar] if bar else None
    ok = limit is None or counted <= limit
    figures = {"own_gib": own_gib, "weights_gib": weights_gib, "counted_gib": counted}
    return {"what": what, **{name: round(gib, 3) for name, gib in figures.items()}, "bar_gib": limit, "ok": ok}


def _ranks(count: int) -> list[dict[str, str]]:
    """What torchrun sets for each of its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": "bench",
    }
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def _peaks(commands: Sequence[list[str]], surroundings: Sequence[dict[str, str]], expected: int = 0) -> list[float]:
    """Runs Python side by side, and returns the most that each process had of its own, in GiB."""
    common = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(_PATHS)}
    with tempfile.TemporaryFile("w+") as output:
        processes = [
            subprocess.Popen(
                [sys.executable, *command], cwd=REPOSITORY, env={**common, **extra}, stdout=output, stderr=output
            )
            for command, extra in zip(commands, surroundings, strict=True)
        ]
        try:
            peaks = _watch(processes)
        finally:
            for process in processes:
                process.kill()
        if any(process.wait() != expected for process in processes):
            output.seek(0)
            raise RuntimeError(f"{[process.returncode for process in processes]}: {output.read()[-5_000:]}")
    return peaks


_PATHS = (str(REPOSITORY), str(REPOSITORY / "src"))


def _watch(processes: Sequence[subprocess.Popen[bytes]]) -> list[float]:
    peaks = [0.0] * len(processes)
    while any(process.poll() is None for process in processes):
        for rank, process in enumerate(processes):
            peaks[rank] = max(peaks[rank], _own_gib(process.pid))
        time.sleep(_EVERY_SECONDS)
    return peaks


def _own_gib(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) / 2**20 if found else 0.0


def _forked(make: Callable[[Shape, Path], Path], shape: Shape, folder: Path) -> Path:
    """Makes files in a process of its own, so that what it takes counts for nothing."""
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(make, (shape, folder))


def _make_run(shape: Shape, folder: Path) -> Path:
    """A run folder with the checkpoint of a run that has made no update: weights alone, in two ranks' files."""
    from galpaca.app.config.composition import compose
    from galpaca.app.console import make_console
    from galpaca.app.prepared.weights import LocalModel
    from galpaca.app.train.context import RunContext, StartingPoint
    from galpaca.app.train.data import find_data, prepare_data
    from galpaca.app.train.release import keep_for_release
    from galpaca.app.train.start import open_record
    from galpaca.app.train.steps import plan_steps
    from galpaca.files.checksums import FileFacts, file_facts
    from galpaca.model.tuning.full import FullTuning
    from galpaca.runs.checkpoints import TRAINER, Manifest, SaveSeconds, commit, partial_of, write_report
    from galpaca.runs.folder import RunFolder
    from galpaca.runs.record_fields import ExampleCounts, PlanFigures, Start

    config, _ = compose(["+experiment=demo", f"run.root={folder}"])
    run = RunFolder(folder, config.run.name)
    run.create()
    console = make_console(quiet=True)
    data = prepare_data(config.data, find_data(config.data, folder), config.model.tokenizer_path, console)
    record, _ = open_record(run, config, data, LocalModel(config.model, config.model))
    record.set(receipt=asdict(data.split.examples.receipt), examples=ExampleCounts(train=len(data.split.train)))
    record.set(plan=PlanFigures(steps=1, steps_per_epoch=1))
    record.add_start(Start(step=0))
    model_config = _config(shape)
    source = _source(model_config)
    start = StartingPoint(1, None, source.shapes, source.shapes, FullTuning())
    keep_for_release(RunContext(config, run, record, console, plan_steps(config, data), start), data, model_config)
    checkpoint = run.checkpoint(1)
    partial = partial_of(checkpoint)
    partial.mkdir(parents=True)
    for rank in range(_SPLITS):
        _write_rank(source, partial, rank)
    (partial / TRAINER).write_text(json.dumps({"optimizer": {"updates": 0, "groups": []}}), encoding="utf-8")
    write_report(partial, TRAINER, file_facts(partial / TRAINER))
    manifest = Manifest(1, _SPLITS, source.shapes, record.recipe, FileFacts(0, ""), {}, "")
    commit(checkpoint, manifest, SaveSeconds())
    return run.path


def _write_rank(source: TensorSource, partial: Path, rank: int) -> None:
    """Every parameter's ``rank``-th part of two."""
    import math

    import torch

    from galpaca.model.checkpoint_tensors import WEIGHT, piece_name
    from galpaca.model.tensor_file import TensorEntry, write_tensor_file
    from galpaca.model.tensors import chunks
    from galpaca.runs.checkpoints import rank_file, write_report

    spans = {}
    for name, shape in source.shapes.items():
        low, high = (math.prod(shape) * edge // _SPLITS for edge in (rank, rank + 1))
        spans[name] = (low, high)

    def values() -> Any:
        for name, (low, high) in spans.items():
            for start, stop in chunks(high - low):
                piece = torch.empty(stop - start)
                source.read(name, low + start, piece)
                yield piece

    entries = [
        TensorEntry(piece_name(WEIGHT, name, low), torch.float32, (high - low,)) for name, (low, high) in spans.items()
    ]
    written = write_tensor_file(partial / rank_file(rank), entries, values())
    write_report(partial, rank_file(rank), written)


def _make_model(shape: Shape, folder: Path) -> Path:
    """A folder as the Hub has it: float16."""
    import torch

    from galpaca.release.export import SHARD_BYTES, write_weights

    model = folder / "model"
    model.mkdir(parents=True)
    config = _config(shape)
    write_weights(_source(config), model, torch.float16, SHARD_BYTES)
    config.architectures, config.dtype = ["OPTForCausalLM"], torch.float16
    config.save_pretrained(model)
    return model


def _config(shape: Shape) -> OPTConfig:
    from transformers import OPTConfig

    return OPTConfig(
        hidden_size=shape.hidden_size,
        word_embed_proj_dim=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        ffn_dim=shape.ffn_size,
        vocab_size=shape.vocabulary,
        max_position_embeddings=2_048,
        activation_function="gelu",
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )


def _source(config: OPTConfig) -> TensorSource:
    from galpaca.model.build import build_model, parameter_shapes
    from galpaca.model.families.opt import OPT
    from galpaca.model.random_tensors import RandomTensors

    return RandomTensors(parameter_shapes(build_model(config, OPT)), OPT, seed=0, std=0.02, pad_id=1)


def _num_values(shape: Shape) -> int:
    import math

    return sum(math.prod(values) for values in _source(_config(shape)).shapes.values())


if __name__ == "__main__":
    sys.exit(main())
