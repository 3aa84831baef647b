"""Models from weights as training reads them: whole ones, checkpoints, adapters on their base; in 4 bits if asked.

Each tensor goes straight to its place, so that no more than the model itself takes memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from galpaca.errors import InputError, first_line
from galpaca.inference.hub import downloaded
from galpaca.model.adapter_tensors import AdapterTensors, adapter_of, read_adapter_config
from galpaca.model.build import parameter_shapes
from galpaca.model.families.family import Family
from galpaca.model.families.known import read_family, titles
from galpaca.model.folder_tensors import FolderTensors, weights_fingerprint
from galpaca.model.parts import fill, materialize_all, whole_parts
from galpaca.model.tensors import Overlaid, TensorSource, check_shapes
from galpaca.model.trained import FrozenPlace, open_trained
from galpaca.model.tuning.method import TuningMethod
from galpaca.model.tuning.qlora import in_four_bits, quantize_layers, quantized_shapes
from galpaca.model.tuning.tensors import QuantizedTensors
from galpaca.runs.checkpoints import read_manifest
from galpaca.runs.folder import RunFolder
from galpaca.runs.record import read_content
from galpaca.runs.record_fields import ReleaseFacts

_AGAIN = "copy or download the folder again: its config.json belongs to other weights"
_WHOLE = "the whole model without --load-in-4bit; of a run, RUN@STEP, which knows the family of its model"
_OTHER_BASE = "name the folder of the model that the adapter was trained with: --base FOLDER"


@dataclass(frozen=True)
class OpenedWeights:
    """The weights of a model, open.

    Attributes:
        config: the model's.
        family: of the model.
        whole: all weights, adapters merged.
        base: what adapters belong to; the same as ``whole`` where there are none.
        adapters: what adapters were trained with, and their tensors, if there are any.
        files: further folders with files of weights.
        dtype: the weights' own, if it is known.
        max_new_tokens: default length of an answer, if it is known.
    """

    config: PreTrainedConfig
    family: Family
    whole: TensorSource
    base: TensorSource
    adapters: tuple[TuningMethod, TensorSource] | None = None
    files: tuple[Path, ...] = ()
    dtype: torch.dtype | None = None
    max_new_tokens: int | None = None

    def load(self, dtype: torch.dtype, device: torch.device, *, four_bits: bool) -> Any:
        """The model, in eval mode.

        Args:
            dtype: of all weights but those in 4 bits.
            four_bits: linear layers' matrices are quantized to NF4, with adapters beside them as in training.

        Raises:
            InputError: the weights are not those of the configuration.
            torch.OutOfMemoryError: there is no room.
        """
        model: Any = self.family.build(self.config, dtype).eval()
        check_shapes(self.whole.shapes, parameter_shapes(model), "the model's weights", _AGAIN)
        source = self._in_four_bits(model) if four_bits else self.whole
        materialize_all(model, device)
        fill(whole_parts(model), source)
        model.generation_config.max_new_tokens = self.max_new_tokens
        return model

    def _in_four_bits(self, model: Any) -> TensorSource:
        """Changes the model's layers; returns what belongs into them."""
        quantized = QuantizedTensors(self.base, quantized_shapes(self.family, self.base.shapes))
        if self.adapters is None:
            quantize_layers(model, self.family)
            return quantized
        method, tensors = self.adapters
        beside = in_four_bits(method)
        assert beside is not None
        beside.adapt(model)
        return Overlaid(quantized, tensors)


def of_folder(folder: Path) -> OpenedWeights:
    """Of a whole model in a folder.

    Raises:
        InputError: it is of no known family, or its weights cannot be read.
    """
    config, family = _config(folder)
    source = FolderTensors(folder, family, tied_head=config.tie_word_embeddings)
    return OpenedWeights(config, family, source, source, dtype=_dtype_of(config))


def of_adapter(folder: Path, base: Path | None) -> OpenedWeights:
    """Of an adapter's folder, on its base as it is in its files.

    Raises:
        InputError: the adapter or its base is missing, damaged, or they do not belong together.
    """
    unbound, settings = read_adapter_config(folder)
    adapters = AdapterTensors(folder)
    if base is not None and not base.is_dir():
        raise InputError("no such folder", where=base, fix=_OTHER_BASE)
    base_folder = base or _base_folder(folder, settings)
    known = adapters.base_fingerprint
    if known is not None and weights_fingerprint(base_folder) != known:
        raise InputError(
            f"not the model that the adapter was trained with: {base_folder}",
            where=folder,
            why="its weights have another fingerprint",
            fix=_OTHER_BASE,
        )
    found = of_folder(base_folder)
    lora = adapter_of(unbound, found.family, folder)
    check_shapes(adapters.shapes, lora.trained_shapes(lora.shapes(found.base.shapes)), folder, _OTHER_BASE)
    whole = lora.released(found.base, adapters, torch.float32, original=True)
    return OpenedWeights(found.config, found.family, whole, found.base, (lora, adapters), (base_folder,), found.dtype)


def of_checkpoint(run: RunFolder, step: int, base: Path | None) -> OpenedWeights:
    """Of a run's checkpoint; adapters on their base as it was in training.

    Raises:
        InputError: the checkpoint or the frozen model is missing, damaged, or another.
    """
    content = read_content(run.record)
    assert content is not None  # a run without a record is none
    config, family = read_family(str(run.base), read_manifest(run.checkpoint(step)).recipe.settings.get("model.family"))
    place = FrozenPlace(content.weights, family, config.tie_word_embeddings, base)
    trained = open_trained(run.checkpoint(step), place)
    whole, is_adapter = trained.released(), trained.method.adapter_config() is not None
    released = content.release or ReleaseFacts()
    return OpenedWeights(
        config,
        family,
        whole,
        base=trained.frozen if is_adapter and trained.frozen is not None else whole,
        adapters=(trained.method, trained.trained) if is_adapter else None,
        files=() if trained.frozen is None else (place.folder,),
        dtype=getattr(torch, released.dtype),
        max_new_tokens=released.max_new_tokens,
    )


def _dtype_of(config: PreTrainedConfig) -> torch.dtype | None:
    return config.dtype if isinstance(config.dtype, torch.dtype) else None


def _base_folder(folder: Path, settings: dict[str, Any]) -> Path:
    """The folder of the base that an adapter names, downloaded if it is on the Hub."""
    name, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    try:
        return downloaded(str(name), revision)
    except Exception as error:  # no id, no network, and more
        raise InputError(
            f"the model that the adapter belongs to is not on this machine: {name}",
            where=folder,
            why=first_line(error),
            fix=f"--base FOLDER, or download {name} once with network access",
        ) from None


def _config(folder: Path) -> tuple[Any, Family]:
    try:
        return read_family(str(folder))
    except InputError as error:  # of no known family: adapters and 4 bits need one
        raise InputError(error.what, where=folder, why=error.why, fix=_WHOLE) from None
    except Exception as error:  # the library raises a dozen unrelated kinds
        what = f"cannot read the model's configuration: {first_line(error)}"
        raise InputError(what, where=folder, fix=f"a folder with a model of a known family: {titles()}") from None
