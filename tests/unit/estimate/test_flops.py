"""Operations and peaks, against figures published elsewhere."""

import pytest

from galpaca.estimate.flops import Architecture, step_flops
from galpaca.estimate.gpus import dense_peak

GALACTICA = {
    "125m": (Architecture(12, 768, 3_072, 50_000), 125_030_400),
    "1.3b": (Architecture(24, 2_048, 8_192, 50_000), 1_315_201_024),
    "6.7b": (Architecture(32, 4_096, 16_384, 50_000), 6_657_359_872),
    "30b": (Architecture(48, 7_168, 28_672, 50_000), 29_972_590_592),
}


@pytest.mark.parametrize("size", GALACTICA)
def test_matmul_parameters_are_the_models_without_what_is_only_looked_up_or_added(size: str) -> None:
    """Position embeddings (2,048 and two of padding), biases and norms are the rest of the published count."""
    architecture, parameters = GALACTICA[size]
    C = architecture.hidden_size
    positions = 2_050 * C
    layer = 4 * C + C + architecture.ffn_size + 4 * C  # biases of projections and feed-forward, two norms
    final_norm = 2 * C
    rest = positions + architecture.num_layers * layer + final_norm
    assert architecture.matmul_parameters + rest == parameters


def test_the_formula_by_hand() -> None:
    architecture = Architecture(num_layers=2, hidden_size=8, ffn_size=32, vocab_size=100)
    assert architecture.matmul_parameters == 2 * (4 * 64 + 2 * 256) + 800
    # Two examples of 3 and 5 tokens.
    assert step_flops(architecture, 8, 9 + 25) == 6 * 2_336 * 8 + 12 * 2 * 8 * 34
    assert architecture.matmul_parameters == 2_336


def test_a_step_of_galpaca_takes_about_0_6_petaflop() -> None:
    """15,360 tokens of 6.7 B parameters; attention is a small part at Alpaca's lengths."""
    flops = step_flops(GALACTICA["6.7b"][0], 15_360, 15_360 * 150)
    assert flops == pytest.approx(6 * 6.65e9 * 15_360, rel=0.01)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA B200", 2_250e12),
        ("NVIDIA GB200", 2_250e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA A40", 149.7e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA RTX A6000", 154.8e12),
        ("Tesla V100-SXM2-32GB", 125e12),
        ("AMD Instinct MI250X", 191.5e12),
    ],
)
def test_peaks_by_the_names_that_drivers_tell(name: str, peak: float) -> None:
    """A wrong peak is a wrong MFU in a paper."""
    assert dense_peak(name, "bf16-mixed") == dense_peak(name, "16-mixed") == peak


def test_what_is_not_known_has_no_peak() -> None:
    assert dense_peak("NVIDIA H300", "bf16-mixed") is None
    assert dense_peak("NVIDIA A10G", "64-true") is None
    assert dense_peak("NVIDIA A100-SXM4-80GB", "32-true") == 19.5e12
    assert dense_peak("NVIDIA A100-SXM4-80GB", "64-true") is None
