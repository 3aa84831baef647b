"""What to change when a GPU runs out of memory, cheapest first."""

from __future__ import annotations

from galpaca.app.config.schema import Config

# Below it matrix products no longer fill a large GPU, and every micro-batch reads all weights again.
_FULL_SPEED_TOKENS = 2048


def memory_advice(config: Config, *, is_sharded: bool) -> list[str]:
    """Settings that would take less memory than this configuration's, in the order of what they cost.

    Args:
        is_sharded: with more GPUs, each holds less.
    """
    budget, length = config.batch.max_tokens, config.data.max_length
    compute = config.compute
    advice = []
    if budget > max(_FULL_SPEED_TOKENS, length):
        smaller = max(_FULL_SPEED_TOKENS, length, budget // 2)
        advice.append(f"batch.max_tokens={smaller} (same recipe; hardly slower)")
    if config.fast_attention and not compute.compiles(config.fast_attention):
        advice.append("compute.compile=true (keeps fewer activations, and is faster)")
    if compute.activation_checkpointing == "none":
        advice.append("compute.activation_checkpointing=selective (a little slower)")
    if config.optim.moments_dtype == "float32":
        advice.append(
            "optim.moments_dtype=bfloat16 (4 bytes per parameter less; changes the recipe, so needs a new run.name)"
        )
    if compute.activation_checkpointing != "full":
        advice.append("compute.activation_checkpointing=full (recomputes the forward: about a third slower)")
    if length < budget <= _FULL_SPEED_TOKENS:
        advice.append(f"batch.max_tokens={max(length, budget // 2)} (slower below {_FULL_SPEED_TOKENS:,} tokens)")
    if is_sharded:
        if config.strategy.get("sharding_strategy") != "FULL_SHARD":
            advice.append("strategy.sharding_strategy=FULL_SHARD (more communication)")
        advice.append(f"more GPUs than {config.trainer.num_ranks}: trainer.devices, trainer.num_nodes")
    else:
        advice.append("several GPUs: strategy=fsdp trainer.devices=N (each holds 1/N of the weights)")
    return advice
