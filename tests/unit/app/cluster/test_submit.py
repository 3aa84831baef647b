"""``slurm/submit``: a script's requests in the words of a site, tried without SLURM."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY

Submit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def submit(tmp_path: Path) -> Submit:
    """``slurm/submit`` with lines of ``site.env``, and what it calls sbatch."""
    (tmp_path / "scratch").mkdir()
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "sbatch $*"\nfor word; do [ ! -f "$word" ] || grep "^#SBATCH" "$word"; done\n')
    program.chmod(0o755)

    def run(*words: str, site: str = "", path: str | None = None) -> subprocess.CompletedProcess[str]:
        common = f"export GALPACA_RUNS={tmp_path / 'scratch'}\nGALPACA_ENVIRONMENT={sys.prefix}\n"
        (tmp_path / "site.env").write_text(common + site)
        environment = {**os.environ, "GALPACA_SITE": str(tmp_path / "site.env"), "PYTHONPATH": str(REPOSITORY / "src")}
        environment["PATH"] = f"{program.parent}:{os.environ['PATH']}" if path is None else path
        line = [str(REPOSITORY / "slurm" / "submit"), *words]
        return subprocess.run(line, capture_output=True, text=True, env=environment, cwd=REPOSITORY)

    return run


def requests(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line, comments=False) for line in done.stdout.splitlines() if line.startswith("#SBATCH")]
    return [words[1] for words in lines]


def test_without_settings_a_script_is_submitted_as_it_stands(submit: Submit) -> None:
    script = REPOSITORY / "slurm" / "galpaca67b.sbatch"
    own = [line.split()[1] for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    done = submit("--time=1:00:00", "slurm/galpaca67b.sbatch", "optim.lr=1e-5")
    assert requests(done) == own
    first = done.stdout.splitlines()[0]
    assert first.startswith("sbatch --time=1:00:00 /")
    assert first.endswith("/galpaca67b.sbatch optim.lr=1e-5")


@pytest.mark.parametrize(
    ("site", "options", "gone", "there"),
    [
        ("export GALPACA_GPU_REQUEST=--gpus-per-node=a100:N", (), "--gres=gpu:4", ["--gpus-per-node=a100:4"]),
        ("export GALPACA_GPU_REQUEST=--gres=gpu:h100:N", ("--node-gpus=2",), "--gres=gpu:4", ["--gres=gpu:h100:2"]),
        ("export GALPACA_GPU_REQUEST=", (), "--gres=gpu:4", []),
        ("", ("--node-gpus=0",), "--gres=gpu:4", []),
        ("export GALPACA_MEMORY_REQUEST=", (), "--mem=240G", ["--gres=gpu:4"]),
        ("", ("--chain=2",), "--requeue", ["--no-requeue", "--dependency=singleton"]),
    ],
)
def test_requests_are_in_the_words_of_the_site(
    submit: Submit, site: str, options: tuple[str, ...], gone: str, there: list[str]
) -> None:
    found = requests(submit(*options, "slurm/galpaca67b.sbatch", site=site))
    assert gone not in found
    assert set(there) <= set(found)
    assert "--nodes=1" in found


def test_a_chain_is_as_many_jobs_of_one_name(submit: Submit) -> None:
    done = submit("--chain=3", "slurm/galpaca67b.sbatch", "run.name=long")
    lines = [line for line in done.stdout.splitlines() if line.startswith("sbatch ")]
    assert len(lines) == 3
    assert all(line.startswith("sbatch --job-name=long /") for line in lines)


@pytest.mark.parametrize("script", sorted(path.name for path in (REPOSITORY / "slurm").glob("*.sbatch")))
def test_a_dry_run_needs_no_cluster(submit: Submit, tmp_path: Path, script: str) -> None:
    (tmp_path / "rates.txt").write_text("optim.lr=1e-5\n")
    words = [str(tmp_path / "rates.txt")] if script == "sweep.sbatch" else []
    done = submit("--dry-run", f"slurm/{script}", *words, path=f"{sys.prefix}/bin:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert "\nsrun --wait=0 --kill-on-bad-exit=1 python " in done.stdout
    assert done.stdout.endswith("nothing was submitted\n")
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "site", "message"),
    [
        (("--dry-run", "slurm/galpaca67b.sbatch", "optim.lrr=1"), "", "optim.lrr: unknown configuration key"),
        (("--dry-run", "slurm/rehearse.sbatch", "optim.lr=0"), "", "optim.lr: must be > 0"),
        (("--dry-run", "slurm/galpaca67b.sbatch"), "export GALPACA_RUNS=/nowhere", "is not a folder on"),
        (("slurm/galpaca67b.sbatch",), "GALPACA_GPU_REQUEST=--gpus-per-node=4", "has no N for the number of GPUs"),
        (("slurm/galpaca67b.sbatch",), "GALPACA_MEMORY_REQUEST=240G", "has no N for the amount"),
        (("slurm/galpaca.sbatch",), "", "there is no script slurm/galpaca.sbatch"),
        ((), "", "no script is given"),
        (("--chain=x", "slurm/galpaca67b.sbatch"), "", "--chain=x is no number of jobs"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_submitted(
    submit: Submit, words: tuple[str, ...], site: str, message: str
) -> None:
    done = submit(*words, site=site)
    assert done.returncode == 2
    assert message in done.stderr
    assert "sbatch /" not in done.stdout
