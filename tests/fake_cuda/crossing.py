"""Graphs over sizes at which Inductor changes its mind, as JSON; run by ``python -m galpaca.fake_cuda``."""

import json

from fake_cuda import microscope

# Tokens and targets. Inductor would change its reductions at 1,280 and at 8,192 rows (``MixOrderReduction.can_fuse``).
SIZES = [(4_096, 2_048), (4_000, 1_216), (8_192, 4_096)]

if __name__ == "__main__":
    microscope.SIZES[:] = SIZES
    print(json.dumps(microscope.look(microscope.Case("16-mixed", "fsdp", "none"))["graphs"]))
