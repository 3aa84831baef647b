"""Losses that jump are flagged, and the same ones after a restart."""

from galpaca.runs.spikes import LossSpikes

LOSSES = [1.0] * 12 + [2.5] + [1.0] * 5 + [1.9, 2.1]


def flagged(spikes: LossSpikes, losses: list[float]) -> list[float]:
    return [loss for loss in losses if spikes.add(loss)]


def test_above_the_factor_times_the_median() -> None:
    assert flagged(LossSpikes(2.0), LOSSES) == [2.5, 2.1]


def test_the_first_steps_and_no_factor_flag_nothing() -> None:
    assert flagged(LossSpikes(2.0), [8.0, 1.0, 9.0]) == []
    assert flagged(LossSpikes(None), LOSSES) == []


def test_a_run_that_goes_on_flags_the_same() -> None:
    assert flagged(LossSpikes(2.0, before=LOSSES[:12]), LOSSES[12:]) == [2.5, 2.1]


def test_losses_near_zero_flag_nothing_small() -> None:
    """A model that knows its records by heart had a spike every few steps, of a hundredth."""
    assert flagged(LossSpikes(2.0), [0.005] * 12 + [0.02, 0.3]) == [0.3]
