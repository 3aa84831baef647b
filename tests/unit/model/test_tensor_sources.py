"""Weights read range by range: from files of any age and layout, and made of a seed."""

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM

from galpaca.errors import InputError
from galpaca.model.build import build_model, open_weights, parameter_shapes
from galpaca.model.families.opt import OPT
from galpaca.model.folder_tensors import INDEX_FILE, SINGLE_FILE
from galpaca.model.random_tensors import _BLOCK_VALUES, RandomTensors
from galpaca.model.spec import ModelSpec
from galpaca.model.tensors import TensorSource

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "word_embed_proj_dim": 16,
    "ffn_dim": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
    "pad_token_id": 1,
}
EMBEDDING = "model.decoder.embed_tokens.weight"
HEAD = "lm_head.weight"


def config(**changes: object) -> OPTConfig:
    return OPTConfig(**{**SIZES, **changes})


def weights(model_config: OPTConfig, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Of a model with random weights, a tied head left out."""
    torch.manual_seed(0)
    model = OPTForCausalLM(model_config)
    model.to(dtype)  # type: ignore[arg-type]  # its decorator lost `self`
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def opened(folder: Path, model_config: OPTConfig) -> TensorSource:
    """As a run does it, with all its checks."""
    shapes = parameter_shapes(build_model(model_config, OPT))
    return open_weights(ModelSpec(path=str(folder)), OPT, model_config, shapes, seed=0)


def whole(source: TensorSource, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
    out = torch.empty(math.prod(source.shapes[name]), dtype=dtype)
    source.read(name, 0, out)
    return out


def assert_holds(source: TensorSource, wanted: dict[str, Tensor]) -> None:
    assert source.shapes == {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    for name, tensor in wanted.items():
        assert torch.equal(whole(source, name, tensor.dtype), tensor.view(-1)), name


def folder_source(path: Path) -> TensorSource:
    save_file(weights(config()), path / SINGLE_FILE)
    return opened(path, config())


def random_source(_: Path) -> TensorSource:
    """With a tensor of more than one block."""
    shapes = {"model.decoder.layers.0.fc1.weight": (3, _BLOCK_VALUES // 2), EMBEDDING: (61, 16), "x.bias": (5,)}
    return RandomTensors(shapes, OPT, seed=1, std=0.02, pad_id=1)


@pytest.mark.parametrize("make", [folder_source, random_source])
def test_any_range_of_any_tensor_equals_the_whole_read(make: Callable[[Path], TensorSource], tmp_path: Path) -> None:
    """Shards of FSDP begin and end anywhere, in the middle of a row too."""
    source = make(tmp_path)
    for name, shape in source.shapes.items():
        size, expected = math.prod(shape), whole(source, name)
        edges = sorted(
            {0, 1, size // 3, size // 2 + 1, min(size, _BLOCK_VALUES - 1), min(size, _BLOCK_VALUES + 1), size}
        )
        for start, stop in [*pairwise(edges), (size // 3, size), (1, size - 1), (size, size)]:
            out = torch.full((max(stop - start, 0),), torch.nan)
            source.read(name, start, out)
            assert torch.equal(out, expected[start : start + len(out)]), f"{name} from {start} to {stop}"


class TestRandom:
    def source(self, seed: int = 1, **changes: object) -> RandomTensors:
        shapes = parameter_shapes(build_model(config(hidden_size=64, word_embed_proj_dim=64, vocab_size=2000), OPT))
        given: dict[str, Any] = {"seed": seed, "std": 0.02, "pad_id": 1, **changes}
        return RandomTensors(shapes, OPT, **given)

    def test_matrices_are_normal_with_the_given_deviation(self) -> None:
        """A standard error is 0.02 / sqrt(126,000) = 6e-5 for the mean, 4e-5 for the deviation."""
        values = whole(self.source(), EMBEDDING).view(2000, 64)[2:]
        assert abs(values.mean().item()) < 5 * 6e-5
        assert abs(values.std().item() - 0.02) < 5 * 4e-5
        beyond_two = (values.abs() > 0.04).float().mean().item()
        assert beyond_two == pytest.approx(0.0455, abs=0.003)

    def test_biases_are_zero_norms_are_one_and_so_is_nothing_else(self) -> None:
        source = self.source()
        for name in source.shapes:
            values = whole(source, name)
            if name.endswith(".bias"):
                assert not values.any()
            elif "layer_norm" in name:
                assert (values == 1).all()
            else:
                assert values.unique().numel() > 100

    def test_the_padding_token_is_a_row_of_zeros_and_its_neighbours_are_not(self) -> None:
        rows = whole(self.source(), EMBEDDING).view(2000, 64)
        assert [bool(row.any()) for row in rows[:3]] == [True, False, True]

    def test_without_a_padding_token_no_row_is_zero(self) -> None:
        assert whole(self.source(pad_id=None), EMBEDDING).view(2000, 64).any(dim=1).all()

    def test_the_same_seed_gives_the_same_numbers_and_another_gives_others(self) -> None:
        fc1 = "model.decoder.layers.0.fc1.weight"
        assert torch.equal(whole(self.source(seed=3), fc1), whole(self.source(seed=3), fc1))
        assert not torch.equal(whole(self.source(seed=3), fc1), whole(self.source(seed=4), fc1))

    def test_tensors_of_one_shape_and_blocks_of_one_tensor_differ(self) -> None:
        source = self.source()
        one, other = (whole(source, f"model.decoder.layers.{layer}.fc1.weight") for layer in (0, 1))
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1].item()) < 0.1
        big = RandomTensors({"w": (2, _BLOCK_VALUES)}, OPT, seed=1, std=1.0, pad_id=None)
        rows = whole(big, "w").view(2, -1)
        assert abs(torch.corrcoef(rows)[0, 1].item()) < 0.01

    def test_a_dtype_of_16_bits_gets_the_same_numbers_rounded(self) -> None:
        source = self.source()
        assert torch.equal(whole(source, EMBEDDING, torch.bfloat16), whole(source, EMBEDDING).bfloat16())


class TestLayouts:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_files_of_each_dtype_are_read_and_cast_exactly(self, dtype: torch.dtype, tmp_path: Path) -> None:
        wanted = weights(config(), dtype)
        save_file(wanted, tmp_path / SINGLE_FILE)
        source = opened(tmp_path, config())
        assert_holds(source, wanted)
        assert torch.equal(whole(source, EMBEDDING), wanted[EMBEDDING].float().view(-1))

    def test_names_of_the_bare_decoder_and_the_first_frameworks_leftover(self, tmp_path: Path) -> None:
        wanted = weights(config(), torch.float16)
        bare = {name.removeprefix("model."): tensor for name, tensor in wanted.items()}
        save_file({**bare, "decoder.version": torch.tensor([3.0])}, tmp_path / SINGLE_FILE)
        assert_holds(opened(tmp_path, config()), wanted)

    def test_a_copy_of_the_tied_head_is_not_counted(self, tmp_path: Path) -> None:
        wanted = weights(config())
        save_file({**wanted, HEAD: wanted[EMBEDDING].clone()}, tmp_path / SINGLE_FILE)
        assert_holds(opened(tmp_path, config()), wanted)

    def test_a_tied_head_that_differs_is_refused(self, tmp_path: Path) -> None:
        wanted = weights(config())
        save_file({**wanted, HEAD: wanted[EMBEDDING] + 1e-3}, tmp_path / SINGLE_FILE)
        with pytest.raises(InputError, match="differs from the embedding"):
            opened(tmp_path, config())

    def test_a_head_of_its_own_is_kept(self, tmp_path: Path) -> None:
        untied = config(tie_word_embeddings=False)
        wanted = weights(untied)
        assert HEAD in wanted
        save_file(wanted, tmp_path / SINGLE_FILE)
        assert_holds(opened(tmp_path, untied), wanted)

    @pytest.mark.parametrize(
        ("changes", "absent"),
        [
            ({"enable_bias": False}, ".bias"),
            ({"layer_norm_elementwise_affine": False}, "layer_norm"),
            ({"enable_bias": False, "layer_norm_elementwise_affine": False}, ".bias"),
        ],
    )
    def test_absent_biases_and_norms(self, changes: dict[str, bool], absent: str, tmp_path: Path) -> None:
        requested = config(**changes)
        wanted = weights(requested)
        missing = [name for name in weights(config()) if name not in wanted]
        assert missing
        assert all(absent in name or "layer_norm" in name for name in missing)
        save_file(wanted, tmp_path / SINGLE_FILE)
        assert_holds(opened(tmp_path, requested), wanted)
        with pytest.raises(InputError, match="missing weight"):
            opened(tmp_path, config())

    def test_shards_of_an_index(self, tmp_path: Path) -> None:
        wanted = weights(config())
        places = {name: f"model-{1 + number % 3:05d}-of-00003.safetensors" for number, name in enumerate(wanted)}
        for shard in set(places.values()):
            save_file({name: wanted[name] for name in wanted if places[name] == shard}, tmp_path / shard)
        (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": places}))
        assert_holds(opened(tmp_path, config()), wanted)

    def test_a_weight_that_is_there_twice_is_refused(self, tmp_path: Path) -> None:
        """The later file's won, without a word."""
        wanted = weights(config())
        save_file({**wanted, "decoder.embed_tokens.weight": wanted[EMBEDDING] + 1}, tmp_path / SINGLE_FILE)
        with pytest.raises(InputError, match=r"duplicate weight model.decoder.embed_tokens.weight"):
            opened(tmp_path, config())

    def test_missing_unexpected_and_misshapen_weights_are_all_reported(self, tmp_path: Path) -> None:
        wanted = weights(config())
        del wanted["model.decoder.layers.0.fc1.bias"]
        wanted["model.decoder.layers.7.fc1.bias"] = torch.zeros(3)
        wanted["model.decoder.layers.1.fc2.weight"] = torch.zeros(4, 4)
        save_file(wanted, tmp_path / SINGLE_FILE)
        with pytest.raises(InputError) as caught:
            opened(tmp_path, config())
        text = str(caught.value)
        assert "missing weight: model.decoder.layers.0.fc1.bias" in text
        assert "unexpected weight: model.decoder.layers.7.fc1.bias" in text
        assert "model.decoder.layers.1.fc2.weight is 4 x 4, expected 16 x 24" in text


@pytest.mark.parametrize(
    ("layers", "heads", "hidden", "parameters"),
    [
        (12, 12, 768, 125_030_400),
        (24, 32, 2048, 1_315_201_024),
        (32, 32, 4096, 6_657_359_872),
        (48, 56, 7168, 29_972_590_592),
        (96, 80, 10240, 121_341_747_200),
    ],
    ids=["125m", "1.3b", "6.7b", "30b", "120b"],
)
def test_the_five_sizes_of_galactica_have_their_numbers_of_parameters(
    layers: int, heads: int, hidden: int, parameters: int
) -> None:
    requested = OPTConfig(
        vocab_size=50_000,
        hidden_size=hidden,
        word_embed_proj_dim=hidden,
        ffn_dim=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=2048,
    )
    assert sum(math.prod(shape) for shape in parameter_shapes(build_model(requested, OPT)).values()) == parameters
