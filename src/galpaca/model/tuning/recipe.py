"""What a run was tuned with, from its recipe."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from galpaca.errors import InputError
from galpaca.model.families.family import Family
from galpaca.model.tuning.full import FullTuning
from galpaca.model.tuning.method import TuningMethod

_PREFIX = "tuning."


def method_of(settings: Mapping[str, Any], family: Family) -> TuningMethod:
    """The method of a recipe for models of a family; where it names none, all parameters are trained.

    Raises:
        InputError: it names something that is not there.
    """
    values = {key.removeprefix(_PREFIX): value for key, value in settings.items() if key.startswith(_PREFIX)}
    if not values:
        return FullTuning().on(family)
    target = str(values.pop("_target_"))
    try:
        module, _, name = target.rpartition(".")
        method = getattr(import_module(module), name)(**values)
        assert isinstance(method, TuningMethod)
    except (ImportError, AttributeError, TypeError, ValueError, AssertionError) as error:
        fix = "put the module on PYTHONPATH that training used"
        raise InputError(f"cannot make what the run is tuned with: {error}", where=target, fix=fix) from None
    return method.on(family)
