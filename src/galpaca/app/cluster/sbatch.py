"""The command that submits a run: a script in ``slurm/``, and options that differ from its ``#SBATCH`` lines."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from galpaca.app.config.schema import Config

# Where the repository is the working directory, as it is for those who submit.
SCRIPTS = Path("slurm")
# Where site.env sets one of these, requests are in the site's own words, which this script knows.
SUBMIT = "slurm/submit"
SITES_WORDS = ("GALPACA_GPU_REQUEST", "GALPACA_MEMORY_REQUEST")

_EXPERIMENT = re.compile(r"[~+]*experiment(=.*)?")
_OPTION = re.compile(r"#SBATCH --([\w-]+)=(\S+)")
_DEFAULT = re.compile(r"^with_experiment (\S+)", re.MULTILINE)


def job_line(overrides: Sequence[str], config: Config, options: Sequence[str] = ()) -> str:
    """The command that submits the run.

    Args:
        overrides: overrides for ``train.py``.
        config: the configuration composed from them.
        options: of sbatch, beyond those for the machine.
    """
    script = job_script(overrides, config)
    explicit = script.stem != _experiment(overrides)
    return _line(script, overrides, config, explicit=explicit, options=options)


def job_script(overrides: Sequence[str], config: Config) -> Path:
    """The script of ``job_line``: of the experiment, or for as many nodes and GPUs; it need not be there."""
    script = SCRIPTS / f"{_experiment(overrides)}.sbatch"
    if script.is_file():
        return script
    trainer = config.trainer
    size = "single_gpu" if trainer.num_ranks == 1 else "galpaca67b" if trainer.num_nodes == 1 else "galpaca30b"
    return SCRIPTS / f"{size}.sbatch"


def job_options(overrides: Sequence[str], config: Config) -> dict[str, str]:
    """The options of sbatch that ``job_script`` brings itself, by their long names."""
    return dict(_OPTION.findall(job_script(overrides, config).read_text(encoding="utf-8")))


def rehearsal_line(overrides: Sequence[str], config: Config) -> str:
    """The command that submits its rehearsal; arguments as for ``job_line``."""
    return _line(SCRIPTS / "rehearse.sbatch", overrides, config)


def sweep_line(list_: Path, num_runs: int, overrides: Sequence[str], config: Config) -> str:
    """The command that submits a run for each line of a list.

    Args:
        overrides: those of all runs.
        config: of one of them.
    """
    options = [f"--array=1-{num_runs}"]
    return _line(SCRIPTS / "sweep.sbatch", overrides, config, options=options, first=[str(list_)])


def _line(
    script: Path,
    overrides: Sequence[str],
    config: Config,
    *,
    explicit: bool = False,
    options: Sequence[str] = (),
    first: Sequence[str] = (),
) -> str:
    """The command for one script.

    Args:
        explicit: state nodes and GPUs even if the script's own lines request the same.
        options: further options of sbatch.
        first: arguments of the script before the overrides.
    """
    text = script.read_text(encoding="utf-8")
    own = dict(_OPTION.findall(text))
    is_sites = any(name in os.environ for name in SITES_WORDS)
    wanted = _machine(config, own.get("gres", "gpu:0"))
    asked = {key: value for key, value in wanted.items() if explicit or own.get(key) != value}
    if is_sites and "gres" in asked:
        gpus = config.trainer.devices if config.trainer.accelerator == "gpu" else 0
        asked = {key: value for key, value in asked.items() if key != "gres"} | {"node-gpus": str(gpus)}
    words = [SUBMIT if is_sites else "sbatch", *options, *(f"--{key}={value}" for key, value in asked.items())]
    return shlex.join([*words, str(script), *first, *_given(overrides, _DEFAULT.findall(text)[0], config)])


def _machine(config: Config, own_gpus: str) -> Mapping[str, str]:
    """The resources to request from sbatch.

    Args:
        own_gpus: the script's own request, ``gpu:4`` or ``gpu:TYPE:4``.
    """
    trainer = config.trainer
    # Left out, the script's own line would request GPUs all the same.
    gpus = f"{own_gpus.rpartition(':')[0]}:{trainer.devices}" if trainer.accelerator == "gpu" else "none"
    return {"nodes": str(trainer.num_nodes), "ntasks-per-node": str(trainer.devices), "gres": gpus}


def _given(overrides: Sequence[str], default: str, config: Config) -> list[str]:
    """Overrides for a script that runs ``default`` unless one of them names an experiment."""
    others = [word for word in overrides if not _EXPERIMENT.fullmatch(word)]
    experiments = [word for word in overrides if _EXPERIMENT.fullmatch(word)] or ["~experiment"]
    if experiments == [f"+experiment={default}"]:
        experiments = []
    root = Path(config.run.root).resolve()
    scratch = os.environ.get("GALPACA_RUNS")
    words = [word for word in others if not word.startswith("run.root=")]
    # A script takes GALPACA_RUNS; what was prepared elsewhere has to be named.
    is_elsewhere = not scratch or Path(scratch).resolve() != root
    return [*experiments, *words, *([f"run.root={config.run.root}"] if is_elsewhere else [])]


def _experiment(overrides: Sequence[str]) -> str:
    named = [word.partition("=")[2] for word in overrides if _EXPERIMENT.fullmatch(word)]
    return named[-1] if named else ""
