"""Commands to run before training, and the demo."""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from galpaca.cli.arguments import Run, add_overrides, add_reading, optional_path, take_reading
from galpaca.data.pinned_date import TEMPLATE_DATE


def add_prepare(command: ArgumentParser) -> Run:
    """Download the model and the records, convert the weights to safetensors, encode the records and verify everything,
    so that the run needs no network. Prints the command that starts or submits the run.
    """
    add_overrides(command, ", e.g. +experiment=NAME")
    add = command.add_argument
    sweep = "a file with the overrides of one run per line: check all, and prepare what they need once"
    add("--sweep", type=Path, metavar="LIST", help=sweep)
    add("--weights", type=Path, metavar="FOLDER", help="only convert the pytorch_model*.bin files in FOLDER")
    out = "with --weights: output folder (default: next to the .bin files)"
    add("--out", type=optional_path, metavar="FOLDER", help=out)

    def run(overrides: Sequence[str], sweep: Path | None, weights: Path | None, out: Path | None) -> None:
        from galpaca.app.prepared.convert import convert_folder
        from galpaca.app.prepared.prepare import prepare
        from galpaca.app.prepared.sweep import prepare_sweep

        if sweep is not None and weights is None and out is None:
            prepare_sweep(sweep, overrides)
        elif weights is None and out is None:
            prepare(overrides)
        elif weights is None or overrides or sweep is not None:
            command.error(
                "give either --weights FOLDER [--out FOLDER], or [--sweep LIST] and KEY=VALUE overrides as for train"
            )
        else:
            convert_folder(weights, out)

    return run


def add_estimate(command: ArgumentParser) -> Run:
    """Say what a run will take, on any machine and without a GPU: memory by part, hours, disk, the lines of its
    job, and what to change. Nothing is trained, and no record is read.
    """
    from galpaca.estimate.interconnects import USUAL

    add_overrides(command, ", e.g. +experiment=NAME")
    add = command.add_argument
    names = "card, such as A100-80, V100-16, H200, 4090; several by commas (default: $GALPACA_GPU, or A100-80)"
    add("--gpu", dest="gpus", metavar="NAME", help=names)
    each = "GPUs of a node; several by commas (default: trainer.devices)"
    add("--gpus-per-node", metavar="N", help=each)
    add("--nodes", metavar="N", help="nodes; several by commas (default: trainer.num_nodes)")
    link = f"between nodes: its name, or 10^9 bytes per second of a node (default: {USUAL})"
    add("--interconnect", default=USUAL, metavar="NAME", help=link)
    add("--records", type=int, metavar="N", help="of the data (default: data.expected_records, or Alpaca's 52,002)")
    add("--trace", action="store_true", help="count memory on fake tensors instead of computing it: a minute or two")
    add("--json", dest="as_json", action="store_true", help="print JSON instead of a table")

    def run(**options: Any) -> None:
        from galpaca.app.estimate.command import EstimateOptions, estimate

        estimate(EstimateOptions(**options))

    return run


def add_rehearse(command: ArgumentParser) -> Run:
    """Train on the longest steps of the run's plan, kill the run, resume, export and reload it, and estimate what the
    whole run will take. The real run folder is not touched. Start it under srun or torchrun with one process per GPU,
    or directly in a terminal.
    """
    add_overrides(command, ", e.g. +experiment=NAME")
    add = command.add_argument
    add("--steps", dest="num_steps", type=int, default=20, metavar="N", help="number of steps to train (default: 20)")
    add("--minutes", dest="limit_minutes", type=float, default=30, metavar="MINUTES", help="time limit (default: 30)")
    add("--keep", action="store_true", help="keep the rehearsal's folder")
    add("--json", dest="as_json", action="store_true", help="print one line of JSON instead of a table")

    def run(**options: Any) -> None:
        from galpaca.app.rehearsal.rehearse import RehearseOptions, rehearse

        rehearse(RehearseOptions(**options))

    return run


def add_inspect(command: ArgumentParser) -> Run:
    """Show records as the model will see them, tokens with loss in colour, and the receipt."""
    add = command.add_argument
    add("file", metavar="FILE", help="file, pattern or folder of records")
    add("--tokenizer", required=True, metavar="FOLDER_OR_ID", help="tokenizer folder or Hub id")
    template = "prompt template: alpaca, science, chat_template (the tokenizer's), or a .yaml file (default: alpaca)"
    add("--template", default="alpaca", help=template)
    day = f"what the tokenizer's own template takes for today (default: {TEMPLATE_DATE})"
    add("--template-date", default=TEMPLATE_DATE, metavar="DATE", help=day)
    add("--max-length", type=int, default=512, metavar="TOKENS", help="truncate examples to TOKENS (default: 512)")
    shown = "number of records to show (default: 3)"
    add("--records", dest="num_shown", type=int, default=3, metavar="N", help=shown)
    at = "show these records instead, such as 89,120-125"
    add("--at", metavar="NUMBERS", help=at)
    add_reading(command, "instruction, input or output")
    scripts = "how sub- and superscripts are written (default: keep, which loses them)"
    add("--sub-superscripts", dest="scripts", choices=("keep", "galactica"), default="keep", help=scripts)
    json = "print one line of JSON per record, then the receipt"
    add("--json", dest="as_json", action="store_true", help=json)

    def run(**options: Any) -> None:
        from galpaca.app.inspect import InspectOptions, inspect_file

        inspect_file(InspectOptions(reading=take_reading(options), **options))

    return run


def add_demo(command: ArgumentParser) -> Run:
    """Train a small GALACTICA-style model on records that ship with the package, then quiz it."""
    add_overrides(command)

    def run(overrides: Sequence[str]) -> None:
        from galpaca.app.demo import demo

        demo(overrides)

    return run
