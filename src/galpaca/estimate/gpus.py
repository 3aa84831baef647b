"""Graphics cards, by their makers' data sheets: memory, peak speeds without sparsity, bandwidth, capability, power.

Lightning's own table of speeds knows no "NVIDIA H200" and takes figures with sparsity for some others.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from dataclasses import dataclass, fields
from typing import Any

from galpaca.errors import InputError

# Further cards for the table, or others in place of its own; slurm/site.env sets it.
VARIABLE = "GALPACA_GPUS"
_EXAMPLE = "GALPACA_GPUS='NAME memory_gib=79 tflops=312 gb_per_second=2039 capability=8.0'"


@dataclass(frozen=True)
class Gpu:
    """A card.

    Attributes:
        name: as people ask for it.
        pattern: regular expression of its name as the driver reports it.
        memory_gib: what programs can have of it.
        tflops: 10^12 operations per second of matrix products in 16 bits with float32 sums.
        float32_tflops: the same in float32 without TF32; None if it is not known.
        gb_per_second: 10^9 bytes per second of its memory.
        capability: CUDA's compute capability; 8.0 or more have bfloat16 and the fast attention.
        link_gb_per_second: 10^9 bytes per second that it sends to others of its node, while it receives as many.
        watts: most power that it takes.
    """

    name: str
    pattern: str
    memory_gib: float
    tflops: float
    float32_tflops: float | None
    gb_per_second: float
    capability: float = 8.0
    link_gb_per_second: float = 25.0
    watts: float = 300.0

    @property
    def is_fast(self) -> bool:
        """Whether it has bfloat16 and one kernel for the attention of all examples."""
        return self.capability >= 8.0

    def flops(self, precision: str) -> float | None:
        """Operations per second at most; None for a precision whose speed is not known.

        Args:
            precision: ``16-mixed``, ``bf16-mixed`` or ``32-true``.
        """
        tflops = {"16-mixed": self.tflops, "bf16-mixed": self.tflops, "32-true": self.float32_tflops}.get(precision)
        return tflops and tflops * 1e12


# PCIe 4.0 of 16 lanes carries 25 GB/s in practice, 5.0 50; NVLink half of what data sheets count in both directions.
_PCIE5 = 50.0
_TABLE = (
    # name, as the driver says it, GiB, TFLOP/s in 16 and 32 bits, GB/s, capability, link GB/s, watts
    Gpu("V100-16", r"\bV100\b.*\b16GB", 15.7, 125, 15.7, 900, 7.0, 150, 300),
    Gpu("V100-32", r"\bV100\b", 31.7, 125, 15.7, 900, 7.0, 150, 300),
    Gpu("T4", r"\bT4\b", 14.6, 65, 8.1, 320, 7.5, 12, 70),
    Gpu("A100-40", r"\b(A100|A800)\b.*\b40GB", 39.4, 312, 19.5, 1_555, 8.0, 300, 400),
    Gpu("A100-80", r"\b(A100|A800)\b", 79.2, 312, 19.5, 2_039, 8.0, 300, 400),
    Gpu("A30", r"\bA30\b", 23.5, 165, 10.3, 933, 8.0, 25, 165),
    Gpu("A40", r"\bA40\b", 44.4, 149.7, 37.4, 696, 8.6, 25, 300),
    Gpu("A10G", r"\bA10G\b", 22.0, 70, 31.2, 600, 8.6, 25, 300),
    Gpu("A10", r"\bA10\b", 22.0, 125, 31.2, 600, 8.6, 25, 150),
    Gpu("A6000", r"\bRTX A6000\b", 47.5, 154.8, 38.7, 768, 8.6, 25, 300),
    Gpu("L4", r"\bL4\b", 22.0, 121, 30.3, 300, 8.9, 25, 72),
    Gpu("L40", r"\bL40\b", 44.4, 181, 90.5, 864, 8.9, 25, 300),
    Gpu("L40S", r"\bL40S\b", 44.4, 362, 91.6, 864, 8.9, 25, 350),
    Gpu("6000-Ada", r"\bRTX 6000 Ada\b", 47.5, 364.2, 91.1, 960, 8.9, 25, 300),
    Gpu("3090", r"\bRTX 3090\b", 23.6, 71, 35.6, 936, 8.6, 25, 350),
    Gpu("4090", r"\bRTX 4090\b", 23.6, 165.2, 82.6, 1_008, 8.9, 25, 450),
    Gpu("5090", r"\bRTX 5090\b", 31.4, 209.5, 104.8, 1_792, 12.0, _PCIE5, 575),
    Gpu("H100-PCIe", r"\bH100 PCIe\b", 79.2, 756, 51, 2_000, 9.0, _PCIE5, 350),
    Gpu("H100-NVL", r"\bH100 NVL\b", 93.1, 835, 60, 3_900, 9.0, 300, 400),
    Gpu("H200-NVL", r"\bH200 NVL\b", 139.8, 835, 60, 4_800, 9.0, 450, 600),
    Gpu("GH200", r"\bGH200\b", 94.5, 989, 67, 4_000, 9.0, 450, 900),
    Gpu("H20", r"\bH20\b", 95.0, 148, 44, 4_000, 9.0, 450, 400),
    Gpu("H200", r"\bH200\b", 139.8, 989, 67, 4_800, 9.0, 450, 700),
    Gpu("H100", r"\b(H100|H800)\b", 79.2, 989, 67, 3_350, 9.0, 450, 700),
    Gpu("B100", r"\bB100\b", 178.0, 1_750, 60, 8_000, 10.0, 900, 700),
    Gpu("B200", r"\bG?B200\b", 178.0, 2_250, 80, 8_000, 10.0, 900, 1_000),
    Gpu("MI300X", r"\bMI300X\b", 191.5, 1_307, 163.4, 5_300, 9.4, 448, 750),
    # One of its two dies, which is what a process sees.
    Gpu("MI250X", r"\bMI250X?\b", 63.9, 191.5, 23.9, 1_638, 9.0, 50, 280),
)
_KEYS = {item.name for item in fields(Gpu)} - {"name"}


def known_gpus() -> tuple[Gpu, ...]:
    """The table, with what ``GALPACA_GPUS`` adds to it or replaces.

    Raises:
        InputError: the variable cannot be read.
    """
    added = tuple(_read(line) for line in os.environ.get(VARIABLE, "").split(";") if line.strip())
    replaced = {gpu.name.lower() for gpu in added}
    return (*added, *(gpu for gpu in _TABLE if gpu.name.lower() not in replaced))


def gpu_named(name: str) -> Gpu:
    """The card that people call so.

    Raises:
        InputError: there is none in the table.
    """
    gpus = {gpu.name.lower(): gpu for gpu in known_gpus()}
    if found := gpus.get(name.lower()):
        return found
    near = difflib.get_close_matches(name.lower(), gpus, n=3, cutoff=0.4)
    begins = [key for key in gpus if key.startswith(name.lower())]
    shown = ", ".join(gpus[key].name for key in dict.fromkeys([*begins, *near])) or ", ".join(
        gpu.name for gpu in gpus.values()
    )
    raise InputError(
        f"there is no card {name!r} in the table",
        where="--gpu",
        fix=f"one of {shown}; or add it: export {_EXAMPLE} (slurm/site.env is a place for it)",
    )


def gpu_of_driver(reported: str) -> Gpu | None:
    """The card that a driver reports, for instance ``NVIDIA A100-SXM4-80GB``; None if the table has none."""
    return next((gpu for gpu in known_gpus() if re.search(gpu.pattern, reported)), None)


def dense_peak(reported: str, precision: str) -> float | None:
    """Operations per second that the card's maker states, or None for a card or a precision that is not listed.

    Args:
        reported: the card's name as the driver reports it.
        precision: ``16-mixed``, ``bf16-mixed`` or ``32-true``.
    """
    gpu = gpu_of_driver(reported)
    return gpu.flops(precision) if gpu else None


def _read(line: str) -> Gpu:
    name, *pairs = line.split()
    values: dict[str, Any] = {"pattern": re.escape(name), "float32_tflops": None}
    try:
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key not in _KEYS:
                raise ValueError(f"{key!r} is none of {', '.join(sorted(_KEYS))}")
            values[key] = value if key == "pattern" else float(value)
            if key != "pattern" and not 0 < values[key] < math.inf:
                raise ValueError(f"{key} must be above 0, got {value}")
        if "," in name:
            raise ValueError("a name has no comma")
        re.compile(values["pattern"])
        return Gpu(name=name, **values)
    except (ValueError, TypeError, re.error) as error:
        what = f"cannot read {line.strip()!r}: {str(error).replace('Gpu.__init__() ', '')}"
        raise InputError(what, where=VARIABLE, fix=f"cards separated by ';', e.g. {_EXAMPLE}") from None
