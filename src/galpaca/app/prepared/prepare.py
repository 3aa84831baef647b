"""``galpaca prepare``: does everything that needs a network, or only one process, before the job."""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from galpaca.app.cluster.sbatch import SCRIPTS, job_line, rehearsal_line
from galpaca.app.config.composition import compose
from galpaca.app.config.schema import Config
from galpaca.app.console import make_console, show_rows
from galpaca.app.prepared.caches import keep_caches
from galpaca.app.prepared.fetch import make_model, make_tokenizer, model_folder, tokenizer_folder
from galpaca.app.prepared.hub import has_pickled, has_safetensors, is_hub_id
from galpaca.app.prepared.places import Place, show_next, since
from galpaca.app.prepared.rows import make_rows, rows_folder
from galpaca.app.prepared.weights import local_model
from galpaca.app.train.data import find_data, prepare_data
from galpaca.app.train.data_facts import show_data
from galpaca.app.train.samples import load_samples
from galpaca.app.train.steps import plan_steps
from galpaca.model.build import check_weights
from galpaca.model.configuration import check_folder, check_model, read_config
from galpaca.model.spec import ModelSpec


def prepare(overrides: Sequence[str]) -> None:
    """Downloads, converts, encodes and verifies what a run needs, and prints the commands to run next.

    What already exists is verified and kept.

    Args:
        overrides: overrides for ``train.py``.

    Raises:
        InputError: anything that training would reject, except for the machine; or a failed download.
    """
    console = make_console()
    config, _ = compose(overrides)
    prepare_one(config, console)
    show_next(console, next_commands(overrides, config))


def prepare_one(config: Config, console: Console) -> None:
    """Makes and verifies what a run needs, and shows it."""
    root = Path(config.run.root)
    keep_caches(root)
    places = []
    for one in (source.spec for source in config.data.sources if not source.spec.paths):
        is_new = make_rows(one, root)
        places.append(Place("records", rows_folder(one, root), since(is_new=is_new)))
    found = find_data(config.data, root)  # what is wrong with them is reported before gigabytes are fetched
    places += _make_model(config.model, root, console)
    local = local_model(config, console)
    if not any(place.what == "weights" for place in places) and local.folder:
        note = "used as is; checksums verified" if local.verify() else "used as is; no checksums to verify"
        places.append(Place("weights", local.folder, note))
    family = check_model(local.spec, config.data.max_length)
    config = config.on(family)
    encoded_before = set(found.cache.iterdir()) if found.cache.is_dir() else set()
    data = prepare_data(config.data, found, local.spec.tokenizer_path, console)
    places += [Place("encoded", folder, since(is_new=folder not in encoded_before)) for folder in data.cached]
    steps = plan_steps(config, data)
    model_config = read_config(local.spec, family, data.tokenizer)
    load_samples(config, data, family.num_positions(model_config))
    num_parameters = check_weights(local.spec, family, model_config, config.seed)
    show_data(console, data.split)
    weights = config.model.path or "random weights"
    model = ("model", f"{num_parameters:,} parameters, {weights}")
    plan = ("steps", f"{steps.num_steps:,}, {config.batch.examples:,} examples each")
    show_rows(console, "prepared", [model, plan, *(place.row() for place in places)])


def next_commands(overrides: Sequence[str], config: Config) -> list[str]:
    """The next commands: with SLURM and its scripts, a rehearsal and the job; otherwise the run itself."""
    if SCRIPTS.is_dir() and shutil.which("sbatch"):
        return [rehearsal_line(overrides, config), job_line(overrides, config)]
    train = ["python", "train.py"] if Path("train.py").is_file() else ["galpaca", "train"]
    return [shlex.join([*train, *overrides])]


def _make_model(spec: ModelSpec, root: Path, console: Console) -> list[Place]:
    """Downloads or converts model and tokenizer as needed; a folder with safetensors is used as is."""
    places = []
    if spec.path is not None:
        check_folder(spec.path, "model.path")
        folder = Path(spec.path)
        if is_hub_id(spec.path) or (has_pickled(folder) and not has_safetensors(folder)):
            is_new = make_model(spec, root, console, thorough=True)
            places.append(Place("weights", model_folder(spec, root), since(is_new=is_new)))
    if spec.tokenizer is not None and is_hub_id(spec.tokenizer):
        is_new = make_tokenizer(spec.tokenizer, root, thorough=True)
        places.append(Place("tokenizer", tokenizer_folder(spec.tokenizer, root), since(is_new=is_new)))
    return places
