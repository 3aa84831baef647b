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
        ("export GALPACA_GPU_REQUEST=--gpus-per-node=NVIDIA_A100:N", (), "", ["--gpus-per-node=NVIDIA_A100:4"]),
    ],
)
def test_requests_are_in_the_words_of_the_site(
    submit: Submit, site: str, options: tuple[str, ...], gone: str, there: list[str]
) -> None:
    found = requests(submit(*options, "slurm/galpaca67b.sbatch", site=site))
    assert gone not in found
    assert set(there) <= set(found)
    assert "--nodes=1" in found


def test_a_chain_is_jobs_that_wait_for_each_other(submit: Submit, tmp_path: Path) -> None:
    """Each for the one before alone: jobs of one name would wait for other runs of the same script."""
    program, log = tmp_path / "bin" / "sbatch", tmp_path / "log"
    program.write_text(f'#!/bin/sh\necho "$GALPACA_CHAIN $*" >>{log}\ngrep -c . {log}\n')
    done = submit("--chain=3", "--dependency=afterok:77", "--job-name=mine", "slurm/galpaca67b.sbatch", "optim.lr=1e-5")
    assert done.returncode == 0, done.stderr
    assert [line.rpartition(", ")[2] for line in done.stdout.splitlines()] == [
        f"{n} of a chain of 3" for n in (1, 2, 3)
    ]
    given = [line.split() for line in log.read_text().splitlines()]
    assert [words[0] for words in given] == ["1/3", "2/3", "3/3"]
    waits = [[word for word in words if word.startswith("--dependency")][-1] for words in given]
    assert waits == ["--dependency=afterok:77", "--dependency=afterany:1", "--dependency=afterany:2"]
    assert all("--no-requeue" in words and "--job-name=mine" in words for words in given)


@pytest.mark.parametrize(
    ("line", "options", "site", "expected"),
    [
        ("--gres=gpu:a100:4", (), "", "--gres=gpu:a100:4"),
        ("--gres=gpu:a100:4", ("--node-gpus=2",), "", "--gres=gpu:a100:2"),
        ("--gres=gpu:a100:4", (), "GALPACA_GPU_REQUEST=--gpus-per-node=N", "--gpus-per-node=4"),
        ("--mem=0", (), "", "--mem=0"),
        ("--gres=gpu:4,nvme:1", (), "", None),
    ],
)
def test_a_script_that_somebody_has_changed_is_understood_or_refused(
    submit: Submit, tmp_path: Path, line: str, options: tuple[str, ...], site: str, expected: str | None
) -> None:
    script = tmp_path / "own.sbatch"
    script.write_text(f"#!/bin/bash\n#SBATCH {line}  # changed\n#SBATCH --time=1:00:00\n")
    done = submit(*options, str(script), site=site)
    if expected is None:
        assert done.returncode == 2
        assert "gpu:4,nvme:1 in" in done.stderr
    else:
        assert requests(done) == [expected, "--time=1:00:00"]


def test_a_rehearsals_own_options_are_no_overrides(submit: Submit) -> None:
    done = submit("--dry-run", "slurm/rehearse.sbatch", "--steps=4", "--minutes", "3", "trainer.devices=2")
    assert done.returncode == 0, done.stderr


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
        (("--chain", "5", "slurm/galpaca67b.sbatch"), "", "behind an equals sign, as in --chain=2"),
        (("slurm/galpaca67b.sbatch", "--dry-run"), "", "--dry-run comes before the script"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_submitted(
    submit: Submit, words: tuple[str, ...], site: str, message: str
) -> None:
    done = submit(*words, site=site)
    assert done.returncode == 2
    assert message in done.stderr
    assert "sbatch /" not in done.stdout
