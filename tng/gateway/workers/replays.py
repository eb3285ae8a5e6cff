"""Which encapsulated requests an egress has seen, remembered by all of its workers together.

In: the egress's key and a request's ephemeral key, in any worker.  Out: whether they came together
before, in any worker.  The supervisor makes one table and keeps it, so that what a worker has seen
outlives it; workers inherit its descriptor.

Theory of operation.  The table is memory without a name (memfd_create(2)), mapped by every
process: a header with a secret, then buckets.  A request's mark is a hash under the secret, so
that nobody outside can choose requests that fall into one bucket.  A bucket is a ring of
`MARKS` marks, the newest takes the place of the oldest:

    bucket   next (1 octet), 15 unused | mark 0 | mark 1 | ... | mark 62

A worker locks the bucket (fcntl(2): released by the system when its holder dies), looks for the
mark, and writes it if it is not there.  That takes microseconds, and no word with the supervisor.

Invariants: of several processes that ask about one request, one hears that it is new.  A process
that is killed at any point loses or damages no mark but the one it was writing, whose request was
not served.  The memory never grows: `buckets * MARKS` requests are remembered, the oldest is
forgotten first.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import secrets
from typing import Final

from tng.errors import LocalProtocolError

MARK: Final = 16
"""Octets that stand for a request: two of a million meet once in 10**26."""

MARKS: Final = 63
"""Marks of a bucket."""

BUCKET: Final = (MARKS + 1) * MARK
"""Octets of a bucket."""

HEADER: Final = mmap.PAGESIZE
"""Octets before the first bucket; buckets then never straddle more pages than they must."""

SECRET: Final = 32
"""Octets of the secret, at the beginning of the header."""

BUCKETS_PER_WORKER: Final = 1 << 15
"""Two million requests, in 32 MiB that are taken as they are needed: 3400 requests/s for the 600 s
in which a key of 300 s can be used."""

MAX_WORKERS: Final = 16
"""Workers whose number makes the table larger: it ends at 512 MiB."""


def make_table(workers: int) -> int:
    """The descriptor of a new table, which nobody can shorten or lengthen.

    Args:
        workers: how many processes are going to share it, 1 or more.

    Returns:
        The descriptor; the caller closes it.
    """
    buckets = BUCKETS_PER_WORKER * min(workers, MAX_WORKERS)
    return _make(buckets)


def _make(buckets: int) -> int:
    descriptor = os.memfd_create("tng-replays", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, HEADER + buckets * BUCKET)
        os.pwrite(descriptor, secrets.token_bytes(SECRET), 0)
        # A mapping beyond the end of a file ends the process that touches it.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class SharedReplays:
    """One process's way to the table.

    Args:
        descriptor: of the table; not closed here, and not to be closed before this process ends:
            closing any descriptor of a file lets go of all locks that the process has on it.

    Raises:
        LocalProtocolError: it is no such table.
    """

    def __init__(self, descriptor: int) -> None:
        try:
            size = os.fstat(descriptor).st_size
            if size < HEADER + BUCKET or (size - HEADER) % BUCKET:
                raise LocalProtocolError(f"a table of {size} octets is no table of requests")
            self._table = mmap.mmap(descriptor, size)
        except OSError as exc:
            raise LocalProtocolError(
                f"descriptor {descriptor} is no table of requests ({exc.strerror})"
            ) from exc
        self._descriptor = descriptor
        self._buckets = (size - HEADER) // BUCKET
        self._secret = self._table[:SECRET]

    def is_new(self, public_key: bytes, enc: bytes, expires: float, now: float) -> bool:
        """See `tng.tunnel.ohttp.replay.Replays.is_new`; times do not matter here."""
        del expires, now  # what has ended is pushed out by what is new
        digest = hashlib.blake2b(
            len(public_key).to_bytes(8, "big") + public_key + enc,
            digest_size=MARK + 8,
            key=self._secret,
        ).digest()
        mark, number = digest[:MARK], int.from_bytes(digest[MARK:], "big") % self._buckets
        begin = HEADER + number * BUCKET
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, begin)
        try:
            return self._remember(mark, begin)
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, begin)

    def _remember(self, mark: bytes, begin: int) -> bool:
        table = self._table
        bucket = table[begin : begin + BUCKET]
        at = bucket.find(mark, MARK)
        while at > 0 and at % MARK:  # across two marks: no mark at all
            at = bucket.find(mark, at + 1)
        if at > 0:
            return False
        place = bucket[0] % MARKS
        table[begin] = (place + 1) % MARKS
        at = begin + (place + 1) * MARK
        table[at : at + MARK] = mark
        return True
