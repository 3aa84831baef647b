"""What a strategy says of the processes that it is to be of, before any of them trains."""

import pytest

from galpaca.errors import InputError
from galpaca.estimate.sharding import Sharding
from galpaca.training.strategies import Ddp, Fsdp, Fsdp2, Single
from galpaca.training.strategies.factory import StrategyFactory


@pytest.mark.parametrize("strategy", [Fsdp(sharding_strategy="HYBRID_SHARD"), Fsdp2(hybrid=True)])
def test_shards_within_a_node_need_more_than_one_process_on_it(strategy: StrategyFactory) -> None:
    with pytest.raises(InputError, match="each node has only one process"):
        strategy.check_layout(devices=1, num_nodes=2)
    strategy.check_layout(devices=2, num_nodes=2)
    strategy.check_layout(devices=1, num_nodes=1)


@pytest.mark.parametrize("strategy", [Single(), Ddp(), Fsdp(), Fsdp2()])
def test_others_take_any_layout(strategy: StrategyFactory) -> None:
    strategy.check_layout(devices=1, num_nodes=2)


@pytest.mark.parametrize(
    ("strategy", "num_shards", "models_per_node"),
    [
        (Ddp(), 1, 4.0),
        (Fsdp(), 8, 0.5),
        (Fsdp(sharding_strategy="SHARD_GRAD_OP"), 8, 0.5),
        (Fsdp(sharding_strategy="HYBRID_SHARD"), 4, 1.0),
        (Fsdp(sharding_strategy="NO_SHARD"), 1, 4.0),
        (Fsdp2(), 8, 0.5),
        (Fsdp2(hybrid=True), 4, 1.0),
    ],
)
def test_what_two_nodes_of_four_processes_hold(
    strategy: StrategyFactory, num_shards: int, models_per_node: float
) -> None:
    sharding = strategy.sharding(devices=4, num_nodes=2)
    assert (sharding.num_shards, sharding.num_ranks) == (num_shards, 8)
    assert sharding.models_per_node(devices=4) == models_per_node


def test_one_process_holds_a_model() -> None:
    assert Single().sharding(devices=1, num_nodes=1) == Sharding()
    assert Sharding().models_per_node(devices=1) == 1.0
