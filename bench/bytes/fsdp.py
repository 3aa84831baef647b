"""What FSDP1 moves around the layers, by its source: ``torch/distributed/fsdp/_flat_param.py``, ``_runtime_utils.py``.

Read, not traced. What the network writes into memory is communication, and left out as products are.
"""

from bench.bytes.parts import Parts


def around_layers(num_parameters: int, of_layers: int, micro_batches: int, ranks: int) -> Parts:
    """A rank's bytes in a step under ``FULL_SHARD`` with 16-bit weights and a float32 reduction.

    Args:
        num_parameters: of the whole model.
        of_layers: of them, in layers, which are gathered for forward and again for backward; the rest stays gathered.
    """
    shards_cast = (num_parameters + of_layers) / ranks
    casts = 6 * shards_cast + 6 * num_parameters  # to 16 bits; each whole gradient back to 32
    # A unit's gradients are laid end to end in 16 bits, divided in place by the root of the ranks, and again as shards.
    together = 4 * num_parameters + (8 + 8 / ranks) * num_parameters
    added = 12 * num_parameters / ranks
    return Parts(casts=casts * micro_batches, accumulation=together * micro_batches + added * (micro_batches - 1))
