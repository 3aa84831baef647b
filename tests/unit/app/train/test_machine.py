"""What a machine must have for a run, before anything is written."""

import pytest
import torch

from galpaca.app.config.composition import compose
from galpaca.app.train import instantiate
from galpaca.errors import InputError


def test_a_gpu_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers and the update are compiled in the first step, which would end in the compiler's own error."""
    config, _ = compose(["+experiment=galpaca1b", "trainer.devices=1"])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(instantiate, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="Triton is not installed"):
        instantiate.check_machine(config)
    monkeypatch.setattr(instantiate, "find_spec", lambda name: object())
    instantiate.check_machine(config)
