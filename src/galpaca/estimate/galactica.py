"""GALACTICA's sizes (Taylor et al. 2022, table 5, and the configurations on the Hub)."""

from collections.abc import Mapping

from galpaca.estimate.flops import Architecture

_VOCAB_SIZE = 50_000

GALACTICA: Mapping[str, Architecture] = {
    "125m": Architecture(12, 768, 3_072, _VOCAB_SIZE),
    "1.3b": Architecture(24, 2_048, 8_192, _VOCAB_SIZE),
    "6.7b": Architecture(32, 4_096, 16_384, _VOCAB_SIZE),
    "30b": Architecture(48, 7_168, 28_672, _VOCAB_SIZE),
    "120b": Architecture(96, 10_240, 40_960, _VOCAB_SIZE),
}
