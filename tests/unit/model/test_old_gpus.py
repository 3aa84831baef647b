"""A GPU without the kernel over all examples takes the other path, instead of dying in its first step."""

import pytest
import torch

from galpaca.app.config.composition import compose
from galpaca.app.train import start
from galpaca.model.attention import is_fast


@pytest.mark.parametrize(
    ("capability", "fast"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True), ((12, 0), True)]
)
def test_below_compute_capability_8_0(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], fast: bool) -> None:
    """A V100 or T4 died in its first step, after the queue and the load."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert is_fast("gpu", "16-mixed", 0.0) is fast
    config, _ = compose(["+experiment=galpaca1b"])
    assert config.fast_attention is fast
    said = start._attention(config)
    assert said == ("all examples in one kernel" if fast else said)
    assert ("compute capability is below 8.0" in said) is not fast
    assert config.compute.compiles(config.fast_attention) is fast


def test_a_machine_without_a_gpu_answers_for_one_that_has() -> None:
    assert is_fast("gpu", "16-mixed", 0.0)
    assert not is_fast("cpu", "16-mixed", 0.0)
    assert not is_fast("gpu", "32-true", 0.0)
    assert not is_fast("gpu", "16-mixed", 0.1)
