"""The access log: one line per connection, at the moment its fate is known.

In: an `AccessRecord`.  Out: one record of the logger `tng.access`, INFO when both ends were
connected and ERROR otherwise.  Source: the three line shapes of TNG 2.12, kept to the letter
(the dash is U+2014), so that whatever reads those lines reads ours.
Invariant: no name, path, header or payload of the traffic is ever part of a line.

There is one line per connection, so its cost counts: the thread that serves connections only
notes the record and the time, and the thread that writes the log makes the line.

    record = AccessRecord(client, listener, "mapping", service, ours, encrypted=True)
    log_access(record)
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from tng.endpoint import Endpoint

_DASH: Final = "\N{EM DASH}"

log: Final = logging.getLogger("tng.access")


class AccessRecord(NamedTuple):
    """What became of one accepted connection.

    Attributes:
        downstream_remote: the client.
        downstream_local: the address that the client connected to.
        mode: how the connection came in: "mapping", "http_proxy", ...
        upstream_remote: where it was to go; None when it failed before that was known.
        upstream_local: our address on the way there; None when that was never connected.
        encrypted: the way between the gateways was a TNG tunnel.
        attested: the peer of this process was judged and accepted.  False on an egress whose
            ingress shows no evidence of its own.
    """

    downstream_remote: Endpoint | str
    downstream_local: Endpoint | str
    mode: str
    upstream_remote: Endpoint | str | None = None
    upstream_local: Endpoint | str | None = None
    encrypted: bool = False
    attested: bool = False

    @property
    def is_connected(self) -> bool:
        """Whether both ends were reached."""
        return self.upstream_remote is not None and self.upstream_local is not None

    def __str__(self) -> str:
        """The line, without time, level and target."""
        head = (
            f"downstream_remote={self.downstream_remote}"
            f" -> downstream_local={_words(self.downstream_local)}({self.mode})"
        )
        if self.upstream_remote is None:
            return f"{head} {_DASH} accepted only"
        encrypted = "true" if self.encrypted else "false"
        if self.upstream_local is None:
            return (
                f"{head} -> (..) -> upstream_remote={self.upstream_remote}"
                f" {_DASH} not connected encrypted={encrypted}"
            )
        attested = "true" if self.attested else "false"
        return (
            f"{head} -> upstream_local={self.upstream_local}"
            f" -> upstream_remote={_words(self.upstream_remote)}"
            f" {_DASH} encrypted={encrypted} attested={attested}"
        )


_words: Final = functools.lru_cache(maxsize=256)(str)
"""Text of an address that is nearly always one of the same few."""


class StampedRecord(NamedTuple):
    """A record as the writer of the log sees it.

    Attributes:
        at: Unix time, seconds.
        record: what became of the connection.
    """

    at: float
    record: AccessRecord

    @property
    def level(self) -> int:
        """INFO for a connected line, ERROR for the others."""
        record = self.record
        is_connected = record.upstream_local is not None and record.upstream_remote is not None
        return logging.INFO if is_connected else logging.ERROR


class _Outlet:
    """Where records go: to the writer of the log while there is one, else to `logging`."""

    take: Callable[[tuple[float, AccessRecord]], object] | None = None


def send_to(take: Callable[[tuple[float, AccessRecord]], object] | None) -> None:
    """Have records handed to `take`, from any thread, instead of `logging`; None to undo it."""
    _Outlet.take = take


def log_access(record: AccessRecord) -> None:
    """Log `record`."""
    level = logging.INFO if record.upstream_local is not None else logging.ERROR
    if not log.isEnabledFor(level):
        return
    take = _Outlet.take
    if take is None:
        log.log(level, record)
    else:
        # A plain tuple, which the writer makes a `StampedRecord` of: see the module docstring.
        take((time.time(), record))  # noqa: TID251 - as logging stamps its records
