"""The tensors of an adapter's folder, as PEFT writes them, under the names that they have in training."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from galpaca.errors import InputError
from galpaca.model.families.family import Family
from galpaca.model.tensors import Shapes
from galpaca.model.tuning.lora import Lora

ADAPTER_CONFIG, ADAPTER_FILE = "adapter_config.json", "adapter_model.safetensors"
# Key of the file's metadata.
BASE_FINGERPRINT = "base_fingerprint"
_PREFIX = "base_model.model."
_AGAIN = "copy or download the folder again"


def peft_name(name: str) -> str:
    """The name in PEFT's files of a tensor of a model with adapters."""
    return f"{_PREFIX}{name}"


class AdapterTensors:
    """A ``TensorSource`` over ``adapter_model.safetensors``, memory-mapped.

    Attributes:
        base_fingerprint: of the weights that they were trained with; None where the file does not say.

    Raises:
        InputError: the file is missing, truncated or unreadable.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / ADAPTER_FILE
        try:
            self._file = safe_open(path, "pt")
        except (SafetensorError, OSError) as error:
            what = f"the adapter's weights are missing or damaged: {error}"
            raise InputError(what, where=path, fix=_AGAIN) from None
        keys = {key.removeprefix(_PREFIX): key for key in self._file.keys()}  # noqa: SIM118 - no mapping
        self._keys = keys
        self.base_fingerprint: str | None = (self._file.metadata() or {}).get(BASE_FINGERPRINT)
        self.shapes: Shapes = {name: tuple(self._file.get_slice(key).get_shape()) for name, key in keys.items()}

    def read(self, name: str, start: int, out: Tensor) -> None:
        flat = self._file.get_tensor(self._keys[name]).view(-1)
        with torch.no_grad():
            out.copy_(flat[start : start + out.numel()])


def read_adapter_config(folder: Path) -> tuple[Lora, dict[str, Any]]:
    """An adapter's settings, for any family that has its layers, and all that stands beside them.

    Raises:
        InputError: the file is missing, damaged, or of a kind of adapter that is not LoRA on linear layers.
    """
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        why = f"{ADAPTER_FILE} alone does not say which model it belongs to"
        raise InputError(f"the adapter has no {ADAPTER_CONFIG}", where=folder, why=why, fix=_AGAIN) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", where=path, fix=_AGAIN) from None
    unknown = [
        f"{key}={config.get(key)}"
        for key, usual in _USUAL.items()
        if config.get(key, usual) not in (usual, None, False, [], {})
    ]
    try:
        if unknown:
            raise ValueError(", ".join(unknown))
        settings = (int(config["r"]), float(config["lora_alpha"]), float(config.get("lora_dropout") or 0.0))
        return Lora(*settings, targets=sorted(config["target_modules"])), config
    except InputError as error:
        what = _words(error)
    except (ValueError, TypeError, KeyError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
    raise _not_read(path, what)


def adapter_of(lora: Lora, family: Family, folder: Path) -> Lora:
    """An adapter's settings for the family of its model.

    Raises:
        InputError: it is on layers that such a model does not have.
    """
    try:
        return lora.on(family)
    except InputError as error:
        raise _not_read(folder / ADAPTER_CONFIG, _words(error)) from None


def _words(error: InputError) -> str:
    return "; ".join(one.what for one in getattr(error, "problems", (error,)))


def _not_read(path: Path, what: str) -> InputError:
    return InputError(
        f"an adapter of a kind that is not read: {what}",
        where=path,
        why="only plain LoRA on linear layers is",
        fix="merge it with PEFT's merge_and_unload, and use the merged folder",
    )


# Settings of PEFT's that change what an adapter computes, with the value that does not.
_USUAL: dict[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "use_rslora": False,
    "use_dora": False,
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layer_replication": None,
    "layers_to_transform": None,
    "trainable_token_indices": None,
}
