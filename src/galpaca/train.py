"""``python -m galpaca.train``: the same as ``train.py`` of the repository, for an installed package."""

import sys

from galpaca.app.entrypoint import train_with_hydra

if __name__ == "__main__":
    sys.exit(train_with_hydra())
