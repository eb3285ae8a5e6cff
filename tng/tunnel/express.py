"""Opening a stream at once, through a tunnel that stands and whose peer has been judged.

A tunnel that can do so has `open_nowait` beside `Tunnel.open`.  It either finds a connection whose
verdict is valid at this moment and asks for a stream on it, or does nothing; everything slow, which
is dialling, shaking hands and judging, is left to `Tunnel.open`.  What it hands out in the end is
the same `Opened`, which exists only with a judged peer.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from tng.endpoint import Endpoint
from tng.errors import TngError
from tng.tunnel.base import Opened


class Taker(Protocol):
    """Whoever asked for a stream, told once what became of it, never while asking."""

    def tunnel_opened(self, opened: Opened) -> None:
        """The stream is open, and the taker's.  Must not raise."""
        ...

    def tunnel_failed(self, error: TngError, *, is_final: bool) -> None:
        """There is no stream.

        Args:
            error: why.
            is_final: whether the egress itself has refused; else `Tunnel.open` may well succeed,
                and nothing has been sent yet.
        """
        ...


class Asked(Protocol):
    """A stream that was asked for."""

    def give_up(self) -> None:
        """Leave before the answer; the taker is told nothing any more."""
        ...


@runtime_checkable
class ExpressTunnel(Protocol):
    """A tunnel with a quick way."""

    def open_nowait(self, destination: Endpoint, taker: Taker) -> Asked | None:
        """Ask for a stream to `destination`; None, and nothing done, where that takes longer."""
        ...
