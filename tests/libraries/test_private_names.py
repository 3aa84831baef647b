"""Private names of other libraries are listed with a reason, and each of them is still there.

``_broadcast_sigterm_tensor`` could be renamed, so that our override of it was never called again and every step waited
for the GPU, and no test failed.
"""

from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest
from floors.test_floors import modules, package_of
from libraries.inventory import LISTED, trainer
from libraries.private_names import Use, callers_of, look_up, overrides_of, uses_of
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

HINT = "use a public name, or list it in tests/libraries/inventory.py with the reason"


@pytest.fixture(scope="module")
def uses() -> list[Use]:
    sources = {module: source for module, source in modules().items() if package_of(module) != "doors"}
    overrides = [use for module, source in sources.items() for use in overrides_of(module, source)]
    return overrides + [use for module, source in modules().items() for use in uses_of(module, source)]


def test_every_private_name_is_listed(uses: list[Use]) -> None:
    assert [use for use in uses if use.name not in LISTED] == [], HINT


def test_every_listed_name_is_used(uses: list[Use]) -> None:
    """A list that holds more than is used is believed by nobody."""
    assert LISTED.keys() - {use.name for use in uses} == set()


@pytest.mark.parametrize("name", LISTED)
def test_a_listed_name_is_still_there(name: str) -> None:
    check(name)


def check(name: str) -> None:
    """Looks a name up in the installed library.

    Raises:
        AttributeError, ModuleNotFoundError: it is gone, or what is used of it.
        AssertionError: it is overridden, and the library does not call it any more.
    """
    listed = LISTED[name]
    if name.startswith("."):
        assert listed.holder is not None, "only an object has it"
        listed.used(attrgetter(name[1:])(listed.holder()))
        return
    found = look_up(name)
    listed.used(found)
    owner, _, last = name.rpartition(".")
    if callable(found) and isinstance(look_up(owner), type) and "overridden" in listed.reason:
        package = ".".join(name.split(".")[:2])
        assert callers_of(last, package), f"nothing in {package} calls {last}, so our override does nothing"


class TestTheCheck:
    """What is renamed in a library is found."""

    def test_a_method_that_is_overridden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(_TrainingEpochLoop, "_broadcast_sigterm_tensor")
        with pytest.raises(AttributeError, match="_broadcast_sigterm_tensor"):
            check("lightning.pytorch.loops.training_epoch_loop._TrainingEpochLoop._broadcast_sigterm_tensor")

    def test_an_attribute_of_an_object(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(trainer(), "_signal_connector")
        with pytest.raises(AttributeError, match="_signal_connector"):
            check("._signal_connector")

    def test_a_module(self) -> None:
        with pytest.raises(ModuleNotFoundError):
            look_up("torch._dynamo.no_such_module.counters")

    def test_an_operation(self) -> None:
        with pytest.raises(ModuleNotFoundError):
            look_up("torch.ops.aten._no_such_attention.default")


def found(source: str) -> list[str]:
    return [use.name for use in uses_of("galpaca.some", source)]


class TestTheReader:
    """What this file would not find, it would not hold."""

    @pytest.mark.parametrize(
        ("source", "name"),
        [
            ("from torch.distributed.fsdp import _common_utils", "torch.distributed.fsdp._common_utils"),
            ("from torch._inductor import config", "torch._inductor.config"),
            ("def f():\n    import torch._inductor", "torch._inductor"),
            ("import torch\nx = torch._C._nn.gelu(1)", "torch._C._nn.gelu"),
            ("import torch as t\nt._assert(1)", "torch._assert"),
            ("from torch import nn\nnn.Module._call_impl", "torch.nn.Module._call_impl"),
            ("def f(unit): unit._handle.unshard()", "._handle.unshard"),
            ("def f(unit): unit.module._all[0].x", "._all"),
            ("def f(unit): unit._state.items()", "._state"),
            ("def f(unit): g(unit)._state = 1", "._state"),
            ("def f(x): getattr(x, '_state', None)", "._state"),
            ("prefix = '_orig_mod.'", "._orig_mod"),
            ("import sys\nsys.modules.get('torch._dynamo.utils')", "torch._dynamo.utils"),
            ("def f(g): g(_from_auto=True)", "_from_auto="),
            ("class A(Base):\n    def f(self): return self._state", "._state"),
            ("class A(Base):\n    def f(self): return self.other._mine\n    _other = 1", "._mine"),
        ],
    )
    def test_a_private_name_is_found(self, source: str, name: str) -> None:
        assert found(source) == [name]

    @pytest.mark.parametrize(
        "source",
        [
            "import os, sys\nos._exit(1)\nsys._current_frames()",
            "from galpaca.errors import _private",
            "class A:\n    def __init__(self): self._x = 1\n    def f(self): return self._x.y",
            "class A:\n    _x: int = 1\n    def f(self): return self._x",
            "class A:\n    def _f(self): pass\ndef g(a): a._f()",
            "node.get('_target_')\nf(_partial_=True)",
            "'''_docstring'''\nx = f'{y}_seconds' + z.removesuffix('_stderr')",
            "import torch\ntorch.nn.Module.__init__",
        ],
    )
    def test_others_are_not(self, source: str) -> None:
        assert found(source) == []

    def test_overrides_are_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """On purpose, by accident, of a private class, and through a class of ours in between."""
        source = """
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

class Module(LightningModule):
    def __init__(self):
        self._device = 1
        self._mine = 2

class Further(Module):
    def _call_impl(self): pass

class Signals(_SignalConnector):
    def teardown(self): pass
"""
        (tmp_path / "overriding.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        assert [use.name.split(".", 1)[1] for use in overrides_of("overriding", source)] == [
            "fabric.utilities.device_dtype_mixin._DeviceDtypeModuleMixin._device",
            "nn.modules.module.Module._call_impl",
            "pytorch.trainer.connectors.signal_connector._SignalConnector.teardown",
        ]
        import_module("overriding")
