"""Our writer of safetensors against the library's reader."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from galpaca.model.tensor_file import TensorEntry, write_tensor_file

TENSORS = {
    "matrix": torch.randn(3, 5),
    "half": torch.randn(7).half(),
    "brain": torch.randn(2, 2, 2).bfloat16(),
    "nothing": torch.empty(0, 4),
    "wide": torch.randn(1, dtype=torch.float64),
    "naïve/0 名": torch.ones(1),
}
ENTRIES = [TensorEntry(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()]


def pieces(size: int) -> list[torch.Tensor]:
    """All values as bytes, cut without regard to tensors."""
    content = torch.cat([tensor.contiguous().view(-1).view(torch.uint8) for tensor in TENSORS.values()])
    return list(content.split(size))


@pytest.mark.parametrize("size", [1, 3, 64, 10_000])
def test_the_library_reads_what_was_written(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file.safetensors"
    written = write_tensor_file(path, ENTRIES, pieces(size), {"format": "pt"})
    read = load_file(path)
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert written.bytes == path.stat().st_size
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        write_tensor_file(path, ENTRIES, pieces(64))
    assert path.read_text() == "mine"


@pytest.mark.parametrize("wrong", [pieces(64)[:-1], [*pieces(64), torch.ones(1)]], ids=["fewer", "more"])
def test_values_that_do_not_fit_the_header_are_refused(tmp_path: Path, wrong: list[torch.Tensor]) -> None:
    """The file could be read, and the last tensor would be another one's."""
    with pytest.raises(ValueError, match="header says"):
        write_tensor_file(tmp_path / "file.safetensors", ENTRIES, wrong)
