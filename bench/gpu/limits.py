"""What the GPU can do at most, measured in the same run, and how near attention and loss come to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from bench.gpu.workload import MAX_LENGTH, PAD_ID, SHAPES, VOCAB_SIZE
from galpaca.data.collate import collate
from galpaca.data.examples import EncodedExamples
from galpaca.data.plan import pack
from galpaca.data.sizes import Sizes
from galpaca.model.attention import Boundaries, packed_attention

_MATRIX = 8_192
_COPY_BYTES = 4 << 30
_MICRO_BATCH_TOKENS = 8_192


def machine_limits(device: torch.device) -> dict[str, float]:
    """Operations a second of a large bfloat16 matrix product, bytes a second (read and written) of a large copy."""
    a, b = (torch.randn(_MATRIX, _MATRIX, device=device, dtype=torch.bfloat16) for _ in range(2))
    product_seconds = seconds_of(lambda: a @ b)
    source = torch.empty(_COPY_BYTES, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copy_seconds = seconds_of(lambda: target.copy_(source))
    return {
        "matmul_flops": 2 * _MATRIX**3 / product_seconds,
        "copy_bytes_per_second": 2 * _COPY_BYTES / copy_seconds,
    }


def path_figures(shape: str, examples: EncodedExamples, device: torch.device, matmul_flops: float) -> dict[str, Any]:
    """Forward and backward of one layer's attention and of head and loss, on a full micro-batch.

    Returns:
        Seconds, operations a second, and their share of the measured matrix product. Attention counts the
        operations of the causal half only.
    """
    indices = pack(examples.lengths[:128], 1, _MICRO_BATCH_TOKENS)[0][0]
    sizes = Sizes(64, _MICRO_BATCH_TOKENS, len(indices) + 1, MAX_LENGTH)
    micro_batch = collate(examples, indices, PAD_ID, sizes).to(device)
    attention_seconds, attention_flops = _attention(shape, micro_batch, examples.lengths[indices])
    loss_seconds, loss_flops = _loss(shape, micro_batch)
    figures: dict[str, Any] = {"tokens": micro_batch.input_ids.shape[1], "target_rows": len(micro_batch.target_rows)}
    for name, seconds, flops in (
        ("attention", attention_seconds, attention_flops),
        ("head_and_loss", loss_seconds, loss_flops),
    ):
        figures[name] = {
            "seconds": seconds,
            "flops_per_second": flops / seconds,
            "share_of_matmul": flops / seconds / matmul_flops,
        }
    return figures


def _attention(shape: str, micro_batch: Any, lengths: Any) -> tuple[float, float]:
    sizes = SHAPES[shape]
    head_size = sizes.hidden_size // sizes.num_heads
    num_tokens = micro_batch.input_ids.shape[1]
    device = micro_batch.input_ids.device
    options = {"device": device, "dtype": torch.bfloat16, "requires_grad": True}
    qkv = [torch.randn(1, num_tokens, sizes.num_heads, head_size, **options) for _ in range(3)]
    gradient = torch.randn(1, num_tokens, sizes.num_heads, head_size, device=device, dtype=torch.bfloat16)
    boundaries = Boundaries(micro_batch.cu_seqlens, micro_batch.lengths, micro_batch.longest_tokens)

    def run() -> None:
        query, key, value = (tensor.transpose(1, 2) for tensor in qkv)  # as the projections give them
        output, _ = packed_attention(torch.nn.Module(), query, key, value, None, boundaries=boundaries, scaling=1.0)
        torch.autograd.grad(output, qkv, gradient)

    pairs = float((lengths.astype(float) ** 2).sum()) / 2
    # Two products forward and five backward, of 2 operations each.
    return seconds_of(run), 7 * 2 * pairs * sizes.hidden_size


def _loss(shape: str, micro_batch: Any) -> tuple[float, float]:
    hidden_size, device = SHAPES[shape].hidden_size, micro_batch.input_ids.device
    rows = len(micro_batch.target_rows)
    hidden = torch.randn(rows, hidden_size, device=device, dtype=torch.bfloat16, requires_grad=True)
    head = torch.randn(VOCAB_SIZE, hidden_size, device=device, dtype=torch.bfloat16, requires_grad=True)

    def run() -> None:
        loss = cross_entropy(linear(hidden, head).float(), micro_batch.target_ids, reduction="sum")
        torch.autograd.grad(loss, (hidden, head))

    return seconds_of(run), 6.0 * rows * hidden_size * VOCAB_SIZE


def seconds_of(run: Callable[[], Tensor | None], times: int = 10) -> float:
    """Mean seconds on the device, after two calls that do not count."""
    for _ in range(2):
        run()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(times):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1_000 / times
