"""What stands in a text and was hardly meant to is found, counted, and by policy kept, dropped or refused."""

from pathlib import Path
from typing import Any

import pytest

from galpaca.data.encoded_set import encode
from galpaca.data.policies import EncodingPolicy
from galpaca.data.prompts import load_template
from galpaca.data.records import Record, RecordSet
from galpaca.data.sources.table import Places
from galpaca.data.text_findings import bare_sequence, findings_of
from galpaca.data.tokenizer import load_tokenizer
from galpaca.errors import InputError


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (Record.of("Name a gas.", "", "Helium, at -269 °C.\n\nTab:\there"), set()),
        (Record.of("", "x", "y"), {"empty_instructions"}),
        (Record.of(" \n", "", "y"), {"empty_instructions"}),
        (Record.of("x", "", ""), {"empty_outputs"}),
        (Record.of("x", "NaN", "y"), {"placeholder_inputs"}),
        (Record.of("x", "<noinput>", "y"), {"placeholder_inputs"}),
        (Record.of("x", "Na", "sodium"), set()),
        (Record.of("What is </s>?", "", "y"), {"special_tokens"}),
        (Record.of("x", "", "done</s>\n"), {"special_tokens", "double_ends"}),
        (Record.of("<strong>x</strong> <span>", "", "y"), set()),
        (Record.of("x", "", "\x0crac{a}{b}"), {"control_characters"}),
        (Record.of("x", "", "$\theta$"), {"broken_latex"}),
        (Record.of("x", "", "$\x08eta$ and $\rho$"), {"control_characters", "broken_latex"}),
        (Record.of("x", "", "\x93quoted\x94"), {"control_characters"}),
        (Record.of("x", "", "\tindented\r\nline"), set()),
    ],
)
def test_what_is_found(record: Record, found: set[str]) -> None:
    assert set(findings_of(record)) == found


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("What is CC(=O)Oc1ccccc1C(=O)O?", "SMILES"),
        ("Is c1ccccc1 aromatic?", "SMILES"),
        ("CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O", "SMILES"),
        ("MKVLLAEQWYTTRSNPG", "AMINO"),
        ("the primer ACGTACGTACGTACGTA binds", "DNA"),
        ("[START_SMILES]CC(=O)O[END_SMILES]", None),
        ("CO2, CH3COOH and H2SO4", None),
        ("Is it (on) or off? COSINUS", None),
        ("the slope is cos(C)", None),
        ("a[1][2][3][4] and p.pop(0)", None),
        ("F(n)=F(n-1)+F(n-2)", None),
        ("CHARACTERISTICS", None),
        ("f(x) = 2, N/A, I/O, C++, #NoFilter", None),
        ("ABSTRACT AND INTRODUCTION", None),
    ],
)
def test_sequences_without_tags(text: str, kind: str | None) -> None:
    assert bare_sequence(text) == kind


BAD = [
    Record.of("fine", "", "yes"),
    Record.of("", "", "no instruction"),
    Record.of("ends", "", "done</s>"),
    Record.of("latex", "", "\x0crac"),
]


@pytest.mark.parametrize(
    ("policy", "index", "reason"),
    [
        ("on_empty_instruction", 1, "empty instruction"),
        ("on_special_tokens", 2, "special tokens"),
        ("on_control_characters", 3, "control characters"),
    ],
)
def test_each_policy_keeps_drops_or_refuses_its_own(
    policy: str, index: int, reason: str, tokenizer_folder: Path
) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder))

    def encoded(**policies: Any) -> Any:
        records = RecordSet("a.json", BAD, Places.of("a.json", [None] * 4), {})
        return encode(records, tokenizer, load_template("alpaca"), EncodingPolicy(512, **policies))

    assert encoded().record_indices.tolist() == [0, 1, 2, 3]
    dropped = encoded(**{policy: "drop"})
    assert dropped.record_indices.tolist() == [i for i in range(4) if i != index]
    assert dropped.receipt.dropped == {reason: 1}
    assert encoded().receipt.first.items() <= dropped.receipt.first.items(), "counted, dropped or not"
    with pytest.raises(InputError) as caught:
        encoded(**{policy: "error"})
    assert caught.value.where == f"a.json, record {index + 1}"
    assert caught.value.fix == f"data.{policy}=keep or drop"
