"""Whether a released folder is its source: every weight, and what the model says with them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from galpaca.errors import GalpacaError, InputError
from galpaca.model.families.family import Family
from galpaca.model.folder_tensors import FolderTensors
from galpaca.model.tensors import TensorSource, check_shapes, chunks, dtype_name

_NUM_ASKED_TOKENS = 16


def check_tensors(
    source: TensorSource,
    family: Family,
    folder: Path,
    dtype: torch.dtype,
    progress: Callable[[int], None] = lambda values: None,
) -> None:
    """Compares every value on disk with the source's, rounded to ``dtype``.

    Raises:
        GalpacaError: one differs.
    """
    compare(FolderTensors(folder, family, tied_head=False), source, folder, dtype, progress)


def compare(
    written: TensorSource,
    source: TensorSource,
    folder: Path,
    dtype: torch.dtype,
    progress: Callable[[int], None] = lambda values: None,
) -> None:
    """Compares every value of two sources, both rounded to ``dtype``.

    Raises:
        GalpacaError: one differs.
    """
    check_shapes(written.shapes, source.shapes, folder, "export again")
    done = 0
    for name, shape in source.shapes.items():
        for start, stop in chunks(math.prod(shape)):
            ours, theirs = torch.empty(stop - start, dtype=dtype), torch.empty(stop - start, dtype=dtype)
            written.read(name, start, ours)
            source.read(name, start, theirs)
            if not torch.equal(ours, theirs):
                raise _differs(folder, f"{name} is not what was trained")
            done += len(ours)
            progress(done)


def check_logits(source: TensorSource, family: Family, folder: Path, dtype: torch.dtype) -> None:
    """Loads the folder as its users will, and compares its logits with those of the source's weights in ``dtype``.

    Raises:
        GalpacaError: a bit of them differs, or a weight was not loaded.
        InputError: they are no numbers, since what lies between the layers is too large for ``dtype``.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        loaded: Any = getattr(transformers, family.class_name).from_pretrained(
            folder, dtype=dtype, output_loading_info=True
        )
    finally:
        logging.set_verbosity(verbosity)
    model, report = loaded
    left_out = sorted(str(key) for kind in report.values() for key in kind)
    if left_out:
        raise _differs(folder, f"transformers does not load {', '.join(left_out)}")
    config = model.config
    ids = torch.arange(4, 4 + _NUM_ASKED_TOKENS)[None] % config.vocab_size
    with torch.inference_mode():
        ours, theirs = model.eval()(ids).logits, streamed(source, family, config, dtype)(ids).logits
    if not torch.equal(ours.nan_to_num(), theirs.nan_to_num()):
        raise _differs(folder, f"its logits differ from the trained model's by up to {(ours - theirs).abs().max():.1e}")
    if not ours.isfinite().all():
        raise InputError(
            f"in {dtype_name(dtype)} the model's logits are not finite",
            where="dtype",
            why="every weight is finite, but activations overflow: its answers would be nonsense",
            fix="bfloat16 or float32; if those are refused too, an earlier checkpoint",
        )


def streamed(source: TensorSource, family: Family, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """A model whose modules fetch their weights from the source when they are called, and drop them afterwards.

    Its logits are those of the whole model, and it takes the memory of one module.
    """
    model = family.build(config, dtype).eval()
    names = {parameter: name for name, parameter in model.named_parameters()}
    for module in model.modules():
        own = {key: parameter for key, parameter in module._parameters.items() if parameter is not None}
        if own:
            module.register_forward_pre_hook(_fetch(source, {key: names[p] for key, p in own.items()}, dtype))
            module.register_forward_hook(_drop(own))
    return model


def _fetch(source: TensorSource, names: dict[str, str], dtype: torch.dtype) -> Callable[..., None]:
    def fetch(module: nn.Module, arguments: Any) -> None:
        for key, name in names.items():
            values = torch.empty(source.shapes[name], dtype=dtype)
            source.read(name, 0, values.view(-1))
            module._parameters[key] = nn.Parameter(values, requires_grad=False)

    return fetch


def _drop(parameters: dict[str, nn.Parameter]) -> Callable[..., None]:
    def drop(module: nn.Module, arguments: Any, output: Tensor) -> None:
        module._parameters.update(parameters)

    return drop


def _differs(folder: Path, what: str) -> GalpacaError:
    return GalpacaError(
        f"the written model differs from the trained one: {what}",
        where=folder,
        why="a damaged disk, or a defect of galpaca",
        fix="export again; if it fails again, please report it",
    )
