"""How ranks share a model, as far as it decides what each holds and what they send each other."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sharding:
    """How a strategy spreads a model over ranks.

    Attributes:
        num_shards: ranks that together hold each parameter once, and what an optimizer keeps of it.
        num_copies: groups of that many ranks, whose gradients are summed.
        gathers: whole weights of a layer are put together for as long as it computes, in the dtype of its products.
        keeps_gathered: from forward to backward, too.
        sums_each_micro_batch: copies sum their gradients after every micro-batch, not once a step.
    """

    num_shards: int = 1
    num_copies: int = 1
    gathers: bool = False
    keeps_gathered: bool = False
    sums_each_micro_batch: bool = False

    @property
    def num_ranks(self) -> int:
        return self.num_shards * self.num_copies

    def models_per_node(self, devices: int) -> float:
        """How many times the ranks of a node hold the parameters.

        Args:
            devices: ranks of a node.
        """
        return devices / self.num_shards


WHOLE_ON_ONE = Sharding()
