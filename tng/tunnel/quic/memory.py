"""Memory back to the system once many sessions have ended.

In: nothing.  Out: pages.  A session is thousands of small pieces, and the C library keeps freed
pieces for itself: without this a gateway would hold what its busiest hour has taken.
Source: malloc_trim(3), of the GNU C library; other systems have nothing like it, or need nothing.
"""

from __future__ import annotations

import ctypes


def release_memory() -> None:
    """Give freed pages back; takes a few milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
