"""Memory of the process between gradient steps."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# From malloc.h. The first is at its largest allowed value: tensors above 32 MiB are rare on a CPU.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = (-3, 32 * 2**20), (-1, 2**31 - 1)


def keep_freed_memory() -> bool:
    """Keep freed memory for the next step, and return whether glibc's malloc does. For the whole process, for good.

    A step frees all it took. By default glibc hands that back to the system, and the next step pays a page fault for
    every 4 KiB of it: a tenth of a step with PITC and PISC. The peak of memory stays what it is. Elsewhere than on
    Linux nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and all(mallopt(*setting) == 1 for setting in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
