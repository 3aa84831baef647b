"""Advice when memory runs out: only what would help, what costs least first."""

from galpaca.app.config.composition import compose
from galpaca.app.train.memory_advice import memory_advice


def advice(*overrides: str, experiment: str = "galpaca67b") -> list[str]:
    config, _ = compose([f"+experiment={experiment}", *overrides])
    return [line.partition(" (")[0] for line in memory_advice(config, fast_attention=config.fast_attention)]


def test_the_order_is_that_of_the_costs() -> None:
    assert advice() == [
        "batch.max_tokens=2048",
        "compute.activation_checkpointing=selective",
        "optim.moments_dtype=bfloat16",
        "compute.activation_checkpointing=full",
        "optim.moments_on=host",
        "more GPUs than 4: trainer.devices, trainer.num_nodes",
        "tuning=lora optim.lr=2e-4, with strategy=single, ddp or fsdp2",
    ]


def test_what_is_done_already_is_not_advised() -> None:
    assert advice(
        "batch.max_tokens=1024",
        "compute.activation_checkpointing=full",
        "optim.moments_dtype=bfloat16",
        "strategy.sharding_strategy=SHARD_GRAD_OP",
    ) == [
        "batch.max_tokens=512",
        "optim.moments_on=host",
        "strategy.sharding_strategy=FULL_SHARD",
        "more GPUs than 4: trainer.devices, trainer.num_nodes",
        "tuning=lora optim.lr=2e-4, with strategy=single, ddp or fsdp2",
    ]


def test_eager_layers_keep_more_than_compiled_ones() -> None:
    assert "compute.compile=true" in advice("compute.compile=false")


def test_one_gpu() -> None:
    *_, several, adapters = advice(experiment="galpaca1b")
    assert several.startswith("several GPUs: strategy=fsdp")
    assert adapters.startswith("tuning=lora")


def test_adapters_are_sharded_by_what_takes_several_dtypes() -> None:
    *_, several, four_bits = advice(experiment="galpaca67b_lora")
    assert (several.partition(" ")[0], four_bits) == ("several", "tuning=qlora")
    *_, several = advice(experiment="galpaca67b_qlora")
    assert several.startswith("several GPUs: strategy=fsdp2 ")
    assert not any("moments" in line for line in advice(experiment="galpaca67b_qlora"))
