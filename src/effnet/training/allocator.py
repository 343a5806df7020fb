"""The C library keeps the memory of one training step for the next one."""

from __future__ import annotations

import ctypes
import platform

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h.


def keep_memory(device: torch.device) -> bool:
    """Let the C library keep freed memory, where a processor trains and the library is glibc.

    By itself it gives the memory of large activations back to the system and fetches it again, page by page:
    5 to 12 % of a step's processor time, see docs/log.md. The process stays as large as its largest step.

    Args:
        device: On which networks are trained.

    Returns:
        Whether it was done.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    done = library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    return bool(done)
