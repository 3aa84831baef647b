"""What a GPU needs to compute the same bits every time; to be set before it is first used."""

import os

import torch

from galpaca.errors import InputError

# cuBLAS reads it once, before its first product; with another value torch refuses to compute one.
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_DETERMINISTIC = (":4096:8", ":16:8")
# What torch says of an operation that has no such way.
_NO_SUCH_WAY = " does not have a deterministic implementation"


def set_determinism(accelerator: str, deterministic: bool) -> None:
    """Has torch add in the same order every time, or as is fastest.

    FlashAttention's backward adds with atomics otherwise, and so does that of indexing. An operation that has no such
    way raises: where torch may only warn, attention's backward stays as it is. A CPU needs none of it.

    Raises:
        InputError: the environment has cuBLAS compute in any order.
    """
    if accelerator != "gpu":
        return
    torch.use_deterministic_algorithms(deterministic)
    # It would overwrite all memory that is taken; nothing here reads what was not written before.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if not deterministic:
        return
    workspace = os.environ.setdefault(_WORKSPACE, _DETERMINISTIC[0])
    if workspace not in _DETERMINISTIC:
        raise InputError(
            f"{_WORKSPACE}={workspace} lets cuBLAS add in any order",
            where="compute.deterministic",
            fix=f"unset {_WORKSPACE}, or compute.deterministic=false",
        )


def undeterministic_operation(error: BaseException) -> str:
    """The operation that torch has refused for having no such way; empty if that was not the reason."""
    name, mark, _ = str(error).partition(_NO_SUCH_WAY)
    return name.split()[-1] if mark and isinstance(error, RuntimeError) and name.split() else ""
