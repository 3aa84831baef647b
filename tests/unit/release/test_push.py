"""``--push`` against a stand-in for the Hub: private by default, every byte, errors with a way out."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hub_uploads as hub
import pytest
from huggingface_hub import HfApi, ModelCard

import galpaca
from galpaca.cli import main
from galpaca.errors import GalpacaError, Problems
from galpaca.release import push as push_module
from galpaca.release.push import check_push, push

SOURCES = Path(galpaca.__file__).parent


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[hub.Hub]:
    """The stand-in, used by this process, which was started offline."""
    with hub.running() as server:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        monkeypatch.setattr(push_module, "HfApi", lambda: HfApi(endpoint=server.address, token=hub.TOKEN))
        yield server


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run / "model", tmp_path / "model")
    return tmp_path / "model"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_export_and_upload_as_a_user_does(run: Path, tmp_path: Path) -> None:
    with hub.running() as server:
        done = subprocess.run(
            [sys.executable, "-m", "galpaca", "export", str(run), "model", "--push", "ada/galpaca", "--dtype=float16"],
            cwd=tmp_path,
            env={**os.environ, **server.environment()},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert server.repos == {"ada/galpaca": "private"}
    assert server.files == contents(tmp_path / "model")
    assert f"{server.address}/ada/galpaca" in done.stdout
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert 'model_path = "ada/galpaca"' in card
    for private in (str(tmp_path), str(run.parents[1])):
        assert private not in card


def test_only_export_uploads() -> None:
    """Training never does: nothing else knows of the module."""
    knowing = [
        str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.py") if "release.push" in path.read_text("utf-8")
    ]
    assert knowing == ["app/export.py"]


def test_nothing_is_uploaded_without_a_request(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_module, "HfApi", None)
    assert main(["export", str(run), str(tmp_path / "model")]) == 0


def test_everyone_sees_it_only_on_request(hub_server: hub.Hub, folder: Path) -> None:
    push(folder, "ada/open", public=True)
    assert hub_server.repos == {"ada/open": "public"}


def test_a_public_repository_is_not_filled_unawares(hub_server: hub.Hub, folder: Path) -> None:
    hub_server.repos["ada/open"] = "public"
    with pytest.raises(GalpacaError, match="already exists and is public; nothing was uploaded"):
        push(folder, "ada/open", public=False)
    assert hub_server.files == {}
    push(folder, "ada/open", public=True)
    assert hub_server.files == contents(folder)


def test_weights_of_an_earlier_upload_go(hub_server: hub.Hub, folder: Path) -> None:
    """Shards left beside one file: which of the two a reader takes is its own choice."""
    hub_server.repos["ada/galpaca"] = "private"
    old = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    hub_server.files |= {**dict.fromkeys(old, b"old"), "notes.txt": b"kept"}
    push(folder, "ada/galpaca", public=False)
    assert hub_server.files == {**contents(folder), "notes.txt": b"kept"}


@pytest.mark.parametrize(
    ("status", "what", "fix"),
    [
        (401, "the Hub rejected the token", "hf auth login, or HF_TOKEN=TOKEN"),
        (403, "the token may not write to ada/galpaca", "or another OWNER"),
        (500, "the Hub refused the upload", "try again later"),
    ],
)
def test_what_the_hub_says(hub_server: hub.Hub, folder: Path, status: int, what: str, fix: str) -> None:
    hub_server.refuses = status
    with pytest.raises(GalpacaError) as caught:
        push(folder, "ada/galpaca", public=False)
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert f"hf upload ada/galpaca {folder} --private" in caught.value.fix
    assert str(folder) in caught.value.why
    assert "\n" not in caught.value.what


def test_no_network(hub_server: hub.Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_module, "HfApi", lambda: HfApi(endpoint="http://127.0.0.1:9", token=hub.TOKEN))
    with pytest.raises(GalpacaError, match="cannot reach the Hub"):
        push(folder, "ada/galpaca", public=False)


def test_the_hub_takes_the_card(hub_server: hub.Hub, folder: Path) -> None:
    """By ``huggingface_hub``'s own check, which asks the Hub; and a card that it refuses is reported as that."""
    ModelCard.load(folder / "README.md").validate()
    assert hub_server.requested == ["POST /api/validate-yaml"]
    path = folder / "README.md"
    path.write_text(path.read_text(encoding="utf-8").replace("license: ", "license: 7 #"), encoding="utf-8")
    with pytest.raises(GalpacaError, match=r'the Hub refused the upload: Invalid metadata.*"license" must be a string'):
        push(folder, "ada/galpaca", public=False)
    assert hub_server.files == {}


@pytest.mark.parametrize("repo", ["galpaca", "a/b/c", "ada/gal paca", "ada/galpaca.git", ""])
def test_a_name_that_the_hub_would_refuse(repo: str) -> None:
    problems = Problems()
    check_push(problems, repo)
    with pytest.raises(GalpacaError) as caught:
        problems.raise_any()
    assert "must be OWNER/NAME" in str(caught.value)
