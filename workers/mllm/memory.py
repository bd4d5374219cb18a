"""Keep the worker's memory flat under many requests of a megabyte each.

glibc raises the size from which it maps memory apart as such blocks are freed, up to 32 MiB, and then keeps buffers of
many threads in arenas that fragment (mallopt(3), M_MMAP_THRESHOLD and M_ARENA_MAX).
"""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MMAP_THRESHOLD_BYTES = 128 * 1024
"""glibc's own start value; setting it keeps it from growing."""

_ARENAS = 2


def steady_allocator() -> bool:
    """Fix both for this process; False where the C library has no `mallopt` or refuses."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)) and bool(mallopt(_M_ARENA_MAX, _ARENAS))
