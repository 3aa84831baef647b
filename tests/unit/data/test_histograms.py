"""Histograms: every example in one bin, in few bins whatever the lengths."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from galpaca.data.histograms import histograms


@given(st.lists(st.integers(1, 5000), max_size=50))
def test_every_example_is_in_the_bin_of_its_length(lengths: list[int]) -> None:
    found = histograms(np.array(lengths, dtype=np.int64), np.array(lengths, dtype=np.int64) // 2)
    width = found["bin_tokens"]
    for key, values in (("lengths", lengths), ("targets", [length // 2 for length in lengths])):
        assert sum(found[key]) == len(lengths)
        assert len(found[key]) <= 40
        for place, count in enumerate(found[key]):
            assert count == sum(place * width <= value < (place + 1) * width for value in values)
