"""What a run is called at W&B: by what it was started with, or by its logs."""

from pathlib import Path

import pytest

from galpaca.app.sync import sync
from galpaca.errors import InputError
from galpaca.runs.record import RunRecord


def test_a_users_own_logger_of_the_same_name_is_another(tmp_path: Path) -> None:
    """Its arguments were taken for those of ours, and the command ended with a stack trace."""
    RunRecord(tmp_path / "run.json").update(id="abc")
    (tmp_path / "config.yaml").write_text("logger: {_target_: mine.wandb, server: here}\n")
    with pytest.raises(InputError, match="nothing to W&B"):
        sync([str(tmp_path)], dry_run=True)
