"""``run.json``: what the run is made of, whole after every change, and no going on with another recipe."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from galpaca.errors import InputError
from galpaca.runs.provenance import command_line, git_state, versions
from galpaca.runs.recipe import FORMAT, Recipe
from galpaca.runs.record import RunRecord
from galpaca.runs.record_fields import PlanFigures, Start


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.json"


def test_a_run_keeps_its_id(path: Path) -> None:
    """It is the tracker's as well: a new one on every start scattered a run over several curves."""
    record = RunRecord(path)
    record.update(plan=PlanFigures(steps=3, steps_per_epoch=1))
    again = RunRecord(path)
    assert again.content.id == record.content.id
    assert again.content == record.content
    assert again.content.num_steps == 3


def test_runs_have_ids_of_their_own(tmp_path: Path) -> None:
    assert len({RunRecord(tmp_path / "none").content.id for _ in range(50)}) == 50


def test_looking_writes_nothing(path: Path) -> None:
    RunRecord(path)
    assert not path.exists()


def test_every_start_is_kept(path: Path) -> None:
    for step in (0, 4):
        RunRecord(path).add_start(Start(step=step, host="node"))
    assert [start.step for start in RunRecord(path).content.starts] == [0, 4]


def test_what_a_later_version_recorded_is_kept(path: Path) -> None:
    """An older version rewrites the file at each start."""
    path.write_text(json.dumps({"id": "a", "estimate": {"hours": 2}, "starts": [{"step": 0, "energy_kwh": 3.5}]}))
    RunRecord(path).end_start("stopped", "by hand")
    content = json.loads(path.read_text())
    assert content["estimate"] == {"hours": 2}
    assert content["starts"][0]["energy_kwh"] == 3.5
    assert content["starts"][0]["ended"]["how"] == "stopped"


def test_a_value_of_another_type_is_named_with_its_place(path: Path) -> None:
    path.write_text(json.dumps({"id": "a", "starts": [{"step": 0}, {"step": "x"}]}))
    with pytest.raises(InputError, match=r"starts\[1\]\.step: expected an integer, got 'x'"):
        RunRecord(path)


def test_text_stays_readable(path: Path) -> None:
    RunRecord(path).update(receipt={"source": "données H₂O"})
    assert "données H₂O" in path.read_text(encoding="utf-8")
    assert path.read_text().endswith("}\n")


class TestRecipe:
    THEN = Recipe.from_json({"format": FORMAT, "seed": 1, "optim.lr": 2e-5})
    NOW = Recipe.from_json({"format": FORMAT, "seed": 2, "optim.lr": 2e-5})

    @pytest.fixture
    def record(self, path: Path) -> RunRecord:
        RunRecord(path).update(recipe=self.THEN)
        return RunRecord(path)

    def test_the_same_goes_on(self, record: RunRecord) -> None:
        assert record.take_recipe(self.THEN) == []
        assert record.content.former_recipes == ()

    def test_the_first_start_has_none_to_differ_from(self, path: Path) -> None:
        record = RunRecord(path)
        assert record.take_recipe(self.THEN) == []
        assert record.recipe == self.THEN

    def test_another_one_is_refused(self, record: RunRecord, path: Path) -> None:
        """And changes nothing."""
        with pytest.raises(InputError, match="different recipe") as caught:
            record.take_recipe(self.NOW)
        assert caught.value.why == "seed: 1 -> 2"
        assert caught.value.where == str(path.parent)
        assert "run.name=" in caught.value.fix
        assert record.recipe == self.THEN

    def test_one_that_was_accepted_is_the_runs_from_then_on(self, record: RunRecord, path: Path) -> None:
        """Checkpoints from before the change stay its own."""
        assert record.take_recipe(self.NOW, accept_changes=True) == ["seed: 1 -> 2"]
        record.update()
        again = RunRecord(path)
        assert again.take_recipe(self.NOW) == []
        assert again.had_recipe(self.THEN)
        assert again.had_recipe(self.NOW)
        assert not again.had_recipe(Recipe.from_json({"format": FORMAT, "seed": 3, "optim.lr": 2e-5}))

    @pytest.mark.parametrize("written", [{"format": 99}, ["seed", 1], None])
    def test_one_that_cannot_be_read_is_refused(self, path: Path, written: object) -> None:
        """A later version's, or none at all: taken for a new run, it would be trained over."""
        path.write_text(json.dumps({"id": "a", "recipe": written}))
        with pytest.raises(InputError, match="recipe") as caught:
            RunRecord(path).take_recipe(self.THEN)
        assert caught.value.where == str(path)
        assert "run.name=" in caught.value.fix


@pytest.mark.parametrize("content", ["{", "", "[]", "null", "3", '"text"', "\xff"])
def test_a_record_that_cannot_be_read_is_never_replaced(path: Path, content: str) -> None:
    """Taken for a new run, it would train over the old one's checkpoints."""
    path.write_text(content, encoding="latin1")
    with pytest.raises(InputError, match="cannot be read") as caught:
        RunRecord(path)
    assert caught.value.where == str(path)
    assert path.read_text(encoding="latin1") == content


def test_what_is_no_json_leaves_the_old_record(path: Path) -> None:
    record = RunRecord(path)
    record.update(parameters=3)
    before = path.read_text()
    with pytest.raises(TypeError):
        record.update(final=object())
    assert path.read_text() == before


def test_versions_tell_what_is_there_and_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galpaca.runs.provenance._PACKAGES", ("pytest", "no-such-package"))
    assert versions() == {
        "python": sys.version.split()[0],
        "pytest": pytest.__version__,
        "no-such-package": "not installed",
    }


def test_the_command_line_can_be_typed_again() -> None:
    assert command_line() == (sys.executable, *sys.argv)


class TestGit:
    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        def git(*arguments: str) -> None:
            identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
            subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

        git("init", "--quiet")
        (tmp_path / "code.py").write_text("1")
        git("add", ".")
        git("commit", "--quiet", "-m", "first")
        return tmp_path

    def test_a_clean_checkout(self, checkout: Path) -> None:
        state = git_state(checkout)
        assert state
        assert len(state.commit) == 40
        assert state.dirty is False

    def test_a_changed_checkout(self, checkout: Path) -> None:
        (checkout / "code.py").write_text("2")
        state = git_state(checkout)
        assert state
        assert state.dirty is True

    def test_no_checkout(self, tmp_path: Path) -> None:
        assert git_state(tmp_path) is None

    def test_no_git(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        try:
            assert git_state(tmp_path) is None
        finally:
            monkeypatch.undo()
