"""Where the real file of ``make smollm`` may be."""

import os
from pathlib import Path

from conftest import REPOSITORY

from bench.smollm.fetch import FILE_NAME

_PLACES = (os.environ.get("GALPACA_SMOLLM"), REPOSITORY / "runs" / "smollm" / FILE_NAME)
REAL_FILE = next((Path(one) for one in _PLACES if one and Path(one).is_file()), None)
