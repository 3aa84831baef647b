"""The trainer leaves signals to ``Shutdown``: Lightning's handler of SIGTERM speaks with other ranks and hangs."""

import signal

from galpaca.training.specs import PrecisionSpec, TrainerSpec
from galpaca.training.strategies import Single
from galpaca.training.trainer import make_trainer


def test_no_handler_is_installed() -> None:
    strategy, precision = Single().make("cpu", PrecisionSpec())
    trainer = make_trainer(strategy, precision, TrainerSpec("cpu", val_every_steps=1), [])
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    trainer._signal_connector.register_signal_handlers()
    after = {number: signal.getsignal(number) for number in signal.valid_signals()}
    trainer._signal_connector.teardown()
    assert after == before
