"""Checkpoints as files, without a model in them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from galpaca.errors import InputError
from galpaca.files.checksums import FileFacts, file_facts
from galpaca.runs.checkpoints import (
    Manifest,
    Retention,
    SaveSeconds,
    commit,
    damage,
    partial_of,
    read_manifest,
    retire,
    set_aside,
    write_report,
)
from galpaca.runs.folder import RunFolder
from galpaca.runs.recipe import FORMAT, Recipe


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path, "run")
    folder.checkpoints.mkdir(parents=True)
    return folder


def manifest(step: int) -> Manifest:
    return Manifest(
        step=step,
        num_ranks=1,
        parameters={"a": (2, 3)},
        recipe=Recipe.from_json({"format": FORMAT, "seed": 1, "optim.lr": 2e-5}),
        metrics=FileFacts(0, ""),
        files={},
        time="2026-11-24T00:00:00Z",
    )


def take(folder: RunFolder, step: int) -> Path:
    """Commits a checkpoint of two files."""
    checkpoint = folder.checkpoint(step)
    partial = partial_of(checkpoint)
    partial.mkdir()
    for name, content in (("rank-00000.safetensors", b"one" * 1000), ("trainer.json", b"{}")):
        (partial / name).write_bytes(content)
        write_report(partial, name, file_facts(partial / name))
    commit(checkpoint, manifest(step), SaveSeconds(0.1, 0.2))
    return checkpoint


def test_a_committed_checkpoint_is_whole_and_the_latest(folder: RunFolder) -> None:
    checkpoint = take(folder, 40)
    assert damage(checkpoint) == []
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "manifest.json",
        "rank-00000.safetensors",
        "trainer.json",
    ]
    read = read_manifest(checkpoint)
    assert replace(read, files={}, seconds=SaveSeconds()) == manifest(40)
    assert read.seconds == SaveSeconds(0.1, 0.2)
    assert read.num_bytes == 3002
    assert (folder.checkpoints / "latest").read_text() == "step-00000040\n"
    assert folder.saved_steps() == [40]
    take(folder, 50)
    assert (folder.checkpoints / "latest").read_text() == "step-00000050\n"


@pytest.mark.parametrize("number", range(10))
def test_no_change_of_the_manifest_goes_unseen(folder: RunFolder, number: int) -> None:
    """A bit in any place of it; and what is cut off, a newline too."""
    path = take(folder, 1) / "manifest.json"
    content = bytearray(path.read_bytes())
    content[number * (len(content) - 1) // 9] ^= 4
    path.write_bytes(content)
    assert len(damage(path.parent)) == 1
    with pytest.raises(InputError, match="manifest is damaged"):
        read_manifest(path.parent)


def test_a_format_of_the_future_is_reported(folder: RunFolder) -> None:
    path = take(folder, 1) / "manifest.json"
    path.write_text(replace(manifest(1), format=9).to_json())
    with pytest.raises(InputError, match="format 9"):
        read_manifest(path.parent)


def test_a_folder_that_was_never_committed_is_no_checkpoint(folder: RunFolder) -> None:
    folder.checkpoint(3).mkdir()
    (found,) = damage(folder.checkpoint(3))
    assert "no manifest" in found


def test_sizes_alone_are_looked_at_on_request(folder: RunFolder) -> None:
    """A flipped bit shows only when the file is read; a missing byte at once."""
    checkpoint = take(folder, 1)
    file = checkpoint / "rank-00000.safetensors"
    file.write_bytes(b"two" * 1000)
    assert damage(checkpoint, contents=False) == []
    assert damage(checkpoint) == ["rank-00000.safetensors is damaged: checksum mismatch"]
    file.write_bytes(b"two")
    assert damage(checkpoint, contents=False) == ["rank-00000.safetensors is truncated: 3 bytes, not 3,000"]


def test_what_is_set_aside_counts_no_more_and_is_not_lost(folder: RunFolder) -> None:
    places = []
    for _ in range(2):
        checkpoint = take(folder, 7)
        places.append(set_aside(checkpoint))
    assert folder.saved_steps() == []
    assert [place.name for place in places] == ["damaged-step-00000007", "damaged-2-step-00000007"]
    assert all((place / "manifest.json").is_file() for place in places)


STEPS = (10, 20, 30, 40, 50)
LOSSES = {10: 2.0, 20: 1.0, 30: 1.5, 40: 1.0, 60: 0.1}


class TestRetention:
    def test_the_newest_stay(self) -> None:
        assert Retention(2).kept(STEPS, LOSSES) == {40, 50}
        assert Retention(9).kept(STEPS, LOSSES) == set(STEPS)

    def test_multiples_stay(self) -> None:
        assert Retention(1, keep_every=20).kept(STEPS, LOSSES) == {20, 40, 50}

    def test_the_best_stays_the_newer_one_of_equals(self) -> None:
        assert Retention(1, keep_best=True).kept(STEPS, LOSSES) == {40, 50}

    def test_without_a_validation_none_is_the_best(self) -> None:
        assert Retention(1, keep_best=True).kept(STEPS, {}) == {50}

    def test_others_are_removed(self, folder: RunFolder) -> None:
        for step in (1, 2, 3):
            take(folder, step)
        retire(folder, Retention(1), {})
        assert folder.saved_steps() == [3]
        assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["latest", "step-00000003"]


def test_facts_of_the_beginning_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    before = file_facts(path)
    path.write_bytes(b"abcdef")
    assert file_facts(path, 3) == before
    assert file_facts(path) != before
    assert file_facts(path, 0).bytes == 0


@pytest.mark.parametrize("missing", ["rank-00000.safetensors", "rank-00000.safetensors.report", "trainer.json.report"])
def test_nothing_is_committed_where_a_file_of_a_rank_is_missing(folder: RunFolder, missing: str) -> None:
    """A rank's file was left out of the manifest, and the checkpoint taken for whole until a run went on from it."""
    partial = partial_of(folder.checkpoint(1))
    partial.mkdir()
    for name in ("rank-00000.safetensors", "trainer.json"):
        (partial / name).write_bytes(b"content")
        write_report(partial, name, file_facts(partial / name))
    (partial / missing).unlink()
    with pytest.raises(OSError, match=r"No such file|is missing"):
        commit(folder.checkpoint(1), manifest(1), SaveSeconds())
    assert folder.saved_steps() == []


def test_a_manifest_without_a_ranks_file_is_damaged(folder: RunFolder) -> None:
    checkpoint = take(folder, 1)
    read = read_manifest(checkpoint)
    (checkpoint / "manifest.json").write_text(replace(read, num_ranks=2).to_json())
    assert damage(checkpoint) == ["the manifest names 2 files for 2 ranks"]


def test_a_file_that_cannot_be_read_is_damaged(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad sector ended every start with a stack trace instead of taking the checkpoint before."""

    def read(path: Path, stop: int | None = None) -> FileFacts:
        raise OSError(5, "Input/output error")

    checkpoint = take(folder, 1)
    monkeypatch.setattr("galpaca.files.checksums.file_facts", read)
    assert "rank-00000.safetensors cannot be read: Input/output error" in damage(checkpoint)


def test_the_manifest_is_json_that_a_person_can_read(folder: RunFolder) -> None:
    content = json.loads((take(folder, 2) / "manifest.json").read_text())
    assert content["step"] == 2
    assert content["files"]["trainer.json"]["bytes"] == 2
