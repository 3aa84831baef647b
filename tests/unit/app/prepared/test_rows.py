"""A data set of the Hub, saved once: the same rows and the same fingerprint without the library or a network."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from galpaca.app.prepared.rows import make_rows, open_source, rows_folder
from galpaca.data.sources.files import FileSource
from galpaca.data.sources.hub import HubSource
from galpaca.data.sources.saved import SavedSource
from galpaca.data.spec import DataSpec
from galpaca.errors import InputError

RECORDS: list[dict[str, Any]] = [
    {"output": "x² — Ångström\n", "instruction": "a", "input": None, "id": None, "score": None},
    {"output": "", "instruction": "b\x85c\u2028d", "input": "1", "id": 3, "score": 0.1},
]
SPEC = DataSpec(hub_id="owner/name", hub_split="test", hub_revision="refs/pr/1")


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that were requested of the library."""
    names: list[str] = []

    def load_dataset(name: str, *_: object, **__: object) -> Any:
        names.append(name)
        return datasets.Dataset.from_list(RECORDS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return names


def test_the_saved_rows_and_their_fingerprint_are_those_of_the_hub(requested: list[str], tmp_path: Path) -> None:
    """Else a run that was started before would be refused as one of other data."""
    original = open_source(SPEC, tmp_path)
    assert isinstance(original, HubSource)
    assert make_rows(SPEC, tmp_path)
    saved = open_source(SPEC, tmp_path)
    assert isinstance(saved, SavedSource)
    assert (saved.name, saved.fingerprint) == (original.name, original.fingerprint)
    assert saved.table().values == original.table().values == RECORDS


def test_what_is_saved_is_not_requested_again(requested: list[str], tmp_path: Path) -> None:
    make_rows(SPEC, tmp_path)
    assert not make_rows(SPEC, tmp_path)
    open_source(SPEC, tmp_path).table()
    assert requested == ["owner/name"]


def test_other_splits_and_revisions_are_others(tmp_path: Path) -> None:
    specs = [SPEC, DataSpec(hub_id="owner/name"), DataSpec(hub_id="owner/name", hub_revision="v1")]
    assert len({rows_folder(spec, tmp_path) for spec in specs}) == 3
    assert all(rows_folder(spec, tmp_path).parent == tmp_path / ".cache" / "rows" for spec in specs)


def test_a_damaged_row_is_refused_and_saved_again(requested: list[str], tmp_path: Path) -> None:
    make_rows(SPEC, tmp_path)
    path = rows_folder(SPEC, tmp_path) / "rows.jsonl"
    path.write_text(path.read_text().replace('"a"', '"e"'))
    with pytest.raises(InputError, match="damaged") as caught:
        open_source(SPEC, tmp_path)
    assert caught.value.where == str(path)
    assert "galpaca prepare" in caught.value.fix
    assert make_rows(SPEC, tmp_path)
    assert open_source(SPEC, tmp_path).table()


def test_a_lost_file_is_refused(requested: list[str], tmp_path: Path) -> None:
    make_rows(SPEC, tmp_path)
    (rows_folder(SPEC, tmp_path) / "rows.jsonl").unlink()
    with pytest.raises(InputError, match="cannot read"):
        open_source(SPEC, tmp_path)


def test_a_file_comes_first(requested: list[str], tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("{}\n")
    assert isinstance(open_source(DataSpec(path=str(path), hub_id="owner/name"), tmp_path), FileSource)
    assert requested == []


def test_a_data_set_without_rows_is_not_saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = datasets.Dataset.from_dict({"instruction": [], "output": []})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: empty)
    with pytest.raises(InputError, match="no records"):
        make_rows(SPEC, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
