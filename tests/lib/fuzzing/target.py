"""One parser under test, and the judgement of what it makes of some octets.

In: octets.  Out: whether the parser read or refused them, and what that cost.  Anything else, an
exception that is no `TngError`, too much processor time, or a reading that must not be, is a
`Finding`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tng.errors import TngError

MAX_CPU_S: Final = 1.0
"""Seconds of processor time for one message; the slowest good one takes a hundredth of that."""


class Finding(Exception):  # noqa: N818 - it is what fuzzing is for
    """A message that a parser did not deal with as it must."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parser.

    Attributes:
        name: short and constant.
        good: messages that it accepts.
        read: the parser; returns anything, or raises a `TngError`.  An `AssertionError` of its own
            says that what was read must not be.
    """

    name: str
    good: tuple[bytes, ...]
    read: Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one message.

    Attributes:
        is_refused: whether it was refused.
        cpu_s: seconds of processor time.
    """

    is_refused: bool
    cpu_s: float


def attempt(target: Target, message: bytes) -> Outcome:
    """Let a parser read a message.

    Raises:
        Finding: it did what no parser may do.
    """
    gc.disable()  # or the garbage of a long run would be counted
    began = time.thread_time()
    try:
        target.read(message)
        is_refused = False
    except TngError:
        is_refused = True
    except BaseException as exc:  # native code may raise what is no Exception
        if isinstance(exc, KeyboardInterrupt):
            raise
        raise Finding(f"{target.name}: {type(exc).__name__}: {exc!s:.300}") from exc
    finally:
        cpu_s = time.thread_time() - began
        gc.enable()
    if cpu_s > MAX_CPU_S:
        raise Finding(f"{target.name}: {len(message)} octets took {cpu_s:.1f} s")
    return Outcome(is_refused, cpu_s)


def read_alike(read: Callable[[list[bytes]], object], message: bytes) -> object:
    """What a parser of a stream reads, once it is certain that cutting changes nothing.

    Args:
        read: the parser; takes the pieces of one message.
        message: fed whole, in two pieces, and in many.
    """
    half = len(message) // 2
    step = max(1, len(message) // 40)
    many = [message[at : at + step] for at in range(0, len(message), step)]
    outcomes = [
        _outcome(read, pieces) for pieces in ([message], [message[:half], message[half:]], many)
    ]
    if any(outcome != outcomes[0] for outcome in outcomes[1:]):
        shown = [repr(outcome)[:200] for outcome in outcomes]
        raise AssertionError(f"whole, halves and pieces were read differently: {shown}")
    if isinstance(outcomes[0], TngError):
        raise outcomes[0]
    return outcomes[0]


class _RefusedError(TngError):
    """A refusal, equal to every other one: where it is noticed may depend on the pieces."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _RefusedError)

    __hash__ = TngError.__hash__


def _outcome(read: Callable[[list[bytes]], object], pieces: list[bytes]) -> object:
    try:
        return read([piece for piece in pieces if piece])
    except TngError as exc:
        return _RefusedError(str(exc))
