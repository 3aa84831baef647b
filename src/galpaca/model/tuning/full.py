"""Full fine-tuning."""

from galpaca.model.tensors import Shapes


class FullTuning:
    """Trains all parameters.

    Gradients, the optimizer, checkpoints, their manifest, the room that they need and the model card follow what
    ``trained`` says. What is not trained stays in the weights that the run started from.
    """

    def trained(self, name: str) -> bool:
        """Whether a parameter is trained, by its name in ``OPTForCausalLM``."""
        return True

    def trained_shapes(self, shapes: Shapes) -> Shapes:
        """Those of the parameters that are trained."""
        return {name: shape for name, shape in shapes.items() if self.trained(name)}
