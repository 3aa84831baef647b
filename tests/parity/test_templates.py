"""Prompts byte for byte, spelled out here a second time."""

import pytest

from galpaca.data.prompts import load_template

# Stanford Alpaca's train.py, line by line.
WITH_INPUT = (
    b"Below is an instruction that describes a task, paired with an input that provides further context. "
    b"Write a response that appropriately completes the request."
    b"\n\n"
    b"### Instruction:\n"
    b"Convert the unit.\n"
    b"\n"
    b"### Input:\n"
    b"3 km\n"
    b"\n"
    b"### Response:"
)
WITHOUT_INPUT = (
    b"Below is an instruction that describes a task. "
    b"Write a response that appropriately completes the request."
    b"\n\n"
    b"### Instruction:\n"
    b"Name a gas.\n"
    b"\n"
    b"### Response:"
)

# GALPACA 30B's card; its first sentence with an input is Alpaca's.
SCIENCE_WITH_INPUT = (
    b"Below is an instruction that describes a task, paired with an input that provides further context. "
    b"As a scientist, write a response that appropriately completes the request, "
    b"citing specific papers whenever possible."
    b"\n\n"
    b"### Instruction:\n"
    b"Convert the unit.\n"
    b"\n"
    b"### Input:\n"
    b"3 km\n"
    b"\n"
    b"### Markdown and LaTeX Response:"
)
SCIENCE_WITHOUT_INPUT = (
    b"Below is an instruction that describes a task. "
    b"As a scientist, write a response that appropriately completes the request, "
    b"citing specific papers whenever possible."
    b"\n\n"
    b"### Instruction:\n"
    b"Name a gas.\n"
    b"\n"
    b"### Markdown and LaTeX Response:"
)


@pytest.mark.parametrize(
    ("name", "with_input", "without_input"),
    [("alpaca", WITH_INPUT, WITHOUT_INPUT), ("science", SCIENCE_WITH_INPUT, SCIENCE_WITHOUT_INPUT)],
)
def test_prompts_are_the_originals_byte_for_byte(name: str, with_input: bytes, without_input: bytes) -> None:
    """YAML's block texts lose a blank line or gain a last newline by a change of one character."""
    template = load_template(name)
    assert template.prompt("Convert the unit.", "3 km").encode() == with_input
    assert template.prompt("Name a gas.").encode() == without_input
    assert template.prompt("Name a gas.", "").encode() == without_input
