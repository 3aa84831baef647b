"""The attention kernel takes our call, in every version of torch that we support.

The call runs nowhere but on a card, so nothing else would see a renamed argument.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention.varlen import varlen_attn

from galpaca.model import attention
from galpaca.model.attention import Boundaries

# Of torch 2.11 (docs.pytorch.org, nn.attention.varlen, as of its branch: pytorch/pytorch#172238 and #172245 are in it,
# ``enable_gqa`` of #179468 and what came with it are not). Not installed here: read, not run.
OF_2_11 = "query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)"
# The installed version's, to see a change of it when the pinned one moves.
OF_2_13 = f"{OF_2_11}, enable_gqa=False, seqused_k=None, block_table=None, num_splits=None"


def signature_of(text: str) -> inspect.Signature:
    namespace: dict[str, Callable[..., Any]] = {}
    exec(f"def kernel({text}): ...", namespace)
    return inspect.signature(namespace["kernel"])


def bare(signature: inspect.Signature) -> list[tuple[str, Any, Any]]:
    return [(one.name, one.kind, one.default) for one in signature.parameters.values()]


def call_of_ours(monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with which the packed attention calls the kernel."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def kernel(*args: Any, **options: Any) -> torch.Tensor:
        calls.append((args, options))
        return args[0]

    monkeypatch.setattr(attention, "varlen_attn", kernel)
    rows = torch.zeros(1, 4, 6, 8)
    boundaries = Boundaries(torch.tensor([0, 2, 6], dtype=torch.int32), (2, 4), 4)
    assert attention._varlen(rows, rows, rows, boundaries, 1.0).shape == (1, 6, 4, 8)
    return calls[0]


@pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="the signature is torch 2.13's")
def test_the_installed_signature_is_as_written_down() -> None:
    assert bare(inspect.signature(varlen_attn)) == bare(signature_of(OF_2_13))


@pytest.mark.parametrize("text", [OF_2_11, OF_2_13], ids=["2.11", "2.13"])
def test_it_takes_our_call(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args, options = call_of_ours(monkeypatch)
    bound = signature_of(text).bind(*args, **options).arguments
    assert bound["window_size"] == (-1, 0), "causal"
    assert bound["scale"] == 1.0
    assert bound["cu_seq_q"] is bound["cu_seq_k"]
    assert bound["max_q"] == bound["max_k"] == 4


@pytest.mark.parametrize("option", ["is_causal", "enable_gqa", "num_splits"])
def test_a_call_that_2_11_does_not_take_is_found(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args, options = call_of_ours(monkeypatch)
    with pytest.raises(TypeError, match=option):
        signature_of(OF_2_11).bind(*args, **options, **{option: None})
