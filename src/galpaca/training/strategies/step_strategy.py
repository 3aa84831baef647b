"""What a strategy does beyond Lightning's own: one Lightning batch is one optimizer step of several micro-batches.

Stock strategies run ``training_step`` inside the wrapped model's forward. Several backward passes in there break FSDP
("Expects BACKWARD_PRE") and hide the gradient synchronization from DDP. Here the step runs outside, and each
micro-batch goes through the wrapped model's forward on its own. What else differs between strategies (gradients kept
back until the last micro-batch, the gradient's norm) is a method of each.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from galpaca.model.parts import Part, materialize_all, whole_parts
from galpaca.training.checkpoints.strategy import CheckpointingStrategy


class StepStrategy(CheckpointingStrategy):
    """What the training module needs of its strategy, beyond Lightning's own."""

    # Set from Lightning's ``connect`` on; its own annotations allow for None before that.
    model: Any
    lightning_module: Any

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        return self.lightning_module.training_step(*args, **kwargs)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        return self.lightning_module.validation_step(*args, **kwargs)

    def run_micro_batch(self, micro_batch: Any, *compute: Callable[..., Tensor]) -> Tensor:
        """The micro-batch through the wrapped model, in the precision of the run.

        Args:
            compute: what to call instead of the loss; see ``InstructionTuner.forward``.
        """
        with self.precision_plugin.forward_context():
            return self.model(micro_batch, *compute)

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Around a micro-batch's forward and backward; ``last`` is when gradients must be summed over ranks."""
        yield

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What this rank holds of each parameter, by its name in the Lightning module: what optimizers update."""
        yield from self.lightning_module.named_parameters()

    def grad_norm(self) -> Tensor:
        """Scalar: the global norm of all gradients, as they are, the same on all ranks."""
        return nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])

    def on_any_rank(self, flag: Tensor) -> Tensor:
        """Scalar bool: whether it is true on any rank. The host does not wait."""
        return flag

    def from_rank_0(self, tensor: Tensor) -> Tensor:
        """The first rank's tensor on all of them."""
        return tensor

    def weights_replaced(self) -> None:
        """Called when weights were replaced in the midst of training."""

    def teardown(self) -> None:
        # Lightning moves all that training held to the host. Gradients and moments are three times the weights, and
        # could end a run for lack of memory after its last step.
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            optimizer.state.clear()
        self.optimizers = []
        if self.store is not None:
            self.store.free()
        super().teardown()

    def materialize(self, model: nn.Module) -> None:
        """Gives parameters on the meta device memory on this rank's device, uninitialized."""
        materialize_all(model, self.root_device)

    def parts(self) -> list[Part]:
        return whole_parts(self.lightning_module)
