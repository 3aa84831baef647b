"""What training, checkpoints and releases need to know of a model's architecture; cheap to import."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from galpaca.errors import InputError
from galpaca.estimate.flops import Architecture

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

    from galpaca.data.tokenizer import Tokenizer
    from galpaca.model.spec import ModelSpec


class Family(ABC):
    """An architecture of ``transformers``.

    All that is known of one is in its class: nothing else asks for a name of a parameter, a class or a size. Its module
    imports torch in methods only, so that a mistake in the configuration is reported before torch is loaded. Names of
    parameters are those of its class of ``transformers`` for causal language models.

    Attributes:
        model_type: what ``config.json`` calls it.
        title: what people call it.
        class_name: name of its class for causal language models in ``transformers``.
        usual_dropout: of the residual stream, as in pre-training.
        ties_head: the head is the embedding's matrix where ``config.json`` does not say.
        layers: path of the list of decoder layers.
        embedding: name of the embedding's weight.
        head: name of the head's weight.
        positions: module that embeds positions, if they are learned.
        linear_layers: names of the linear layers within a decoder layer.
        layer_inputs: keyword arguments that the model hands to its layers, and that they need: tensors of (1, T, ...),
            or tuples of them.
        half_dtype: 16-bit dtype that such models are published in.
        config_defaults: what ``transformers`` takes for keys that ``architecture`` reads and a ``config.json`` may
            lack.
    """

    model_type: ClassVar[str]
    title: ClassVar[str]
    class_name: ClassVar[str]
    usual_dropout: ClassVar[float] = 0.0
    ties_head: ClassVar[bool] = False
    layers: ClassVar[str] = "model.layers"
    embedding: ClassVar[str] = "model.embed_tokens.weight"
    head: ClassVar[str] = "lm_head.weight"
    positions: ClassVar[str | None] = None
    linear_layers: ClassVar[tuple[str, ...]]
    layer_inputs: ClassVar[tuple[str, ...]] = ()
    half_dtype: ClassVar[str] = "bfloat16"
    config_defaults: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def architecture(self, config: PreTrainedConfig) -> Architecture:
        """The sizes that decide operations and memory."""

    @abstractmethod
    def random_config(self, spec: ModelSpec, tokenizer: Tokenizer) -> PreTrainedConfig:
        """The configuration of a model of the sizes of a spec, for random weights."""

    @abstractmethod
    def last_layer(self, layer: nn.Module, config: PreTrainedConfig) -> nn.Module:
        """A layer with the parameters of ``layer`` that returns some rows only.

        Its forward takes what the layer's does and ``target_rows``, (K,), and maps (1, T, C) to (1, K, C).
        """

    @abstractmethod
    def is_norm(self, name: str) -> bool:
        """Whether a parameter normalizes the residual stream: it starts from 1, or from 0 where it is a bias."""

    def check(self, config: PreTrainedConfig, where: object) -> None:  # noqa: B027 - most have nothing to check
        """Checks that a configuration has no feature that would be computed otherwise in training.

        Raises:
            InputError: it has.
        """

    def check_spec(self, spec: ModelSpec) -> None:
        """Checks that the family has what a completed spec asks for, before anything is read.

        Raises:
            InputError: it has not.
        """
        if spec.dropout:
            raise InputError(
                f"{self.title} models have no dropout on the residual stream, got {spec.dropout}",
                where="model.dropout",
                fix="model.dropout=null for what is usual; tuning.dropout is that of adapters",
            )

    def completed(self, spec: ModelSpec) -> ModelSpec:
        """A spec in which what is left to the family is set."""
        return replace(spec, dropout=self.usual_dropout) if spec.dropout is None else spec

    def configure(self, config: PreTrainedConfig, spec: ModelSpec) -> None:
        """Puts the dropout of a spec into a configuration."""
        config.attention_dropout = spec.attention_dropout

    def initial_std(self, config: PreTrainedConfig) -> float:
        """Standard deviation of random matrices."""
        return float(config.initializer_range)

    def num_positions(self, config: PreTrainedConfig) -> int:
        """Most tokens that an example can have."""
        return int(config.max_position_embeddings)

    def build(self, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
        """A model whose parameters are on the meta device.

        Buffers are in no file of weights: a family that has some computes them here.
        """
        import torch
        import transformers

        with torch.device("meta"):
            model: PreTrainedModel = getattr(transformers, self.class_name)._from_config(config, dtype=dtype)
        return model

    def halved(self) -> Mapping[type[nn.Module], type[nn.Module]]:
        """Of modules whose weights meet the residual stream: a class that computes from 16-bit weights under autocast,
        as ``galpaca.model.half_residual`` has them.
        """
        return {}

    def file_name(self, key: str) -> str | None:
        """The parameter of a tensor in a file of weights; None for one that holds no weight."""
        return key

    def saved(self, content: dict[str, Any]) -> dict[str, Any]:
        """``config.json`` as all versions of ``transformers`` understand it that released models are read with."""
        return content

    def decays(self, name: str) -> bool:
        """Whether a parameter has weight decay: all but biases and norms, as in ``transformers.Trainer``."""
        return not name.endswith(".bias") and not self.is_norm(name)

    def is_product(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether a parameter is a matrix of products; the embedding is one, which may be the head too."""
        return len(shape) > 1 and not (self.positions and f"{self.positions}." in name)
