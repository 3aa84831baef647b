"""Records to JSON and back: nothing is lost, not even what a later version wrote, and errors name their place."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from conftest import REPOSITORY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galpaca.files.checksums import FileFacts
from galpaca.runs.checkpoints import Manifest, read_manifest
from galpaca.runs.lines import (
    CheckpointLine,
    NonFiniteLine,
    OtherLine,
    SampleLine,
    StepLine,
    SystemLine,
    ValidationLine,
)
from galpaca.runs.recipe import Recipe
from galpaca.runs.record_fields import RunContent
from galpaca.runs.typed import NULL, decode, encode

RECORDS = (
    StepLine,
    ValidationLine,
    CheckpointLine,
    OtherLine,
    SampleLine,
    NonFiniteLine,
    SystemLine,
    RunContent,
    Manifest,
)
OLD_RUNS = REPOSITORY / "tests" / "old_runs"
OLD_CHECKPOINTS = ("finished/checkpoints/step-00000024", "half/checkpoints/step-00000012")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
# No field has such a name.
UNKNOWN = st.dictionaries(st.text(max_size=5).map("later.{}".format), JSON, max_size=2)


def records(kind: type) -> st.SearchStrategy[Any]:
    """Records of a kind with any values; fields that have a default may have that."""
    hints = get_type_hints(kind)
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for item in fields(kind):
        values = UNKNOWN if item.name == "extra" else values_of(hints[item.name])
        has_default = item.default is not MISSING or item.default_factory is not MISSING
        (optional if has_default else required)[item.name] = values
    return st.fixed_dictionaries(required, optional=optional).map(lambda found: kind(**found))


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return st.none() | st.one_of([values_of(one) for one in arguments if one is not NoneType])
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(st.text(max_size=5), values_of(arguments[1]), max_size=3)
    if hint is Recipe:
        return UNKNOWN.map(Recipe.from_json)
    if hint is FileFacts:
        return st.builds(FileFacts, st.integers(), st.text(max_size=5))  # a manifest knows all sizes
    if is_dataclass(hint):
        return records(hint)  # type: ignore[arg-type]
    return SCALARS[hint]


SCALARS = {
    Any: JSON,
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
    str: st.text(max_size=5),
}


# Large records take long to draw; on a machine that is busy, too long for hypothesis' patience.
PATIENT = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("kind", RECORDS)
@PATIENT
@given(data=st.data())
def test_whatever_is_written_is_read(kind: type, data: st.DataObject) -> None:
    record = data.draw(records(kind))
    text = json.dumps(encode(record), allow_nan=False)
    assert decode(kind, json.loads(text)) == record


@PATIENT
@given(records(Manifest), st.integers(1, 9))
def test_a_manifest_is_read_from_its_sealed_text_in_its_own_format_alone(manifest: Manifest, other: int) -> None:
    content = encode(manifest)
    text = decode(Manifest, content | {"format": 1}).to_json()
    assert Manifest.from_json(text).to_json() == text
    with pytest.raises(ValueError, match=f"format {other + 1}, but"):
        Manifest.from_json(decode(Manifest, content | {"format": other + 1}).to_json())


def kept(content: Any) -> Any:
    """What a file says: null and an empty list say the same as an absent key."""
    if isinstance(content, dict):
        return {name: kept(value) for name, value in content.items() if value is not None and value != []}
    return [kept(one) for one in content] if isinstance(content, list) else content


@pytest.mark.parametrize("name", ["finished", "half"])
def test_the_record_of_an_old_run_is_rewritten_without_a_loss(name: str) -> None:
    written = json.loads((OLD_RUNS / name / "run.json").read_text(encoding="utf-8"))
    content = decode(RunContent, written)
    again = json.loads(json.dumps(encode(content)))
    assert decode(RunContent, again) == content
    assert list(kept(again)) == list(kept(written)), "their order"
    recipe = Recipe.from_json(written.pop("recipe"))
    assert Recipe.from_json(again.pop("recipe")) == recipe
    if "final" in again:
        assert again["final"].pop("validations") == 0, "a later version's"
    assert kept(again) == kept(written)


@pytest.mark.parametrize("place", OLD_CHECKPOINTS)
def test_the_manifest_of_an_old_checkpoint_is_rewritten_without_a_loss(place: str) -> None:
    written = json.loads((OLD_RUNS / place / "manifest.json").read_text(encoding="utf-8"))
    manifest = read_manifest(OLD_RUNS / place)
    again = json.loads(manifest.to_json())
    assert manifest.recipe == Recipe.from_json(written["recipe"])
    assert all(len(shape) in (1, 2) and isinstance(shape, tuple) for shape in manifest.parameters.values())
    changing = {"recipe", "sha256"}
    assert {**again, **dict.fromkeys(changing)} == {**written, **dict.fromkeys(changing)}


def test_keys_that_this_version_does_not_know_stay_where_they_were() -> None:
    """An older version resumes a run, and rewrites its record at each start."""
    written = {
        "id": "a",
        "plan": {"steps": 3, "steps_per_epoch": 3, "later": [1, None]},
        "starts": [{"step": 0, "later": {"a": None}}, {"step": 2, "seconds": {"load": 1.0, "later": 2.0}}],
        "final": {"steps": 3, "later": "x"},
        "later": 1,
    }
    again = encode(decode(RunContent, written))
    assert again["later"] == 1
    assert again["plan"]["later"] == [1, None]
    assert again["starts"][0]["later"] == {"a": None}
    assert again["starts"][1]["seconds"] == {"load": 1.0, "later": 2.0}
    assert again["final"]["later"] == "x"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"starts": [{}, {"step": "x"}]}, "starts[1].step: expected an integer, got 'x'"),
        ({"starts": {}}, "starts: expected a list, got '{}'"),
        ({"starts": [{"git": {"dirty": 1}}]}, "starts[0].git.dirty: expected true or false, got '1'"),
        ({"starts": [{"versions": {"torch": 2}}]}, "starts[0].versions.torch: expected a string, got '2'"),
        ({"starts": [{"seconds": {"load": "1"}}]}, "starts[0].seconds.load: expected a number, got '1'"),
        ({"histograms": {"bin_tokens": 2, "lengths": [1, None]}}, "histograms.lengths[1]: expected an integer"),
        ({"plan": {"steps": True, "steps_per_epoch": 1}}, "plan.steps: expected an integer, got 'True'"),
        ({"plan": {"steps": 1.0, "steps_per_epoch": 1}}, "plan.steps: expected an integer, got '1.0'"),
        ({"plan": {"steps": 1}}, "plan: steps_per_epoch is missing"),
        ({"plan": []}, "plan: expected an object, got '[]'"),
        ({"weights": 3}, "weights: expected an object, got '3'"),
        ({"recipe": ["seed"]}, """recipe: expected an object, got "['seed']\""""),
        ({"recipe": {"format": 99}}, "recipe: recipe format 99, but"),
        ({"former_recipes": [{}, {"format": 99}]}, "former_recipes[1]: recipe format 99, but"),
        ({"id": ["x" * 100]}, f"""id: expected a string, got "['{"x" * 38}\""""),
        ([], "expected an object, got '[]'"),
        (None, "expected an object, got 'None'"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_place(content: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=r"expected|missing|format") as caught:
        decode(RunContent, content)
    assert str(caught.value).startswith(problem)


@dataclass(frozen=True)
class Inner:
    figures: tuple[float, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    first: int
    absent: float | None = None
    shown: float | None = field(default=None, metadata=NULL)
    inner: Inner = field(default_factory=Inner)
    extra: Mapping[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_null_however_deep(value: float) -> None:
    """Python writes ``NaN``, which no other reader of JSON takes."""
    record = Outer(1, value, value, Inner((1.0, value), {"a": [value]}), {"b": value})
    assert encode(record) == {
        "first": 1,
        "shown": None,
        "inner": {"figures": [1.0, None], "named": {"a": [None]}},
        "b": None,
    }


def test_keys_stand_in_the_order_of_the_fields_and_unknown_ones_last() -> None:
    written = {"later": 1, "inner": {}, "shown": 2.0, "first": 3}
    assert list(encode(decode(Outer, written))) == ["first", "shown", "inner", "later"]


def test_a_key_that_is_absent_has_the_default_and_null_where_there_may_be_none() -> None:
    assert decode(Outer, {"first": 1}) == decode(Outer, {"first": 1, "absent": None}) == Outer(1)


def test_what_a_record_without_room_for_it_does_not_know_is_left_out() -> None:
    assert decode(Inner, {"later": 1}) == Inner()
