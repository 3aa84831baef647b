"""What a run leaves in memory when it ends."""

from typing import Any

import numpy as np
import torch
from invariants.gradients.toy import PAD, make_examples, make_model

from galpaca.data.split import SplitExamples
from galpaca.model.attention import PACKED_ATTENTION
from galpaca.model.compute import prepare_layers
from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.families.opt import OPT
from galpaca.model.tuning.full import FullTuning
from galpaca.training.datamodule import AlpacaDataModule
from galpaca.training.module import InstructionTuner
from galpaca.training.specs import BatchSpec, OptimizerSpec, PrecisionSpec, TrainerSpec
from galpaca.training.strategies import Single
from galpaca.training.trainer import make_trainer


def test_gradients_and_moments_are_dropped_and_weights_stay() -> None:
    """Lightning takes them all to the host: four times the weights, when the run is as good as done."""
    model, examples = make_model(), make_examples()
    model.set_attn_implementation(PACKED_ATTENTION)
    prepare_layers(model, OPT, ComputeSpec())
    indices = np.arange(len(examples))
    spec = TrainerSpec("cpu", max_epochs=1, val_every_steps=2)
    split = SplitExamples(examples, indices, indices[:0])
    data = AlpacaDataModule(split, BatchSpec(20, 64), spec, seed=0, pad_id=PAD)
    strategy, precision = Single().make("cpu", PrecisionSpec())
    tuner = InstructionTuner(model, OptimizerSpec(lr=1e-2, clip_norm=None), num_steps=2, seed=0, tuning=FullTuning())
    optimizers: list[Any] = []
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = make_trainer(strategy, precision, spec, [])
    original = tuner.configure_optimizers

    def configured() -> Any:
        optimizers.append(original())
        return optimizers[-1]

    tuner.configure_optimizers = configured  # type: ignore[method-assign]
    trainer.fit(tuner, datamodule=data)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not optimizers[0].state
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
