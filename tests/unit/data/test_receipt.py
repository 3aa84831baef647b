"""A receipt as runs of any version kept it."""

from galpaca.data.receipt import Receipt


def test_counts_under_former_names_are_read_and_unknown_ones_left_out() -> None:
    kept = {"source": "a.json", "max_length": 512, "cut_answers": 3, "records": 7, "no_longer_counted": 1}
    assert Receipt.from_dict(kept) == Receipt("a.json", 512, records=7, truncated_examples=3)
