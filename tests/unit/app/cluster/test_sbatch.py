"""What ``galpaca prepare`` tells to type next: the very job, on the machine that its configuration asks for."""

import shlex
from pathlib import Path

import pytest
from conftest import REPOSITORY

from galpaca.app.cluster.sbatch import job_line, rehearsal_line
from galpaca.app.config.composition import compose
from galpaca.app.prepared.prepare import next_commands


@pytest.fixture(autouse=True)
def login_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the repository, with SLURM, after ``source slurm/site.env``; returns the folder of its programs."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("GALPACA_RUNS", str(tmp_path / "scratch"))
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return program.parent


def lines(tmp_path: Path, *overrides: str) -> list[str]:
    words = [*overrides, f"run.root={tmp_path / 'scratch'}"]
    return next_commands(words, compose(words)[0])


@pytest.mark.parametrize(
    ("given", "rehearsal", "job"),
    [
        ("+experiment=galpaca67b", "slurm/rehearse.sbatch", "slurm/galpaca67b.sbatch"),
        (
            "+experiment=galpaca67b optim.lr=1e-5 trainer.devices=2",
            "--ntasks-per-node=2 --gres=gpu:2 slurm/rehearse.sbatch optim.lr=1e-5 trainer.devices=2",
            "--ntasks-per-node=2 --gres=gpu:2 slurm/galpaca67b.sbatch optim.lr=1e-5 trainer.devices=2",
        ),
        (
            "+experiment=galpaca30b",
            "--nodes=4 slurm/rehearse.sbatch +experiment=galpaca30b",
            "slurm/galpaca30b.sbatch",
        ),
        (
            "+experiment=galpaca30b trainer.num_nodes=8",
            "--nodes=8 slurm/rehearse.sbatch +experiment=galpaca30b trainer.num_nodes=8",
            "--nodes=8 slurm/galpaca30b.sbatch trainer.num_nodes=8",
        ),
        (
            "run.name=x +experiment=galpaca1b",
            "--ntasks-per-node=1 --gres=gpu:1 slurm/rehearse.sbatch +experiment=galpaca1b run.name=x",
            "--nodes=1 --ntasks-per-node=1 --gres=gpu:1 slurm/single_gpu.sbatch +experiment=galpaca1b run.name=x",
        ),
        (
            "+experiment=galpaca125m",
            "--ntasks-per-node=1 --gres=gpu:1 slurm/rehearse.sbatch +experiment=galpaca125m",
            "--nodes=1 --ntasks-per-node=1 --gres=gpu:1 slurm/single_gpu.sbatch",
        ),
        (
            "+experiment=galpaca1b strategy=fsdp trainer.devices=4",
            "slurm/rehearse.sbatch +experiment=galpaca1b strategy=fsdp trainer.devices=4",
            "--nodes=1 --ntasks-per-node=4 --gres=gpu:4 slurm/galpaca67b.sbatch "
            "+experiment=galpaca1b strategy=fsdp trainer.devices=4",
        ),
        (
            "+experiment=galpaca1b strategy=ddp trainer.num_nodes=2",
            "--nodes=2 --ntasks-per-node=1 --gres=gpu:1 slurm/rehearse.sbatch "
            "+experiment=galpaca1b strategy=ddp trainer.num_nodes=2",
            "--nodes=2 --ntasks-per-node=1 --gres=gpu:1 slurm/galpaca30b.sbatch "
            "+experiment=galpaca1b strategy=ddp trainer.num_nodes=2",
        ),
        (
            "+experiment=demo",
            "--ntasks-per-node=1 --gres=none slurm/rehearse.sbatch +experiment=demo",
            "--nodes=1 --ntasks-per-node=1 --gres=none slurm/single_gpu.sbatch +experiment=demo",
        ),
        (
            "model.tokenizer=t run.name=x data.path='\"a b\"'",
            "--ntasks-per-node=1 --gres=gpu:1 slurm/rehearse.sbatch '~experiment' "
            "model.tokenizer=t run.name=x 'data.path=\"a b\"'",
            "--nodes=1 --ntasks-per-node=1 --gres=gpu:1 slurm/single_gpu.sbatch '~experiment' "
            "model.tokenizer=t run.name=x 'data.path=\"a b\"'",
        ),
    ],
)
def test_the_lines_of_a_run(tmp_path: Path, given: str, rehearsal: str, job: str) -> None:
    assert lines(tmp_path, *shlex.split(given)) == [f"sbatch {rehearsal}", f"sbatch {job}"]


def test_runs_that_are_not_on_scratch_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The job looked on scratch for what had been prepared below the repository, without a network."""
    words = ["+experiment=galpaca67b"]
    assert job_line(words, compose(words)[0]) == "sbatch slurm/galpaca67b.sbatch"  # prepared on scratch, by default
    words.append("run.root=runs")
    config, _ = compose(words)
    assert job_line(words, config) == "sbatch slurm/galpaca67b.sbatch run.root=runs"
    monkeypatch.setenv("GALPACA_RUNS", str(REPOSITORY / "runs"))
    assert job_line(words, config) == "sbatch slurm/galpaca67b.sbatch"
    monkeypatch.delenv("GALPACA_RUNS")
    assert job_line(words, config) == "sbatch slurm/galpaca67b.sbatch run.root=runs"


def test_the_kind_of_gpu_that_a_script_names_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slurm").mkdir()
    for name in ("galpaca67b", "rehearse"):
        text = (REPOSITORY / "slurm" / f"{name}.sbatch").read_text().replace("gpu:4", "gpu:a100:4")
        (tmp_path / "slurm" / f"{name}.sbatch").write_text(text)
    monkeypatch.chdir(tmp_path)
    words = ["+experiment=galpaca67b", f"run.root={tmp_path / 'scratch'}"]
    assert job_line(words, compose(words)[0]) == "sbatch slurm/galpaca67b.sbatch"
    words.append("trainer.devices=2")
    line = rehearsal_line(words, compose(words)[0])
    assert line == "sbatch --ntasks-per-node=2 --gres=gpu:a100:2 slurm/rehearse.sbatch trainer.devices=2"


def test_without_scripts_or_slurm_it_is_the_run_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login_node: Path
) -> None:
    line = f"python train.py +experiment=galpaca67b run.root={tmp_path / 'scratch'}"
    (login_node / "sbatch").unlink()
    assert lines(tmp_path, "+experiment=galpaca67b") == [line]
    (login_node / "sbatch").touch(0o755)
    monkeypatch.chdir(tmp_path)  # as for an installed package
    assert lines(tmp_path, "+experiment=galpaca67b") == [line.replace("python train.py", "galpaca train")]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("+experiment=galpaca67b", "slurm/submit slurm/galpaca67b.sbatch"),
        (
            "+experiment=galpaca67b trainer.devices=2",
            "slurm/submit --ntasks-per-node=2 --node-gpus=2 slurm/galpaca67b.sbatch trainer.devices=2",
        ),
        (
            "+experiment=demo",
            "slurm/submit --nodes=1 --ntasks-per-node=1 --node-gpus=0 slurm/single_gpu.sbatch +experiment=demo",
        ),
    ],
)
def test_a_site_with_words_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, line: str) -> None:
    monkeypatch.setenv("GALPACA_GPU_REQUEST", "--gpus-per-node=a100:N")
    assert lines(tmp_path, *given.split())[1] == line
