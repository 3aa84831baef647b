"""Graphics cards as the compiler sees them: what its decisions depend on."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Card:
    """Properties of a device, under the names of ``torch.cuda.get_device_properties``.

    Attributes:
        name: as the driver reports it.
        major, minor: compute capability.
        multi_processor_count: streaming multiprocessors.
        total_memory: bytes.
        L2_cache_size: bytes.
        shared_memory_per_block_optin: most bytes of shared memory of a block.
        shared_memory_per_multiprocessor: bytes.
    """

    name: str
    major: int
    minor: int
    multi_processor_count: int
    total_memory: int
    L2_cache_size: int
    shared_memory_per_block_optin: int
    shared_memory_per_multiprocessor: int
    shared_memory_per_block: int = 48 << 10
    regs_per_multiprocessor: int = 65_536
    max_threads_per_multi_processor: int = 2_048
    max_threads_per_block: int = 1_024
    warp_size: int = 32
    gcnArchName: str = ""  # noqa: N815 - torch's name, of AMD's cards

    @property
    def capability(self) -> tuple[int, int]:
        return self.major, self.minor


_HOPPER: Any = {
    "L2_cache_size": 50 << 20,
    "shared_memory_per_block_optin": 227 << 10,
    "shared_memory_per_multiprocessor": 228 << 10,
}

# NVIDIA's data sheets, and the tables of compute capabilities in the CUDA programming guide.
CARDS = {
    "a100": Card("NVIDIA A100-SXM4-80GB", 8, 0, 108, 80 << 30, 40 << 20, 163 << 10, 164 << 10),
    "h100": Card("NVIDIA H100 80GB HBM3", 9, 0, 132, 80 << 30, **_HOPPER),
    "h200": Card("NVIDIA H200", 9, 0, 132, 141 << 30, **_HOPPER),
}
