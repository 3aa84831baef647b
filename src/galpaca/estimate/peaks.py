"""Peak speeds of GPUs for dense matrix products, from their makers' data sheets.

Lightning's own table knows no "NVIDIA H200" and takes figures with sparsity for some others.
"""

import re

# Operations per second without sparsity, in the 16-bit formats with float32 sums. Longer names first where one is part
# of another.
_DENSE_16_BIT: tuple[tuple[str, float], ...] = (
    (r"\bGB?200\b|\bB200\b", 2_250e12),
    (r"\bB100\b", 1_750e12),
    (r"\bH100 PCIe\b", 756e12),
    (r"\bH(100|200) NVL\b", 835e12),
    (r"\b(H100|H200|GH200|H800)\b", 989e12),
    (r"\bH20\b", 148e12),
    (r"\b(A100|A800)\b", 312e12),
    (r"\bA30\b", 165e12),
    (r"\bA40\b", 149.7e12),
    (r"\bA10G\b", 70e12),
    (r"\bA10\b", 125e12),
    (r"\bL40S\b", 362e12),
    (r"\bL40\b", 181e12),
    (r"\bL4\b", 121e12),
    (r"\bRTX A6000\b", 154.8e12),
    (r"\bRTX 6000 Ada\b", 364.2e12),
    (r"\bRTX 5090\b", 209.5e12),
    (r"\bRTX 4090\b", 165.2e12),
    (r"\bRTX 3090\b", 71e12),
    (r"\bV100\b", 125e12),
    (r"\bT4\b", 65e12),
    (r"\bMI300X\b", 1_307e12),
    (r"\bMI250X?\b", 191.5e12),  # of one of its two dies, which is what a process sees
)

# The same in float32 without TF32, where it is known.
_FLOAT32: tuple[tuple[str, float], ...] = (
    (r"\b(H100|H200|GH200|H800)\b", 67e12),
    (r"\b(A100|A800)\b", 19.5e12),
    (r"\bV100\b", 15.7e12),
)


def dense_peak(gpu_name: str, precision: str) -> float | None:
    """Operations per second that the GPU's maker states, or None for a GPU or a precision that is not listed.

    Args:
        gpu_name: as the driver reports it, for instance ``NVIDIA A100-SXM4-80GB``.
        precision: ``16-mixed``, ``bf16-mixed`` or ``32-true``.
    """
    table = {"16-mixed": _DENSE_16_BIT, "bf16-mixed": _DENSE_16_BIT, "32-true": _FLOAT32}.get(precision, ())
    return next((peak for pattern, peak in table if re.search(pattern, gpu_name)), None)
