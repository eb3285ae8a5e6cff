"""The door to `dcap_qvl`: every way in which that library can fail, as one exception.

It reports errors as several built-in exceptions, and a panic of its Rust code as a
BaseException without an importable name.  Calls go through `guarded`, so that a quote which
it cannot digest is refused like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_PANIC: Final = "PanicException"
_MAX_TEXT: Final = 200  # characters; the text quotes what a peer sent
_PREFIX: Final = "Verification failed: "


class LibraryError(Exception):
    """The library did not accept what it was given.  Its text is the library's, bounded."""


def guarded(call: Callable[[], T]) -> T:
    """What `call` returns.

    Raises:
        LibraryError: it raised an error, or panicked.
    """
    try:
        return call()
    except (ValueError, RuntimeError, TypeError, OverflowError) as exc:
        text = " ".join(str(exc).removeprefix(_PREFIX).split())
        raise LibraryError(text[:_MAX_TEXT]) from exc
    except BaseException as exc:
        if type(exc).__name__ != _PANIC:
            raise
        raise LibraryError("the verification library panicked") from exc
