"""What to change when a GPU runs out of memory, cheapest first."""

from galpaca.app.config.schema import Config

# Below it matrix products no longer fill a large GPU, and every micro-batch reads all weights again.
_FULL_SPEED_TOKENS = 2048


def memory_advice(config: Config, *, fast_attention: bool) -> list[str]:
    """Settings that would take less memory than this configuration's, in the order of what they cost.

    Args:
        fast_attention: as ``Config.fast_attention``, on the card in question.
    """
    budget, length = config.batch.max_tokens, config.data.max_length
    compute = config.compute
    advice = []
    if budget > max(_FULL_SPEED_TOKENS, length):
        smaller = max(_FULL_SPEED_TOKENS, length, budget // 2)
        advice.append(f"batch.max_tokens={smaller} (same recipe; hardly slower)")
    if fast_attention and not compute.compiles(fast_attention):
        advice.append("compute.compile=true (keeps fewer activations, and is faster)")
    if compute.activation_checkpointing == "none":
        advice.append("compute.activation_checkpointing=selective (a little slower)")
    if config.tuning.method.held.trains_all:  # moments of adapters take next to nothing
        advice += config.optim.factory.memory_advice()
    if compute.activation_checkpointing != "full":
        advice.append("compute.activation_checkpointing=full (recomputes the forward: about a third slower)")
    if length < budget <= _FULL_SPEED_TOKENS:
        advice.append(f"batch.max_tokens={max(length, budget // 2)} (slower below {_FULL_SPEED_TOKENS:,} tokens)")
    if config.tuning.method.held.trains_all:
        advice += config.optim.factory.slow_memory_advice()
    advice += config.strategy.factory.memory_advice(config.trainer.num_ranks, config.tuning.method)
    return [*advice, *config.tuning.method.memory_advice()]
