"""The door: what a command ends with, in one line and an exit code."""

import signal

import pytest

from galpaca.app.entrypoint import run_command
from galpaca.errors import InputError


def test_a_stop_that_a_library_made_an_error_of_is_a_stop(capsys: pytest.CaptureFixture[str]) -> None:
    """Hydra made "Error locating target" of a signal that came while it looked for one: exit code 2, and no requeue."""

    def command() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise InputError("cannot be located", where="strategy") from error

    assert run_command(command) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM\n"
