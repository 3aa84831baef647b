"""The room that a run is said to need."""

from pathlib import Path

import pytest

from galpaca.app.config.composition import compose
from galpaca.app.train import disk_space
from galpaca.app.train.disk_need import disk_need
from galpaca.errors import InputError, Problems
from galpaca.runs.folder import RunFolder

PARAMETERS, ADAPTERS, STEPS = 6_657_359_872, 37_748_736, 1_221


@pytest.mark.parametrize(
    ("overrides", "released"),
    [
        ((), 2 * PARAMETERS + 4 * ADAPTERS),
        (("release.dtype=float32",), 4 * PARAMETERS + 4 * ADAPTERS),
        (("release.merge=false",), 4 * ADAPTERS),
    ],
)
def test_adapters_need_room_for_themselves_and_for_the_merged_model(
    tmp_path: Path, overrides: tuple[str, ...], released: int
) -> None:
    config, _ = compose(["+experiment=galpaca67b_lora", *overrides])
    folder = RunFolder(tmp_path, "run")
    need = disk_need(folder, config, STEPS, PARAMETERS, ADAPTERS)
    assert need.checkpoint_bytes == 12 * ADAPTERS
    assert need.total_bytes == 3 * 12 * ADAPTERS + released
    folder.adapter.mkdir(parents=True)
    assert disk_need(folder, config, STEPS, PARAMETERS, ADAPTERS).model_bytes == released - 4 * ADAPTERS


def test_full_tuning_needs_room_for_all_parameters(tmp_path: Path) -> None:
    config, _ = compose(["+experiment=galpaca67b"])
    need = disk_need(RunFolder(tmp_path, "run"), config, STEPS, PARAMETERS, PARAMETERS)
    assert (need.checkpoint_bytes, need.model_bytes) == (12 * PARAMETERS, 2 * PARAMETERS)


def test_moments_in_host_memory_need_it_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice what one model's take where two processes of a node hold a copy each; a checkpoint's copy comes on top."""
    config, _ = compose(["+experiment=galpaca67b", "optim.moments_on=host"])
    state = 8 * PARAMETERS
    for available, where in (
        (state - 1, ["optim.moments_on"]),
        (state + 1, ["checkpoint.asynchronous"]),
        (20 * PARAMETERS, []),
    ):
        monkeypatch.setattr(disk_space, "available_memory_bytes", lambda found=available: found)
        problems = Problems()
        disk_space._check_memory(problems, config, 12 * PARAMETERS, state)
        assert problems.count == len(where)
        for name in where:
            with pytest.raises(InputError, match=name):
                problems.raise_any()
