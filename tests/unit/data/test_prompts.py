"""Templates: shipped ones by name, the user's own by path, mistakes in them reported at the door."""

from dataclasses import asdict
from pathlib import Path

import pytest

from galpaca.data.prompts import Template, load_template, shipped_templates
from galpaca.errors import InputError, InputErrors

GOOD = "with_input: '{instruction} | {input} >'\nwithout_input: '{instruction} >'\n"


def template_file(folder: Path, content: str | bytes) -> str:
    path = folder / "mine.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def refusal(folder: Path, content: str | bytes) -> InputError:
    with pytest.raises(InputError) as caught:
        load_template(template_file(folder, content))
    return caught.value


@pytest.mark.parametrize("name", shipped_templates())
def test_nothing_follows_the_last_colon_of_a_shipped_template(name: str) -> None:
    """A space or newline there moves every answer by a token."""
    template = load_template(name)
    assert template.prompt("i").endswith("Response:")
    assert template.prompt("i", "x").endswith("Response:")


def test_alpaca_and_science_are_shipped() -> None:
    assert {"alpaca", "science"} <= set(shipped_templates())


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    template = load_template(template_file(tmp_path, GOOD))
    assert template.prompt("do", "this") == "do | this >"
    assert template.prompt("do") == template.prompt("do", "") == "do >"


def test_an_input_of_one_space_is_an_input(tmp_path: Path) -> None:
    assert load_template(template_file(tmp_path, GOOD)).prompt("do", " ") == "do |   >"


def test_braces_in_a_record_are_text(tmp_path: Path) -> None:
    """``str.format`` on a prompt that is already filled in fails on LaTeX, or fills in what a record names."""
    template = load_template(template_file(tmp_path, GOOD))
    assert (
        template.prompt(r"\frac{a}{b} {input} {0} {", "{instruction}") == r"\frac{a}{b} {input} {0} { | {instruction} >"
    )


def test_doubled_braces_in_a_template_are_literal(tmp_path: Path) -> None:
    text = "with_input: '{{{instruction}}} {input}'\nwithout_input: '{{x}} {instruction}'\n"
    template = load_template(template_file(tmp_path, text))
    assert template.prompt("i", "n") == "{i} n"
    assert template.prompt("i") == "{x} i"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("with_input: '{instruction} {input}'\n", "'without_input' is missing"),
        ("with_input: 3\nwithout_input: '{instruction}'\n", "'with_input' is missing or not a string"),
        (GOOD + "with_inputs: x\n", "unknown key 'with_inputs'"),
        (GOOD.replace(" | {input}", ""), "must have the placeholders ['input', 'instruction'], got ['instruction']"),
        (
            GOOD.replace("without_input: '{instruction}", "without_input: '{input}"),
            "must have the placeholders ['instruction'], got ['input']",
        ),
        (GOOD.replace("{instruction} >'\n", "{instruction} {other} >'\n"), "'other'"),
        (GOOD.replace(" >'", " {}>'"), "['', 'instruction']"),
        (GOOD.replace(" >'", " {>'"), "'without_input'"),
        (GOOD.replace(" >'", " }>'"), "'without_input'"),
        ("- a\n- b\n", "not a mapping"),
        ("just text", "not a mapping"),
        ("", "not a mapping"),
        ("a: [", "invalid YAML"),
        (b"with_input: caf\xe9\n", "cannot read the template"),
    ],
)
def test_a_mistake_is_reported_with_the_files_name(tmp_path: Path, content: str | bytes, message: str) -> None:
    error = refusal(tmp_path, content)
    assert message in str(error)
    assert str(tmp_path / "mine.yaml") in str(error)
    assert "fix: " in str(error)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    error = refusal(tmp_path, "extra: x\nmore: y\nwith_input: '{input}'\n")
    assert isinstance(error, InputErrors)
    assert error.count == 4


def test_an_unknown_name_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown template 'alpacca'") as caught:
        load_template("alpacca")
    assert "alpaca" in caught.value.fix


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the template"):
        load_template(str(tmp_path / "none.yaml"))


def test_the_fingerprint_is_that_of_the_texts() -> None:
    """It decides whether encoded data is encoded again: a copy of a template is the same, a changed one is not."""
    template = Template("a", "{instruction} {input}", "{instruction}")
    assert Template("b", *list(asdict(template).values())[1:]).fingerprint == template.fingerprint
    assert Template("a", "{instruction} {input}.", "{instruction}").fingerprint != template.fingerprint
    assert Template("a", "{instruction} {input}", "{instruction}.").fingerprint != template.fingerprint
