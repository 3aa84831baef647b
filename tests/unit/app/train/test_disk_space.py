"""The room that a run is said to need."""

from pathlib import Path

import pytest

from galpaca.app.config.composition import compose
from galpaca.app.train.disk_space import disk_need
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
