"""The scripts of ``slurm/``, submitted as a researcher submits them: runs end to end, and jobs that cannot begin."""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY, command

from cluster.forking import STEP_SECONDS, make_environment
from cluster.slurm import Slurm
from galpaca.app.cluster.sbatch import job_line, rehearsal_line
from galpaca.app.config.composition import compose

SCRIPTS = sorted((REPOSITORY / "slurm").glob("*.sbatch"))

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

# For a job on a busy machine of two cores: imports are most of it.
SECONDS = 240


@dataclass(frozen=True)
class Job:
    """A job and its log; of an array, one of its tasks."""

    id: str
    log: Path

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")


Submit = Callable[..., Job]


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    """Lines of ``site.env`` by the variable that they set."""
    (tmp_path / "scratch").mkdir()
    return {
        "GALPACA_RUNS": f"export GALPACA_RUNS={shlex.quote(str(tmp_path / 'scratch'))}",
        "GALPACA_ENVIRONMENT": f"GALPACA_ENVIRONMENT={shlex.quote(sys.prefix)}",
        "MASTER_ADDR": "export MASTER_ADDR=127.0.0.1",  # both nodes are this machine, which need not know its name
    }


@pytest.fixture
def forking(site: dict[str, str], tmp_path: Path, server: str) -> dict[str, str]:
    """A site whose python forks what it starts."""
    return {**site, "GALPACA_ENVIRONMENT": f"GALPACA_ENVIRONMENT={make_environment(tmp_path / 'forking', server)}"}


@pytest.fixture
def submit(slurm: Slurm, tmp_path: Path) -> Submit:
    """Submits a script from ``tmp_path`` with a ``site.env`` of its own."""

    def submit(
        script: str, *words: str, site: dict[str, str] | None, options: tuple[str, ...] = (), home: Path = REPOSITORY
    ) -> Job:
        folder = tmp_path / f"submitted-{len(list(tmp_path.glob('submitted-*')))}"
        folder.mkdir()
        if site is not None:
            (folder / "site.env").write_text("\n".join(site.values()) + "\n")
        environment = {"GALPACA_SITE": str(folder / "site.env"), "GALPACA_HOME": str(home)}
        line = ["sbatch", "--parsable", *options, str(REPOSITORY / "slurm" / script), *words]
        number = slurm.run(*line, environment=environment, cwd=folder).strip()
        task = next((option.partition("=")[2] for option in options if option.startswith("--array=")), "")
        stem = f"slurm-{script.partition('.')[0]}-{number}"
        # A sweep that was submitted without an array still names its log by a task, whose number is SLURM's affair.
        no_array = script == "sweep.sbatch" and not task
        name = f"{stem}_4294967294" if no_array else f"{stem}_{task}" if task else stem
        return Job(f"{number}_{task}" if task else number, folder / f"{name}.out")

    return submit


@pytest.fixture
def overrides(tmp_path: Path, tokenizer_folder: Path, records_file: Path) -> list[str]:
    """A tiny model on CPU processes under FSDP; whose experiment, name and folder are the script's."""
    given = command(tmp_path, tokenizer_folder, records_file, "strategy=fsdp", "precision=32-true", "logger=local")
    return [word for word in given[2:] if not word.startswith("run.")]


def completed(slurm: Slurm, job: Job) -> str:
    """What a job said that has ended well."""
    facts = slurm.wait(job.id, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", seconds=SECONDS)
    assert (facts["JobState"], facts["ExitCode"]) == ("COMPLETED", "0:0"), job.said()
    return job.said()


def started(run: Path) -> dict[str, object]:
    """The machine of a run's last start, and how many ranks its plan is for."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return {**record["starts"][-1]["machine"], "ranks": record["plan"]["ranks"]}


# Accepted -------------------------------------------------------------------------------------------------------------


def test_sbatch_takes_every_script_as_it_is(slurm: Slurm, tmp_path: Path) -> None:
    for script in SCRIPTS:
        job = slurm.run("sbatch", "--parsable", "--hold", str(script), cwd=tmp_path).strip()
        facts = slurm.facts(job)
        assert (facts["JobName"], facts["JobState"], facts["Requeue"]) == (script.stem, "PENDING", "1")


@pytest.mark.parametrize("accelerator", ["gpu", "cpu"])
def test_sbatch_takes_the_lines_that_prepare_prints(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accelerator: str
) -> None:
    monkeypatch.chdir(REPOSITORY)
    for given in ("+experiment=galpaca67b trainer.devices=2", "+experiment=galpaca30b", "+experiment=galpaca1b"):
        words = [*given.split(), f"trainer={accelerator}"]
        config, _ = compose(words)
        for line in (rehearsal_line(words, config), job_line(words, config)):
            sbatch, *rest = shlex.split(line)
            job = slurm.run(sbatch, "--parsable", "--hold", f"--output={tmp_path}/%j.out", *rest, cwd=REPOSITORY)
            facts = slurm.facts(job.strip())
            assert facts["NumTasks"] == str(config.trainer.num_ranks)
            gpus = f"gres:gpu:{config.trainer.devices}" if accelerator == "gpu" else None
            assert facts.get("TresPerNode") == gpus, "a job on CPUs takes GPUs from others"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_comes_back_and_keeps_its_log(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    # What cannot go on where it stopped must not come back for lack of time: it would never end.
    warning = 600 if script.name == "galpaca30b.sbatch" else 180
    for option in ("--requeue", "--open-mode=append", f"--signal=USR1@{warning}"):
        assert re.search(rf"^#SBATCH {option} ", text, re.MULTILINE), option


# End to end -----------------------------------------------------------------------------------------------------------


def test_one_node_with_a_process_for_each_gpu(
    slurm: Slurm, submit: Submit, site: dict[str, str], overrides: list[str], tmp_path: Path, server: str
) -> None:
    """One of the two is a process that imports for itself."""
    environment = make_environment(tmp_path / "forking", server, real="[[ $SLURM_PROCID == 1 ]]")
    site["GALPACA_ENVIRONMENT"] = f"GALPACA_ENVIRONMENT={environment}"
    options = ("--ntasks-per-node=2", "--gres=gpu:2")
    job = submit("galpaca67b.sbatch", *overrides, "trainer.devices=2", site=site, options=options)
    said = completed(slurm, job)
    assert f"job {job.id}, restart 0, 1 node(s) node1, runs in {tmp_path / 'scratch'}" in said
    run = tmp_path / "scratch" / "galpaca67b"
    assert started(run).items() >= {"processes": 2, "nodes": 1, "ranks": 2}.items()
    assert (run / "model" / "config.json").is_file()


def test_several_nodes(
    slurm: Slurm, submit: Submit, forking: dict[str, str], overrides: list[str], tmp_path: Path
) -> None:
    options = ("--nodes=2", "--ntasks-per-node=1", "--gres=gpu:1")
    words = [*overrides, "trainer.num_nodes=2", "trainer.devices=1"]
    completed(slurm, submit("galpaca30b.sbatch", *words, site=forking, options=options))
    run = tmp_path / "scratch" / "galpaca30b"
    assert started(run).items() >= {"processes": 2, "nodes": 2, "ranks": 2}.items()
    assert (run / "model" / "config.json").is_file()


def test_one_gpu_with_another_experiment_and_the_export_of_its_run(
    slurm: Slurm, submit: Submit, forking: dict[str, str], overrides: list[str], tmp_path: Path
) -> None:
    words = ["+experiment=galpaca1b", *overrides, "optim.lr=1e-5"]
    completed(slurm, submit("single_gpu.sbatch", *words, site=forking))
    run = tmp_path / "scratch" / "galpaca1b"
    assert "lr: 1.0e-05" in (run / "config.yaml").read_text(encoding="utf-8")
    out = tmp_path / "exported"
    completed(slurm, submit("export.sbatch", str(run), str(out), "--dtype", "bfloat16", site=forking))
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"


def test_a_rehearsal(
    slurm: Slurm, submit: Submit, forking: dict[str, str], overrides: list[str], tmp_path: Path
) -> None:
    options = ("--ntasks-per-node=2", "--gres=gpu:2")
    words = [*overrides, "trainer.devices=2", "trainer.max_steps=40", "trainer.max_epochs=100"]
    said = completed(slurm, submit("rehearse.sbatch", *words, site=forking, options=options))
    assert "verdict" in said
    assert "--time" in said
    assert re.search(r"machine +2 x ", said), "the tasks rehearse together"
    killed = re.search(r"after step (\d+)", said)
    assert killed is not None
    assert int(killed[1]) > 10
    assert not (tmp_path / "scratch" / "galpaca67b").exists()


def test_a_sweep(slurm: Slurm, submit: Submit, forking: dict[str, str], overrides: list[str], tmp_path: Path) -> None:
    """The last task that ends shows all of them."""
    sweep = tmp_path / "rates.txt"
    sweep.write_text("# low\n\noptim.lr=1e-5 'optim.warmup_ratio=0.5'\n  # high\noptim.lr=1e-2\n")
    first = submit("sweep.sbatch", str(sweep), *overrides, site=forking, options=("--array=1-2",))
    number = first.id.partition("_")[0]
    tasks = [Job(f"{number}_{task}", first.log.with_name(f"slurm-sweep-{number}_{task}.out")) for task in (1, 2)]
    said = [completed(slurm, task) for task in tasks]
    folder = tmp_path / "scratch" / "rates"
    table = (folder / "runs.md").read_text(encoding="utf-8")
    assert any(one.endswith(table) for one in said)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    columns = rows[0].index("optim.lr"), rows[0].index("optim.warmup_ratio")
    # At a rate of 1e-5 a tiny model learns nothing in 4 steps, so the order is known.
    assert [(row[0], row[1], *(row[column] for column in columns)) for row in rows[2:]] == [
        ("002", "complete", "0.01", "0.03"),
        ("001", "complete", "1e-05", "0.5"),
    ]


def test_a_chain_where_nothing_is_requeued(
    slurm: Slurm, site: dict[str, str], tmp_path: Path, server: str, overrides: list[str]
) -> None:
    """Three jobs of one run: the first is out of time, the second goes on, the third finds it complete."""
    environment = make_environment(tmp_path / "forking", server)
    site |= {
        "GALPACA_ENVIRONMENT": f"GALPACA_ENVIRONMENT={environment}",
        "GALPACA_MEMORY_REQUEST": "export GALPACA_MEMORY_REQUEST=",
        STEP_SECONDS: f"export {STEP_SECONDS}=0.1",
    }
    (tmp_path / "site.env").write_text("\n".join(site.values()) + "\n")
    steps = ("trainer.max_steps=100", "trainer.max_epochs=100")
    line = [REPOSITORY / "slurm/submit", "--chain=3", "slurm/single_gpu.sbatch", *overrides, *steps]
    log = f"--output={tmp_path}/%j.out"
    variables = {"GALPACA_SITE": str(tmp_path / "site.env")}
    said = slurm.run(*map(str, [*line[:2], log, *line[2:]]), environment=variables, cwd=REPOSITORY)
    jobs = [Job(number, tmp_path / f"{number}.out") for number in re.findall(r"Submitted batch job (\d+), ", said)]
    assert len(jobs) == 3
    run = tmp_path / "scratch" / "galpaca125m"
    deadline = time.monotonic() + SECONDS
    while not (run / "metrics.jsonl").is_file() or not (run / "metrics.jsonl").read_text():
        assert time.monotonic() < deadline, jobs[0].said()
        time.sleep(0.1)
    assert [slurm.state(job.id) for job in jobs[1:]] == ["PENDING", "PENDING"]
    slurm.run("scancel", "--signal=USR1", jobs[0].id)
    facts = slurm.wait(jobs[0].id, "FAILED", seconds=60)
    assert facts["Restarts"] == "0"
    assert f"job {jobs[0].id} is not requeued: the next job of its chain resumes" in jobs[0].said()
    assert "resuming" in completed(slurm, jobs[1])
    assert "is complete" in completed(slurm, jobs[2])
    lines = [json.loads(text)["step"] for text in (run / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(lines)) == list(range(1, 101))
    assert len(json.loads((run / "run.json").read_text(encoding="utf-8"))["starts"]) == 2


# Jobs that cannot begin -----------------------------------------------------------------------------------------------


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes small file systems."""
    folders: list[Path] = []

    def mount(name: str, *options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        line = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
        if subprocess.run(line, capture_output=True).returncode:
            pytest.skip("needs to mount a file system")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)


def test_what_is_missing_is_one_line_and_exit_code_2(
    slurm: Slurm, submit: Submit, site: dict[str, str], tmp_path: Path, mounted: Callable[..., Path]
) -> None:
    """SLURM must see the failure, nobody should read a stack trace for it, and nothing may be left on scratch."""
    full, read_only = mounted("full"), mounted("read-only")
    (full / "filling").write_bytes(b"")
    filling = subprocess.run(["dd", "if=/dev/zero", f"of={full / 'filling'}"], capture_output=True)
    assert filling.returncode == 1
    subprocess.run(["mount", "-o", "remount,ro", str(read_only)], check=True)
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    sweep = tmp_path / "rates.txt"
    sweep.write_text("optim.lr=1e-5\noptim.lr='1\n")

    def runs(value: object) -> dict[str, str]:
        return {**site, "GALPACA_RUNS": f"export GALPACA_RUNS={shlex.quote(str(value))}"}

    def environment(value: object) -> dict[str, str]:
        return {**site, "GALPACA_ENVIRONMENT": f"GALPACA_ENVIRONMENT={value}; unset PYTHONPATH"}

    train, export = "single_gpu.sbatch", "export.sbatch"
    cases: dict[str, Job] = {
        "cp slurm/site.env.example slurm/site.env": submit(train, site=None),
        "is not valid shell": submit(train, site={**site, "": "if then"}),
        "GALPACA_RUNS is empty": submit(export, site=runs("")),
        "is not a folder on": submit(train, site=runs(tmp_path / "nowhere")),
        "is not writable": submit(train, site=runs(read_only)),
        "is full": submit(train, site=runs(full)),
        "no command module": submit(train, site={**site, "": "GALPACA_MODULES=(cuda)"}),
        "the module cuda does not load": submit(
            train, site={**site, "": "GALPACA_MODULES=(cuda)\nmodule() { return 1; }"}
        ),
        "has no bin/python": submit(train, site=environment(tmp_path / "nowhere")),
        "cannot import galpaca (ModuleNotFoundError": submit(train, site=environment(bare)),
        "both set": submit(train, site={**site, "": "GALPACA_CONTAINER=(env)"}),
        "is not galpaca's repository": submit(train, site=site, home=tmp_path),
        "no list of runs ''": submit("sweep.sbatch", site=site, options=("--array=1",)),
        "has 2 runs, but this is task none": submit("sweep.sbatch", str(sweep), site=site),
        "has 2 runs, but this is task 3": submit("sweep.sbatch", str(sweep), site=site, options=("--array=3",)),
        "unclosed quote: optim.lr='1": submit("sweep.sbatch", str(sweep), site=site, options=("--array=2",)),
    }
    for message, job in cases.items():
        facts = slurm.wait(job.id, "COMPLETED", "FAILED", "CANCELLED", seconds=60)
        *before, last = job.said().splitlines()
        assert (facts["JobState"], facts["ExitCode"]) == ("FAILED", "2:0"), message
        assert last.startswith("error: "), message
        assert message in last
        assert all(line.startswith(f"job {facts['JobId']}, ") for line in before), before
    assert list((tmp_path / "scratch").iterdir()) == []
    assert [path.name for path in full.iterdir()] == ["filling"]


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """A line of ``site.env`` that takes for python what tells its signals, without seconds of imports."""
    program = tmp_path / "stand-in" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(STAND_IN)
    program.chmod(0o755)
    return f"GALPACA_ENVIRONMENT={program.parents[1]}"


STAND_IN = """#!/bin/bash
[[ $1 == *train.py ]] || exit 0
trap 'echo python got USR1; exit 7' USR1
trap 'echo python got TERM; sleep 1; echo saved; exit 143' TERM
echo up
for ((i = 0; i < 600; i++)); do sleep 0.1; done
"""


def up(slurm: Slurm, job: Job) -> None:
    slurm.wait(job.id, "RUNNING", seconds=30)
    deadline = time.monotonic() + 30
    while not (job.log.exists() and "up\n" in job.said()):
        assert time.monotonic() < deadline, job.said()
        time.sleep(0.05)


@pytest.mark.parametrize("script", ["single_gpu", "sweep"])
def test_signals_are_for_python(
    slurm: Slurm, submit: Submit, site: dict[str, str], stand_in: str, tmp_path: Path, script: str
) -> None:
    """A batch shell that died of SIGTERM took srun along: where SLURM follows control groups, as it does on real
    clusters, that was the last that was heard of a run, saved or not."""
    sweep = tmp_path / "rates.txt"
    sweep.write_text("optim.lr=1e-5\n")
    words, options = ([str(sweep)], ("--array=1",)) if script == "sweep" else ([], ())
    site["GALPACA_ENVIRONMENT"] = stand_in
    warned, cancelled = (submit(f"{script}.sbatch", *words, site=site, options=options) for _ in range(2))
    up(slurm, warned)
    slurm.run("scancel", "--signal=USR1", warned.id)
    facts = slurm.wait(warned.id, "COMPLETED", "FAILED", "CANCELLED", seconds=30)
    assert "python got USR1" in warned.said()
    assert (facts["JobState"], facts["ExitCode"]) == ("FAILED", "7:0")

    up(slurm, cancelled)
    slurm.run("scancel", "--batch", "--signal=TERM", cancelled.id)  # to the shell alone
    time.sleep(1)
    assert slurm.state(cancelled.id) == "RUNNING"
    slurm.run("scancel", cancelled.id)
    slurm.wait(cancelled.id, "CANCELLED", seconds=30)
    deadline = time.monotonic() + 10
    while "saved" not in cancelled.said():
        assert time.monotonic() < deadline, cancelled.said()
        time.sleep(0.05)


def test_the_runs_own_exit_code_is_the_jobs(
    slurm: Slurm, submit: Submit, site: dict[str, str], overrides: list[str], tmp_path: Path
) -> None:
    """A script that ends with another command's code is COMPLETED where its run has failed."""
    sweep = tmp_path / "rates.txt"
    sweep.write_text("optim.nothing=1\n")
    job = submit("sweep.sbatch", str(sweep), *overrides, site=site, options=("--array=1",))
    facts = slurm.wait(job.id, "COMPLETED", "FAILED", seconds=SECONDS)
    assert (facts["JobState"], facts["ExitCode"]) == ("FAILED", "2:0")
    assert "optim.nothing" in job.said()
