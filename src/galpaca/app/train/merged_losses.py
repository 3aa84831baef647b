"""What a merged model loses against the one that was trained: its validation loss, into each kind of base."""

import copy
from functools import partial

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from galpaca.data.collate import StepDataset
from galpaca.model.build import build_model
from galpaca.model.compute import prepare_layers
from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.families.family import Family
from galpaca.model.loss import nll_sum
from galpaca.model.parts import fill, materialize_all, whole_parts
from galpaca.model.tensors import TensorSource
from galpaca.model.trained import TrainedWeights
from galpaca.runs.record_fields import MergedLosses
from galpaca.training.datamodule import AlpacaDataModule


def merged_losses(
    trained: TrainedWeights,
    config: PreTrainedConfig,
    module: AlpacaDataModule,
    dtype: torch.dtype,
    device: torch.device,
) -> MergedLosses | None:
    """Validation losses of the model merged into its base as trained, and as it is in its files.

    Args:
        config: the model's configuration.
        module: has the held-out examples.
        dtype: of the weights, which is that of the released model, or float32 on a CPU.
        device: where to compute.

    Returns:
        None where there is no validation.

    Raises:
        torch.OutOfMemoryError: the merged model does not fit on the device.
    """
    if not len(module.data.val):
        return None
    model = partial(_model, config, trained.method.family, dtype, device)
    into_trained, into_original = (
        _loss(model(trained.released(original=original)), module, device) for original in (False, True)
    )
    return MergedLosses(trained=into_trained, original=into_original, step=trained.manifest.step)


def _model(
    config: PreTrainedConfig, family: Family, dtype: torch.dtype, device: torch.device, source: TensorSource
) -> PreTrainedModel:
    model = build_model(copy.deepcopy(config), family).eval()
    for parameter in model.parameters():  # no buffers: frequencies of rotary positions stay as they are
        parameter.data = parameter.data.to(dtype)
    prepare_layers(model, family, ComputeSpec())
    materialize_all(model, device)
    fill(whole_parts(model), source)
    return model


@torch.no_grad()
def _loss(model: PreTrainedModel, module: AlpacaDataModule, device: torch.device) -> float:
    """Per target token."""
    total, num_targets = 0.0, 0
    for plan, (_, indices) in zip(module.val_plans(1), module.data.val_parts(), strict=True):
        steps = StepDataset(module.data.examples, indices, plan, 0, plan.steps_per_epoch, module.pad_id)
        for number in range(len(steps)):
            step = steps[number]
            num_targets += step.planned.num_target_tokens
            total += sum(float(nll_sum(model, one.to(device))) for one in step.micro_batches)
    return total / max(1, num_targets)
