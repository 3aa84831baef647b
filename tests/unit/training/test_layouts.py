"""What a strategy says of the processes that it is to be of, before any of them trains."""

import pytest

from galpaca.errors import InputError
from galpaca.training.specs import PrecisionSpec
from galpaca.training.strategies import ddp, fsdp, fsdp2, single


def test_shards_within_a_node_need_more_than_one_process_on_it() -> None:
    for strategy, _ in (
        fsdp("cpu", PrecisionSpec(), sharding_strategy="HYBRID_SHARD"),
        fsdp2("cpu", PrecisionSpec(), hybrid=True),
    ):
        with pytest.raises(InputError, match="each node has only one process"):
            strategy.check_layout(devices=1, num_nodes=2)
        strategy.check_layout(devices=2, num_nodes=2)
        strategy.check_layout(devices=1, num_nodes=1)


def test_others_take_any_layout() -> None:
    for make in (single, ddp, fsdp, fsdp2):
        strategy, _ = make("cpu", PrecisionSpec())
        strategy.check_layout(devices=1, num_nodes=2)
