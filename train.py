"""Trains and releases a model: ``python train.py +experiment=galpaca67b``; ``--help`` lists groups and options."""

import sys

from galpaca.app.entrypoint import train_with_hydra

if __name__ == "__main__":
    sys.exit(train_with_hydra())
