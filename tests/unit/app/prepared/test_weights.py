"""Where a run's weights are found, what is made of what is there, and what damage is reported."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from extension.own_tuning import BiasesAndNorms
from hub_downloads import COMMIT, lay_out
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import OPTConfig, OPTForCausalLM

from galpaca.app.config.composition import compose
from galpaca.app.config.schema import Config
from galpaca.app.console import make_console
from galpaca.app.prepared import fetch, hub
from galpaca.app.prepared.convert import convert_folder
from galpaca.app.prepared.fetch import make_model, model_folder
from galpaca.app.prepared.weights import LocalModel, local_model
from galpaca.app.train import starting_point
from galpaca.app.train.context import OpenedRun
from galpaca.app.train.starting_point import choose_starting_point
from galpaca.errors import InputError
from galpaca.model.build import build_model
from galpaca.model.families.opt import OPT
from galpaca.model.tuning.full import FullTuning
from galpaca.model.tuning.method import TuningMethod
from galpaca.runs.folder import RunFolder
from galpaca.runs.record import RunRecord
from galpaca.training.specs import TuningSpec

CONSOLE = make_console(quiet=True)
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    sizes: dict[str, Any] = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_hidden_layers": 1}
    torch.manual_seed(0)
    model = OPTForCausalLM(OPTConfig(**sizes, num_attention_heads=2, vocab_size=50, max_position_embeddings=64))
    folder = tmp_path_factory.mktemp("model") / "opt"
    model.half().save_pretrained(folder)
    for path in tokenizer_folder.iterdir():
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(original, tmp_path / "opt"))


@pytest.fixture
def pickled(model: Path) -> Path:
    """The same folder with a ``.bin`` in the place of safetensors."""
    torch.save(load_file(model / WEIGHTS), model / "pytorch_model.bin")
    (model / WEIGHTS).unlink()
    return model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's; downloads are mistakes."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def download(*_: object, **__: object) -> Path:
        raise AssertionError("nothing was to be downloaded")

    monkeypatch.setattr(hub, "download", download)
    return tmp_path / "hub"


@pytest.fixture
def downloads(cache: Path, original: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those that are requested; they bring the original."""
    requested: list[str] = []

    def download(hub_id: str, *_: object, **__: object) -> Path:
        requested.append(hub_id)
        return lay_out(cache, hub_id, original)

    monkeypatch.setattr(hub, "download", download)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return requested


def config_of(tmp_path: Path, path: object = "acme/tiny", *more: str) -> Config:
    data = ["data=local", f"data.path={tmp_path}/none.json", f"run.root={tmp_path}/runs", "run.name=test"]
    return compose(["model=galactica-125m", f"model.path={path}", *data, *more])[0]


def found(config: Config) -> LocalModel:
    return local_model(config, CONSOLE)


def prepared(config: Config) -> tuple[bool, Path]:
    """Whether it was made now, and where."""
    root = Path(config.run.root)
    return make_model(config.model, root, CONSOLE, thorough=True), model_folder(config.model, root)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


class TestWhereTheyAre:
    def test_a_folder_is_taken_as_it_is(self, cache: Path, model: Path, tmp_path: Path) -> None:
        local = found(config_of(tmp_path, model))
        assert (local.folder, local.spec.tokenizer_path) == (model, str(model))
        assert local.verify() == 0, "nothing is known to compare with"
        assert local.facts()["files"] == {WEIGHTS: {"bytes": (model / WEIGHTS).stat().st_size, "sha256": None}}

    def test_what_is_prepared_comes_before_the_cache(self, cache: Path, model: Path, tmp_path: Path) -> None:
        lay_out(cache, "acme/tiny", model)
        config = config_of(tmp_path)
        is_new, folder = prepared(config)
        assert is_new
        assert found(config).folder == folder
        assert found(config).verify() == len(list(folder.iterdir())) - 1, "all files but the checksums"

    def test_a_snapshot_in_the_cache_is_taken_as_it_is(self, cache: Path, model: Path, tmp_path: Path) -> None:
        snapshot = lay_out(cache, "acme/tiny", model)
        local = found(config_of(tmp_path))
        assert (local.folder, local.commit, local.verify()) == (snapshot, COMMIT, 1)
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize("lost", [WEIGHTS, "config.json", "tokenizer.json"])
    def test_one_that_lacks_something_is_not(self, lost: str, cache: Path, model: Path, tmp_path: Path) -> None:
        (lay_out(cache, "acme/tiny", model) / lost).unlink()
        with pytest.raises(InputError, match="not on this machine"):
            found(config_of(tmp_path))

    def test_without_its_tokenizer_if_another_is_named(
        self, cache: Path, model: Path, tokenizer_folder: Path, tmp_path: Path
    ) -> None:
        snapshot = lay_out(cache, "acme/tiny", model)
        (snapshot / "tokenizer.json").unlink()
        local = found(config_of(tmp_path, "acme/tiny", f"model.tokenizer={tokenizer_folder}"))
        assert (local.folder, local.spec.tokenizer) == (snapshot, str(tokenizer_folder))

    def test_a_revision_is_not_another_one(self, cache: Path, model: Path, tmp_path: Path) -> None:
        lay_out(cache, "acme/tiny", model)
        with pytest.raises(InputError, match="not on this machine"):
            found(config_of(tmp_path, "acme/tiny", "model.revision=other"))
        local = found(config_of(tmp_path, "acme/tiny", f"model.revision={COMMIT}"))
        assert (local.commit, local.facts()["revision"]) == (COMMIT, COMMIT)

    def test_pytorch_weights_in_the_cache_are_converted_without_a_network(
        self, cache: Path, pickled: Path, tmp_path: Path
    ) -> None:
        lay_out(cache, "acme/tiny", pickled)
        config = config_of(tmp_path)
        assert found(config).folder == model_folder(config.model, Path(config.run.root))
        assert found(config).verify()

    def test_what_is_nowhere_is_downloaded_once_if_there_is_a_network(
        self, downloads: list[str], original: Path, tmp_path: Path
    ) -> None:
        for _ in range(2):
            folder = found(config_of(tmp_path)).folder
            assert folder is not None
            assert (folder / WEIGHTS).read_bytes() == (original / WEIGHTS).read_bytes()
        assert downloads == ["acme/tiny"]

    def test_a_tokenizer_of_the_hub(self, cache: Path, model: Path, tmp_path: Path) -> None:
        snapshot = lay_out(cache, "acme/words", model)
        local = found(config_of(tmp_path, model, "model.tokenizer=acme/words"))
        assert local.spec.tokenizer_path == str(snapshot)
        fetch.make_tokenizer("acme/words", tmp_path / "runs")
        shutil.rmtree(cache)
        again = found(config_of(tmp_path, model, "model.tokenizer=acme/words"))
        assert again.spec.tokenizer_path == str(tmp_path / "runs" / ".cache" / "tokenizers" / "acme--words")

    def test_random_weights_are_nowhere(self, tmp_path: Path, tokenizer_folder: Path) -> None:
        data = ["data=local", "data.path=x.json", f"run.root={tmp_path}", "run.name=test"]
        local = found(compose(["model=tiny", f"model.tokenizer={tokenizer_folder}", *data])[0])
        assert (local.folder, local.verify(), local.facts()) == (None, 0, {"path": None})

    def test_a_download_that_fails_is_reported_with_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        class Down:
            def list_repo_files(self, *_: object, **__: object) -> list[str]:
                raise ConnectionError("no route to host\nand a page of HTML")

        monkeypatch.setattr(huggingface_hub, "HfApi", Down)
        monkeypatch.setattr("sys.argv", ["train.py", "+experiment=galpaca67b", "run.name=mine", "--multirun"])
        with pytest.raises(InputError) as caught:
            hub.download("acme/tiny", None, weights=True)
        assert "ConnectionError: no route to host" in caught.value.what
        assert "HTML" not in str(caught.value)
        assert "galpaca prepare +experiment=galpaca67b run.name=mine with network access" in caught.value.fix


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("gpt2", True),
        ("facebook/galactica-125m", True),
        ("/abs", False),
        ("./here", False),
        ("a/b/c", False),
        ("~/x", False),
    ],
)
def test_what_is_a_hub_id(path: str, expected: bool) -> None:
    assert hub.is_hub_id(path) == expected


class TestPreparedFolder:
    def test_links_cost_no_disk_and_outlive_the_cache(self, cache: Path, model: Path, tmp_path: Path) -> None:
        snapshot = lay_out(cache, "acme/tiny", model)
        _, folder = prepared(config_of(tmp_path))
        assert (folder / WEIGHTS).stat().st_ino == (snapshot / WEIGHTS).stat().st_ino
        shutil.rmtree(cache)
        assert prepared(config_of(tmp_path)) == (False, folder)

    def test_another_file_system_gets_symbolic_links(
        self, cache: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lay_out(cache, "acme/tiny", model)

        def link(*_: object) -> None:
            raise OSError("cross-device link")

        monkeypatch.setattr(os, "link", link)
        _, folder = prepared(config_of(tmp_path))
        assert (folder / WEIGHTS).is_symlink()
        assert found(config_of(tmp_path)).verify()
        shutil.rmtree(cache)
        with pytest.raises(InputError, match="missing"):
            found(config_of(tmp_path)).verify()

    def test_a_pytorch_folder_that_changed_is_prepared_anew(self, cache: Path, pickled: Path, tmp_path: Path) -> None:
        config = config_of(tmp_path, pickled)
        _, folder = prepared(config)
        assert found(config).folder == folder
        assert prepared(config) == (False, folder)
        tensors = torch.load(pickled / "pytorch_model.bin", weights_only=True)
        torch.save({name: tensor + 1 for name, tensor in tensors.items()}, pickled / "pytorch_model.bin")
        assert found(config).folder == pickled, "what was made of the old files is not taken"
        assert prepared(config) == (True, folder)
        name = next(iter(tensors))
        assert torch.equal(load_file(folder / WEIGHTS)[name], tensors[name] + 1)

    def test_a_failed_preparation_leaves_nothing(self, cache: Path, pickled: Path, tmp_path: Path) -> None:
        os.truncate(pickled / "pytorch_model.bin", 1000)
        with pytest.raises(InputError, match="damaged"):
            prepared(config_of(tmp_path, pickled))
        assert not (tmp_path / "runs").exists()

    def test_what_a_killed_process_left_is_removed(self, cache: Path, model: Path, tmp_path: Path) -> None:
        lay_out(cache, "acme/tiny", model)
        leftover = tmp_path / "runs" / ".cache" / "models" / ".acme--tiny.partial-1"
        leftover.mkdir(parents=True)
        (leftover / WEIGHTS).write_bytes(b"half")
        prepared(config_of(tmp_path))
        assert not leftover.exists()

    def test_a_folder_that_cannot_be_written_is_reported(self, cache: Path, model: Path, tmp_path: Path) -> None:
        lay_out(cache, "acme/tiny", model)
        (tmp_path / "runs").write_text("a file")
        with pytest.raises(InputError, match="cannot create"):
            prepared(config_of(tmp_path))


class TestDamage:
    @pytest.mark.parametrize(
        ("harm", "message"),
        [
            (flip_a_bit, "damaged"),
            (lambda path: os.truncate(path, path.stat().st_size - 8), "truncated"),
            (lambda path: path.unlink(), "missing"),
        ],
        ids=["a flipped bit", "truncated", "removed"],
    )
    def test_of_a_prepared_file_is_reported_by_name_and_mended(
        self, harm: Callable[[Path], None], message: str, downloads: list[str], tmp_path: Path
    ) -> None:
        """What is wrong with a hard link is wrong in the Hub's cache too: it is downloaded again."""
        _, folder = prepared(config_of(tmp_path))
        harm(folder / WEIGHTS)
        with pytest.raises(InputError, match=message) as caught:
            found(config_of(tmp_path)).verify()
        assert caught.value.where == str(folder / WEIGHTS)
        assert "galpaca prepare" in caught.value.fix
        assert prepared(config_of(tmp_path)) == (True, folder)
        assert found(config_of(tmp_path)).verify()
        assert prepared(config_of(tmp_path)) == (False, folder)

    def test_in_the_hubs_cache_is_reported_by_name(self, cache: Path, model: Path, tmp_path: Path) -> None:
        snapshot = lay_out(cache, "acme/tiny", model)
        flip_a_bit((snapshot / WEIGHTS).resolve())
        with pytest.raises(InputError, match="damaged") as caught:
            found(config_of(tmp_path)).verify()
        assert caught.value.where == str(snapshot / WEIGHTS)

    def test_in_the_hubs_cache_is_mended_by_a_download(
        self, downloads: list[str], cache: Path, model: Path, tmp_path: Path
    ) -> None:
        snapshot = lay_out(cache, "acme/tiny", model)
        flip_a_bit((snapshot / WEIGHTS).resolve())
        is_new, _ = prepared(config_of(tmp_path))
        assert (is_new, downloads) == (True, ["acme/tiny"])
        assert found(config_of(tmp_path)).verify()

    def test_on_the_way_is_refused(
        self, cache: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def download(hub_id: str, *_: object, **__: object) -> Path:
            snapshot = lay_out(cache, hub_id, model)
            flip_a_bit((snapshot / WEIGHTS).resolve())
            return snapshot

        monkeypatch.setattr(hub, "download", download)
        with pytest.raises(InputError, match="is corrupted"):
            prepared(config_of(tmp_path))
        assert not (tmp_path / "runs").exists()

    def test_of_the_checksums_counts_as_none(self, downloads: list[str], tmp_path: Path) -> None:
        _, folder = prepared(config_of(tmp_path))
        path = folder / "checksums.json"
        path.write_text(path.read_text().replace(COMMIT, COMMIT[::-1]))
        assert prepared(config_of(tmp_path)) == (True, folder)

    @pytest.mark.parametrize(("step", "tuning"), [(0, FullTuning()), (7, FullTuning()), (7, BiasesAndNorms())])
    def test_is_looked_for_wherever_the_weights_are_needed(
        self,
        step: int,
        tuning: TuningMethod,
        cache: Path,
        model: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A resumed run has all that it trains in the checkpoint, which has checksums of its own, and nothing else."""
        lay_out(cache, "acme/tiny", model)
        config = config_of(tmp_path)
        _, folder = prepared(config)
        flip_a_bit(folder / WEIGHTS)
        monkeypatch.setattr(starting_point, "_newest_whole", lambda *_: step)
        run = RunFolder(tmp_path / "runs", "test")
        built = build_model(OPTConfig(num_hidden_layers=1, hidden_size=16, ffn_dim=16, num_attention_heads=1), OPT)
        config = replace(config, tuning=TuningSpec(tuning))
        arguments = (OpenedRun(config, run, RunRecord(run.record), CONSOLE), 9, found(config), built)
        if step and tuning.trained("fc1.weight"):
            assert choose_starting_point(*arguments).weights is None
        else:
            with pytest.raises(InputError, match="damaged"):
                choose_starting_point(*arguments)


class TestAFolderOfPyTorchWeights:
    def test_that_does_not_fit_its_configuration_is_reported(self, pickled: Path) -> None:
        config = json.loads((pickled / "config.json").read_text())
        (pickled / "config.json").write_text(json.dumps({**config, "ffn_dim": 32}))
        with pytest.raises(InputError, match="mismatched weight"):
            convert_folder(pickled, None)

    def test_is_refused_with_what_to_type_and_then_found_converted_in_place(
        self, cache: Path, pickled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = config_of(tmp_path, pickled)
        before = {path.name for path in pickled.iterdir()}
        with pytest.raises(InputError, match="PyTorch's pickle format") as caught:
            found(config).facts()
        assert f"galpaca prepare --weights {pickled}" in caught.value.fix
        convert_folder(pickled, None)
        assert {path.name for path in pickled.iterdir()} == before | {WEIGHTS, "checksums.json"}
        assert "created" in capsys.readouterr().out
        assert (found(config).folder, found(config).verify()) == (pickled, 1), "the folder's own files are its owner's"
        convert_folder(pickled, None)
        shown = capsys.readouterr().out
        assert "already there" in shown
        assert shown.rstrip().splitlines()[-1].strip() == f"python train.py +experiment=NAME model.path={pickled}"

    def test_damage_to_what_was_converted_in_place_is_reported_and_mended(
        self, cache: Path, pickled: Path, tmp_path: Path
    ) -> None:
        convert_folder(pickled, None)
        flip_a_bit(pickled / WEIGHTS)
        with pytest.raises(InputError, match="damaged") as caught:
            found(config_of(tmp_path, pickled)).verify()
        assert f"galpaca prepare --weights {pickled}" in caught.value.fix
        convert_folder(pickled, None)
        assert found(config_of(tmp_path, pickled)).verify()

    def test_elsewhere_it_is_a_whole_model(self, pickled: Path, original: Path, tmp_path: Path) -> None:
        convert_folder(pickled, tmp_path / "out")
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            *(path.name for path in original.iterdir()),
            "checksums.json",
        }
        wanted = load_file(original / WEIGHTS)
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in load_file(tmp_path / "out" / WEIGHTS).items())

    def test_a_folder_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such folder"):
            convert_folder(tmp_path / "nowhere", None)

    def test_one_with_safetensors_alone_is_refused(self, model: Path) -> None:
        with pytest.raises(InputError) as caught:
            convert_folder(model, None)
        assert "can be used as is" in caught.value.why

    def test_safetensors_of_someone_else_are_not_overwritten(self, pickled: Path, original: Path) -> None:
        shutil.copy(original / WEIGHTS, pickled)
        before = (pickled / WEIGHTS).stat()
        with pytest.raises(InputError, match="already has safetensors"):
            convert_folder(pickled, None)
        assert (pickled / WEIGHTS).stat() == before

    def test_a_target_that_holds_something_else_is_left_alone(self, pickled: Path, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").write_text("years of work")
        with pytest.raises(InputError, match="contains other files"):
            convert_folder(pickled, tmp_path / "mine")
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]

    def test_a_target_that_was_converted_in_place_keeps_its_files(
        self, pickled: Path, original: Path, tmp_path: Path
    ) -> None:
        """It has checksums of this command, and the only copy of someone's weights."""
        other = Path(shutil.copytree(pickled, tmp_path / "other"))
        convert_folder(other, None)
        with pytest.raises(InputError, match="contains other files"):
            convert_folder(pickled, other)
        assert (other / "pytorch_model.bin").is_file()

    def test_a_target_of_the_same_folder_is_made_anew(self, pickled: Path, tmp_path: Path) -> None:
        for _ in range(2):
            convert_folder(pickled, tmp_path / "out")
            flip_a_bit(tmp_path / "out" / WEIGHTS)
        convert_folder(pickled, tmp_path / "out")
        assert (tmp_path / "out" / WEIGHTS).stat().st_size > 0

    def test_damaged_files_leave_no_trace(self, pickled: Path) -> None:
        os.truncate(pickled / "pytorch_model.bin", 1000)
        before = {path.name for path in pickled.iterdir()}
        with pytest.raises(InputError, match="damaged"):
            convert_folder(pickled, None)
        assert {path.name for path in pickled.iterdir()} == before


def test_the_record_names_the_weights(cache: Path, model: Path, tmp_path: Path) -> None:
    lay_out(cache, "acme/tiny", model)
    config = config_of(tmp_path)
    _, folder = prepared(config)
    facts = json.loads(json.dumps(found(config).facts()))
    assert facts == {
        "path": "acme/tiny",
        "revision": None,
        "commit": COMMIT,
        "folder": str(folder),
        "files": {WEIGHTS: facts["files"][WEIGHTS]},
    }
    assert len(facts["files"][WEIGHTS]["sha256"]) == 64
