"""Figures of the machine, beside those of the steps."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from galpaca.runs import system
from galpaca.runs.system import SystemLog, gpu_figures, host_figures


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def test_the_machine_is_sampled_until_the_log_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "system.jsonl"
    log = SystemLog(path, every_seconds=0.01)
    log.step = 7
    log.write({"checkpoint/bytes": 5, "loss": float("nan")})
    deadline = time.monotonic() + 30
    while len(lines(path)) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    log.close()
    found = lines(path)
    assert len(found) >= 4
    (checkpoint,) = [line for line in found if "checkpoint/bytes" in line]
    assert checkpoint.keys() == {"time", "step", "checkpoint/bytes"}
    assert checkpoint["step"] == 7
    assert abs(found[0]["time"] - time.time()) < 60
    assert max(line.get("host_memory_bytes", 0) for line in found) > 2**20
    time.sleep(0.05)
    assert lines(path) == found


def test_half_a_line_of_a_killed_run_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "system.jsonl"
    path.write_text('{"time": 1.0, "st', encoding="utf-8")
    log = SystemLog(path, every_seconds=60)
    log.write({"a": 1})
    log.close()
    first, *others = path.read_text(encoding="utf-8").splitlines()
    assert first == '{"time": 1.0, "st'
    assert [json.loads(text)["step"] for text in others] == [0, 0]


def test_a_full_disk_is_no_error(tmp_path: Path) -> None:
    log = SystemLog(Path("/dev/full"), every_seconds=0.01)
    log.write({"a": 1})
    log.close()


def test_gpus_are_those_of_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output of nvidia-smi as of driver 550; what a GPU does not tell is [N/A]."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        '#!/bin/sh\n[ "$1" = --query-gpu=index,utilization.gpu,memory.used,power.draw,temperature.gpu ] || exit 2\n'
        "printf '0, 97, 70123, 612.40, 64\\n1, [N/A], 4, 71.02, 33\\n'\n",
        encoding="utf-8",
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert gpu_figures() == {
        "gpu0_utilization_percent": 97.0,
        "gpu0_memory_bytes": 70123 * 2**20,
        "gpu0_power_watts": 612.4,
        "gpu0_temperature_celsius": 64.0,
        "gpu1_memory_bytes": 4 * 2**20,
        "gpu1_power_watts": 71.02,
        "gpu1_temperature_celsius": 33.0,
    }


@pytest.mark.parametrize("text", ["exit 9", "sleep 30", "echo No devices were found"])
def test_a_driver_that_fails_or_hangs_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(system, "_ANSWER_SECONDS", 0.2)
    assert gpu_figures() == {}


def test_there_is_no_gpu_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpu_figures() == {}
    assert host_figures()["host_load"] >= 0
