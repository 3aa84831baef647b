"""Grouped key-value heads in every path of attention: the same as with each head's own copy."""

import pytest
import torch

from galpaca.model import attention
from galpaca.model.attention import Boundaries, packed_attention

LENGTHS = (3, 1, 9, 600)


@pytest.mark.parametrize("path", ["dense", "kernel", "kernel without groups"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_group_is_as_if_each_head_had_its_own(path: str, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU before FlashAttention, torch would keep all scores of an example where heads are grouped."""
    if path != "dense":
        monkeypatch.setattr(attention, "_can_use_dense", lambda *_: False)
    if path == "kernel without groups":
        monkeypatch.setattr(attention, "_takes_groups", lambda query: False)
    lengths = LENGTHS[:3] if path == "dense" else LENGTHS
    starts = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    boundaries = Boundaries(starts, lengths, max(lengths))
    generator = torch.Generator().manual_seed(1)
    sizes = [(1, heads, sum(lengths), 8) for heads in (4, groups, groups)]
    query, key, value = (torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
    found: list[torch.Tensor] = []
    expected: list[torch.Tensor] = []
    for into, repeated in ((found, False), (expected, True)):
        leaves = [one.clone().requires_grad_() for one in (query, key, value)]
        q, *shared = leaves
        k, v = (one.repeat_interleave(4 // groups, dim=1) for one in shared) if repeated else shared
        output, _ = packed_attention(torch.nn.Identity(), q, k, v, None, boundaries=boundaries, scaling=0.3)
        output.square().sum().backward()
        into += [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]
    assert len(found) == 4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
