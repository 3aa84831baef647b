"""PyTorch's pickle format becomes safetensors: every bit kept, nothing in it run."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from galpaca.errors import InputError
from galpaca.files.checksums import file_facts
from galpaca.model import pickled_weights
from galpaca.model.pickled_weights import convert, pickled_files
from galpaca.model.tensor_file import write_tensor_file

EMBEDDING, HEAD = "model.decoder.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "bin"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(7, 4, generator=generator).half()
    return {
        EMBEDDING: embedding,
        "model.decoder.layers.0.fc1.weight": torch.randn(5, 4, generator=generator).bfloat16(),
        "model.decoder.layers.0.fc1.bias": torch.tensor([1.0, float("nan"), -0.0, float("inf"), 5.0]),
        "decoder.version": torch.tensor(3.0),
        "a.column": torch.arange(6.0).view(2, 3).t(),
        "nothing": torch.empty(0, 4),
    }


def write_shards(folder: Path, *shards: dict[str, Tensor]) -> list[Path]:
    paths = [folder / f"pytorch_model-{n:05d}-of-{len(shards):05d}.bin" for n in range(1, len(shards) + 1)]
    places = {}
    for path, shard in zip(paths, shards, strict=True):
        torch.save(shard, path)
        places.update(dict.fromkeys(shard, path.name))
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    return paths


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        bits = (value.contiguous().view(-1).view(torch.uint8) for value in (found[name], tensor))
        assert torch.equal(*bits), name


def test_a_single_file_keeps_names_dtypes_and_every_bit(folder: Path, out: Path) -> None:
    torch.save(tensors(), folder / "pytorch_model.bin")
    facts = convert(folder, out)
    assert_same(load_file(out / "model.safetensors"), tensors())
    assert [path.name for path in out.iterdir()] == ["model.safetensors"]
    assert facts == {"model.safetensors": file_facts(out / "model.safetensors")}
    with safe_open(out / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_shards_stay_shards_with_an_index(folder: Path, out: Path) -> None:
    items = list(tensors().items())
    write_shards(folder, dict(items[:2]), dict(items[2:]))
    done: list[int] = []
    convert(folder, out, done.append)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert sorted(path.name for path in out.glob("*.safetensors")) == names
    assert_same(load_file(out / names[0]) | load_file(out / names[1]), tensors())
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: names[number >= 2] for number, name in enumerate(tensors())}
    assert index["metadata"]["total_size"] == sum(value.numel() * value.itemsize for value in tensors().values())
    assert done == [1, 2]


def test_a_transformers_model_reads_the_same_from_both(folder: Path, out: Path) -> None:
    """An independent reader: the library's own."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=50, hidden_size=8, word_embed_proj_dim=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=2
    )
    model = OPTForCausalLM(config).half()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    convert(folder, out)
    shutil.copy(folder / "config.json", out)
    for path in (folder, out):
        again = OPTForCausalLM.from_pretrained(path)
        assert_same(again.state_dict(), model.state_dict())


class TestTheTiedHead:
    def saved(self, folder: Path, out: Path, head: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        embedding = tensors()[EMBEDDING]
        torch.save({EMBEDDING: embedding, HEAD: head(embedding)}, folder / "pytorch_model.bin")
        config = {"model_type": "opt", **json.loads((folder / "config.json").read_text(encoding="utf-8"))}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        convert(folder, out)
        return load_file(out / "model.safetensors")

    def test_the_same_memory_is_written_once(self, folder: Path, out: Path) -> None:
        assert self.saved(folder, out, lambda embedding: embedding).keys() == {EMBEDDING}

    def test_a_copy_is_kept_for_the_reader_to_compare(self, folder: Path, out: Path) -> None:
        assert self.saved(folder, out, lambda embedding: embedding.clone()).keys() == {EMBEDDING, HEAD}

    def test_a_part_of_the_same_memory_is_another_tensor(self, folder: Path, out: Path) -> None:
        assert self.saved(folder, out, lambda embedding: embedding[:3]).keys() == {EMBEDDING, HEAD}

    def test_a_model_that_does_not_tie_keeps_its_head(self, folder: Path, out: Path) -> None:
        (folder / "config.json").write_text('{"tie_word_embeddings": false}')
        assert self.saved(folder, out, lambda embedding: embedding).keys() == {EMBEDDING, HEAD}


class Runs:
    """Makes a folder when it is unpickled, if anybody lets it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


class TestRefused:
    def refusal(self, folder: Path, out: Path) -> str:
        with pytest.raises(InputError) as caught:
            convert(folder, out)
        assert list(out.iterdir()) == [], "nothing is written before all has been read"
        return str(caught.value)

    @pytest.mark.parametrize("legacy", [False, True], ids=["archive", "legacy"])
    def test_a_program_is_refused_and_not_run(self, legacy: bool, folder: Path, out: Path, tmp_path: Path) -> None:
        proof = tmp_path / "it_ran"
        content = {**tensors(), "x": Runs(proof)}
        torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
        message = self.refusal(folder, out)
        assert not proof.exists()
        assert str(folder / "pytorch_model.bin") in message
        assert legacy or ("wants to run" in message and "mkdir" in message)
        torch.load(folder / "pytorch_model.bin", weights_only=False)
        assert proof.exists(), "the file was harmless, and this test proved nothing"

    def test_a_program_in_the_last_shard_is_found_before_the_first_is_written(
        self, folder: Path, out: Path, tmp_path: Path
    ) -> None:
        write_shards(folder, tensors(), {"x": Runs(tmp_path / "it_ran")})  # type: ignore[dict-item]
        assert "wants to run" in self.refusal(folder, out)
        assert not (tmp_path / "it_ran").exists()

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
    def test_a_truncated_file(self, share: float, folder: Path, out: Path) -> None:
        path = folder / "pytorch_model.bin"
        torch.save(tensors(), path)
        os.truncate(path, int(path.stat().st_size * share))
        message = self.refusal(folder, out)
        assert str(path) in message
        assert "damaged" in message or "not a weights file" in message
        assert "again" in message

    def test_a_flipped_bit(self, folder: Path, out: Path) -> None:
        """Mapped into memory, the archive's own checksums are not looked at."""
        path = folder / "pytorch_model.bin"
        torch.save({"w": torch.full((1000,), 1.5)}, path)
        content = bytearray(path.read_bytes())
        content[content.find(b"\x00\x00\xc0\x3f" * 8) + 16] ^= 1
        path.write_bytes(content)
        assert "checksum" in self.refusal(folder, out)

    def test_a_pointer_of_git_lfs(self, folder: Path, out: Path) -> None:
        (folder / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
        assert "Git LFS pointer" in self.refusal(folder, out)

    @pytest.mark.parametrize(
        ("content", "shown"),
        [
            ([torch.zeros(2)], "list"),
            ({"model": {"w": torch.zeros(2)}}, "'model' is of the type dict"),
            ({"epoch": 3}, "'epoch' is of the type int"),
            ({"w": torch.zeros(2, dtype=torch.int8)}, "w is torch.int8"),
            ({"w": torch.eye(2).to_sparse()}, "torch.sparse_coo"),
        ],
    )
    def test_anything_but_named_weights(self, content: object, shown: str, folder: Path, out: Path) -> None:
        torch.save(content, folder / "pytorch_model.bin")
        assert shown in self.refusal(folder, out)

    def test_all_damaged_shards_are_reported_at_once(self, folder: Path, out: Path) -> None:
        paths = write_shards(folder, {"a": torch.zeros(99)}, {"b": torch.zeros(99)}, {"c": torch.zeros(99)})
        for path in paths[1:]:
            os.truncate(path, path.stat().st_size - 40)
        message = self.refusal(folder, out)
        assert paths[0].name not in message
        assert all(path.name in message for path in paths[1:])

    def test_a_weight_in_two_files(self, folder: Path, out: Path) -> None:
        write_shards(folder, {"a": torch.zeros(2)}, {"a": torch.ones(2)})
        (folder / "pytorch_model.bin.index.json").unlink()
        assert "a is in pytorch_model-00001-of-00002.bin too" in self.refusal(folder, out)

    def test_what_reads_back_differently(self, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that keeps something else than it was given."""

        def write_and_flip(path: Path, *arguments: Any) -> object:
            written = write_tensor_file(path, *arguments)
            content = bytearray(path.read_bytes())
            content[-3] ^= 1
            path.write_bytes(content)
            return written

        monkeypatch.setattr(pickled_weights, "write_tensor_file", write_and_flip)
        torch.save({"a": torch.zeros(9), "b": torch.zeros(9)}, folder / "pytorch_model.bin")
        with pytest.raises(InputError, match=r"b differs from pytorch_model\.bin"):
            convert(folder, out)


class TestTheIndex:
    def test_a_missing_shard_is_reported_by_its_name(self, folder: Path) -> None:
        first, _ = write_shards(folder, {"a": torch.zeros(1)}, {"b": torch.zeros(1)})
        first.unlink()
        with pytest.raises(InputError, match=first.name):
            pickled_files(folder)

    @pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', "{}"])
    def test_one_that_cannot_be_read(self, text: str, folder: Path) -> None:
        (folder / "pytorch_model.bin.index.json").write_text(text)
        with pytest.raises(InputError, match="weight_map"):
            pickled_files(folder)

    def test_a_file_outside_of_the_folder_is_refused(self, folder: Path) -> None:
        torch.save({}, folder.parent / "other.bin")
        (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../other.bin"}}')
        with pytest.raises(InputError, match="outside the folder"):
            pickled_files(folder)

    def test_a_folder_without_any_has_none(self, folder: Path) -> None:
        assert pickled_files(folder) == []
