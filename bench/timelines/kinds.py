"""The ways to train whose steps are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from bench.timelines.sizes import HEAD_SIZE, NUM_HEADS, NUM_KV_HEADS, NUM_SHARDS, SIZES
from galpaca.app.config.shapes import raw_shape
from galpaca.app.estimate.shape import architecture_of
from galpaca.app.estimate.traced import Trace
from galpaca.estimate import timeline as estimate
from galpaca.estimate.memory import TrainedModel
from galpaca.estimate.sharding import Sharding
from galpaca.estimate.timeline import NUM_LAYERS
from galpaca.model.compute_spec import RECOMPUTATIONS
from galpaca.model.families.known import family_of
from galpaca.model.tuning.full import FullTuning
from galpaca.model.tuning.lora import Lora
from galpaca.model.tuning.qlora import QLora

# Of each family one to take all but sizes from.
_MODELS = {"opt": "galactica-6.7b", "llama": "smollm2-1.7b"}
_HELD = {"full": FullTuning.held, "lora": Lora.held, "qlora": QLora.held}
# By the name that a strategy gives to how it holds a step: what makes it so.
STRATEGIES = {
    "single": ("strategy=single",),
    "ddp": ("strategy=ddp",),
    "fsdp": ("strategy=fsdp",),
    "fsdp keeps gathered": ("strategy=fsdp", "strategy.sharding_strategy=SHARD_GRAD_OP"),
    "fsdp2": ("strategy=fsdp2",),
    "fsdp2 keeps gathered": ("strategy=fsdp2", "strategy.reshard_after_forward=false"),
}
TUNINGS = ("full", "lora", "qlora")
STREAMS = {"wide": (), "narrow": ("precision.half_residual=true",)}


class Kind(estimate.Kind):
    """One of them; how it is traced."""

    @property
    def is_sharded(self) -> bool:
        return self.strategy.startswith("fsdp")

    @property
    def sharding(self) -> Sharding:
        if self.is_sharded:
            return Sharding(NUM_SHARDS, gathers=True)
        return Sharding(num_copies=1 if self.strategy == "single" else NUM_SHARDS)

    @property
    def model(self) -> TrainedModel:
        """What is trained."""
        architecture = architecture_of(self._config, family_of(self.family, "bench"))
        return TrainedModel(architecture, _HELD[self.tuning], 0 if self.tuning == "full" else SIZES["rank"])

    @property
    def _config(self) -> dict[str, Any]:
        """Content of a ``config.json`` with the sizes that are told apart."""
        sizes, shape = SIZES, raw_shape(_MODELS[self.family])
        shape |= {"hidden_size": sizes["hidden"], "num_hidden_layers": NUM_LAYERS, "vocab_size": sizes["vocab"]}
        shape |= {"num_attention_heads": NUM_HEADS}
        if self.family == "opt":
            shape |= {"word_embed_proj_dim": sizes["hidden"], "ffn_dim": sizes["ffn"]}
            return shape | {"max_position_embeddings": sizes["positions"] - 2}
        shape |= {"intermediate_size": sizes["ffn"], "num_key_value_heads": NUM_KV_HEADS, "head_dim": HEAD_SIZE}
        return shape

    def trace(self, micro_batches: Sequence[int]) -> Trace:
        sizes = SIZES
        return Trace(
            overrides=[
                "+experiment=galpaca67b",
                "run.name=recorded",
                "model.dropout=null",  # what is usual in the family
                f"trainer.devices={1 if self.strategy == 'single' else NUM_SHARDS}",
                f"tuning={self.tuning}",
                *([f"tuning.rank={sizes['rank']}"] if self.tuning != "full" else []),
                f"compute.activation_checkpointing={self.recomputation}",
                *STRATEGIES[self.strategy],
                *STREAMS[self.stream],
            ],
            config=self._config,
            num_tokens=sizes["tokens"],
            num_targets=sizes["targets"],
            num_examples=23,
            longest_tokens=512,
            micro_batches=micro_batches,
        )


def all_kinds() -> list[Kind]:
    """Those that somebody takes: FSDP1 cannot shard adapters, and a narrow stream is for one card or sharded."""
    kinds = []
    for family, strategy, tuning, stream, how in product(_MODELS, STRATEGIES, TUNINGS, STREAMS, RECOMPUTATIONS):
        is_full = tuning == "full"
        if not is_full and strategy not in ("single", "ddp", "fsdp2"):
            continue
        if stream == "narrow" and not (is_full and strategy == "single"):
            continue
        kinds.append(Kind(family, strategy, tuning, stream, how))
    return kinds
