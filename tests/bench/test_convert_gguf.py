"""A GGUF file of a Llama becomes the folder that it was written from, or nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, MadeOnce
from safetensors.torch import load_file
from smollm.real_file import REAL_FILE
from smollm.tiny_gguf import write_gguf

from bench import convert_gguf
from bench.convert_gguf import convert
from bench.smollm.tiny import CHAT_TEMPLATE, write_tiny_llama
from galpaca.errors import InputError


@pytest.fixture(scope="session")
def tiny_llama(made_once: MadeOnce) -> Path:
    return made_once("tiny_llama", write_tiny_llama)


@pytest.fixture
def gguf_file(tiny_llama: Path, tmp_path: Path) -> Path:
    pytest.importorskip("gguf", reason="needs the package gguf: pip install -c constraints.txt -e '.[bench]'")
    file = tmp_path / "tiny.gguf"
    write_gguf(tiny_llama, file)
    return file


def test_weights_tokens_and_template_are_those_of_the_source(gguf_file: Path, tiny_llama: Path) -> None:
    from transformers import AutoTokenizer

    folder = gguf_file.with_name("folder")
    facts = convert(gguf_file, folder)
    source, found = (load_file(one / "model.safetensors") for one in (tiny_llama, folder))
    assert found.keys() == source.keys(), "the tied head is written once"
    assert all(torch.equal(found[name], source[name]) for name in source)
    assert facts.parameters == sum(value.numel() for value in source.values())
    theirs, ours = (AutoTokenizer.from_pretrained(one) for one in (tiny_llama, folder))
    assert ours.chat_template == CHAT_TEMPLATE
    assert ours.special_tokens_map == theirs.special_tokens_map
    text = "<|im_start|>user\nName a noble gas, e.g. Xe 54.\n\n1. In 1945<|im_end|>\n"
    assert ours(text).input_ids == theirs(text).input_ids
    assert sorted(one.name for one in gguf_file.parent.iterdir()) == ["folder", "tiny.gguf"], (
        "nothing is left beside it"
    )


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [("smollm", ["ĊĊ", "1", ".", "ĠIn", "Ġ", "1", "9", "4", "5"]), ("gpt-2", ["Ċ", "Ċ", "1", ".", "ĠIn", "Ġ1945"])],
)
def test_texts_are_split_as_the_file_says(tiny_llama: Path, tmp_path: Path, pre: str, pieces: list[str]) -> None:
    """Transformers reads no ``tokenizer.ggml.pre``: of SmolLM2, two newlines before a number were two tokens."""
    pytest.importorskip("gguf", reason="needs the package gguf: pip install -c constraints.txt -e '.[bench]'")
    from transformers import AutoTokenizer

    file, folder = tmp_path / "tiny.gguf", tmp_path / "folder"
    write_gguf(tiny_llama, file, pre=pre)
    convert(file, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "\n\n1. In 1945"
    assert [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)] == pieces
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize(("pre", "what"), [("llama-bpe", "tokenizer.ggml.pre is 'llama-bpe'"), (None, "has no")])
def test_an_unknown_split_is_refused(tiny_llama: Path, tmp_path: Path, pre: str | None, what: str) -> None:
    pytest.importorskip("gguf", reason="needs the package gguf: pip install -c constraints.txt -e '.[bench]'")
    file, folder = tmp_path / "tiny.gguf", tmp_path / "folder"
    write_gguf(tiny_llama, file, pre=pre)
    with pytest.raises(InputError, match=what) as refused:
        convert(file, folder)
    assert "gpt-2, smollm" in str(refused.value)
    assert not folder.exists()


def test_four_bits_are_dequantized_and_the_readme_says_so(tiny_llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="needs the package gguf: pip install -c constraints.txt -e '.[bench]'")
    file, folder = tmp_path / "q4.gguf", tmp_path / "folder"
    write_gguf(tiny_llama, file, quantized=True)
    facts = convert(file, folder)
    assert "14 of Q4_1" in facts.kinds
    name = "model.layers.0.mlp.up_proj.weight"
    source, found = (load_file(one / "model.safetensors")[name] for one in (tiny_llama, folder))
    assert not torch.equal(found, source)
    blocks = source.view(-1, 32)
    step = (blocks.amax(1) - blocks.amin(1)) / 15
    assert ((found - source).view(-1, 32).abs() <= 0.6 * step[:, None]).all(), "half a step, and the scale's rounding"
    assert "14 of Q4_1" in (folder / "README.md").read_text(encoding="utf-8")


def test_what_is_no_gguf_of_a_llama_is_refused(gguf_file: Path, tiny_llama: Path) -> None:
    folder = gguf_file.with_name("folder")
    other, cut, text = (gguf_file.with_name(name) for name in ("other.gguf", "cut.gguf", "text.gguf"))
    write_gguf(tiny_llama, other, architecture="gpt2")
    cut.write_bytes(gguf_file.read_bytes()[:3000])
    text.write_text("GGU", encoding="utf-8")
    for file, what in (
        (folder, "no such file"),
        (text, "not a GGUF file"),
        (cut, "damaged"),
        (other, "no Llama"),
    ):
        with pytest.raises(InputError, match=what):
            convert(file, folder)
        assert not folder.exists()
    folder.mkdir()
    with pytest.raises(InputError, match="the folder exists"):
        convert(gguf_file, folder)


@pytest.mark.parametrize("library", [True, False], ids=["told by the library", "told by the system"])
def test_a_full_disk_leaves_nothing(gguf_file: Path, monkeypatch: pytest.MonkeyPatch, library: bool) -> None:
    """A folder too large for the disk is refused at the door; one that fills it leaves nothing behind."""
    from safetensors import SafetensorError
    from transformers import LlamaForCausalLM

    def full(self: object, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"some")
        if library:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", full)
    with pytest.raises(InputError, match="the disk is full"):
        convert(gguf_file, gguf_file.with_name("folder"))
    assert [one.name for one in gguf_file.parent.iterdir()] == ["tiny.gguf"]
    monkeypatch.setattr(convert_gguf, "_OTHER_FILES_BYTES", 2**60)
    with pytest.raises(InputError, match="MiB are needed"):
        convert(gguf_file, gguf_file.with_name("folder"))


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    script = str(REPOSITORY / "bench" / "convert_gguf.py")
    missing = str(tmp_path / "missing.gguf")
    done = subprocess.run([sys.executable, script, missing, "folder"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "there is no such file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(REAL_FILE is None, reason="needs the real file: GALPACA_SMOLLM=FILE.gguf, or make smollm")
def test_the_real_file(tmp_path: Path) -> None:
    """SmolLM2 answers; the arithmetic of rotary positions and of 4 bits is that of its authors."""
    pytest.importorskip("gguf", reason="needs the package gguf: pip install -c constraints.txt -e '.[bench]'")
    from galpaca.data.records import Record
    from galpaca.inference.answer import answer
    from galpaca.inference.any_model import load_any
    from galpaca.inference.settings import Settings

    assert REAL_FILE is not None
    facts = convert(REAL_FILE, tmp_path / "model")
    assert facts.parameters == 134_515_008
    assert facts.license == "apache-2.0"
    loaded = load_any(str(tmp_path / "model"))
    tokens = loaded.tokenizer.hf.tokenize("\n\n1. In 1945")  # type: ignore[attr-defined]
    assert tokens == ["ĊĊ", "1", ".", "ĠIn", "Ġ", "1", "9", "4", "5"], "as of its authors' tokenizer.json"
    [found] = answer(loaded, [Record.of("What is the capital of France?")], Settings(max_new_tokens=16))
    assert "Paris" in found.text
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 4 * facts.parameters + 2**20
