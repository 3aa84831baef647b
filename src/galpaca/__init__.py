"""Instruction-tuning for GALACTICA and its kin: from Alpaca-format records to a released model."""

__version__ = "0.1.0"
