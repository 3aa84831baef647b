"""The folder of an adapter, as PEFT reads it: what was trained, without the model that it belongs to."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galpaca.model.adapter_tensors import ADAPTER_CONFIG, ADAPTER_FILE, BASE_FINGERPRINT, AdapterTensors, peft_name
from galpaca.model.tensor_file import TensorEntry, write_tensor_file
from galpaca.model.tensors import TensorSource
from galpaca.release.base import Base, save_json
from galpaca.release.export import save_generation, whole_folder
from galpaca.release.verify import compare


@dataclass(frozen=True)
class AdapterSettings:
    """What the files of an adapter say of it.

    Attributes:
        config: settings of ``adapter_config.json``.
        base_fingerprint: of the weights that it belongs to; kept with it.
        max_new_tokens: default length of an answer.
    """

    config: Mapping[str, Any]
    base_fingerprint: str
    max_new_tokens: int


def export_adapter(adapters: TensorSource, settings: AdapterSettings, base: Base, card: str, out: Path) -> None:
    """Writes the folder, compares its weights with their source, and puts it in place.

    Args:
        adapters: trained tensors, which are kept in float32.
        base: the model's, without which an adapter cannot be prompted.
        card: text of README.md.
        out: the folder; one that is there is replaced.

    Raises:
        InputError: a folder that cannot be written; a full disk.
        GalpacaError: what was written differs from what was trained.
    """
    metadata = {"format": "pt", BASE_FINGERPRINT: settings.base_fingerprint}
    with whole_folder(out) as partial:
        names = sorted(adapters.shapes)
        entries = [TensorEntry(peft_name(name), torch.float32, tuple(adapters.shapes[name])) for name in names]
        write_tensor_file(partial / ADAPTER_FILE, entries, _values(adapters, names), metadata)
        save_json(partial / ADAPTER_CONFIG, settings.config)
        base.save_text(partial)
        save_generation(base, partial, settings.max_new_tokens)
        (partial / "README.md").write_text(card, encoding="utf-8")
        compare(AdapterTensors(partial), adapters, partial, torch.float32)


def _values(adapters: TensorSource, names: list[str]) -> Iterator[Tensor]:
    for name in names:
        values = torch.empty(math.prod(adapters.shapes[name]))
        adapters.read(name, 0, values)
        yield values
