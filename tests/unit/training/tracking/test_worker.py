import threading
from typing import Any

from galpaca.training.tracking.worker import Worker


def test_calls_are_made_in_order_in_a_thread_of_their_own() -> None:
    made: list[Any] = []
    worker = Worker(lambda: "begun", lambda error: made.append(error), lambda: made.append("end"))
    worker.do(lambda begun: made.append((begun, threading.current_thread() is threading.main_thread())))
    worker.do(lambda begun: made.append(2))
    assert worker.close(10)
    assert made == [("begun", False), 2, "end"]


def test_the_first_error_is_told_and_ends_it() -> None:
    told: list[Any] = []
    worker = Worker(lambda: None, lambda error: told.append(str(error)), lambda: told.append("end"))
    worker.do(lambda _: [][1])
    worker.do(lambda _: told.append("never"))
    assert worker.close(10)
    worker.do(lambda _: told.append("never"))
    assert told == ["list index out of range", "end"]


def test_a_beginning_that_fails_is_told_too() -> None:
    told: list[str] = []
    worker = Worker(lambda: {}["key"], lambda error: told.append(repr(error)))
    assert worker.close(10)
    assert told == ["KeyError('key')"]


def test_nobody_waits_longer_than_asked() -> None:
    release = threading.Event()
    worker = Worker(lambda: None, lambda error: None)
    worker.do(lambda _: release.wait(30))
    assert not worker.close(0.05)
    release.set()
    assert worker.close(10)
