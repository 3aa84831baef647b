"""How a process gets memory from its system."""

import ctypes
import os

import torch

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1

_GPU_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def prepare_memory(accelerator: str) -> None:
    """Sets a GPU's allocator up for micro-batches of ever other sizes, before it is first used.

    What the user has set stays.
    """
    if accelerator == "gpu" and not any(name in os.environ for name in _GPU_SETTINGS):
        # Blocks that grow: a micro-batch a little larger than all before it finds room instead of a new block beside
        # the old ones.
        os.environ[_GPU_SETTINGS[0]] = "expandable_segments:True"


def give_back_pinned_memory() -> None:
    """Returns host memory that GPUs copied from to the system; torch would keep what is freed for its next use."""
    release = getattr(torch.accelerator, "empty_host_cache", None)  # not in every version
    if release is not None and torch.cuda.is_initialized():
        release()


def keep_freed_memory() -> None:
    """Lets glibc keep what a micro-batch frees for the next one, as torch's allocator does on a GPU.

    To be called when the model is loaded: sharding takes whole layers for a moment, which would be kept as well.
    By default large blocks go back to the kernel and come again page by page: 5 % of a step (bench/LOG.md). Other C
    libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
