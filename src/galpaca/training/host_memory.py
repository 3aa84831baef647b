"""Memory of a process that trains on a CPU."""

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Lets glibc keep what a micro-batch frees for the next one, as torch's allocator does on a GPU.

    By default large blocks go back to the kernel and come again page by page: 5 % of a step (bench/LOG.md). Other C
    libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
