"""One memory of requests for several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tng.errors import LocalProtocolError
from tng.gateway.workers import replays
from tng.gateway.workers.replays import BUCKET, HEADER, MARKS, SharedReplays, make_table

KEY = bytes(32)


@contextmanager
def table(buckets: int) -> Iterator[int]:
    descriptor = replays._make(buckets)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_new(shared: SharedReplays, number: int, key: bytes = KEY) -> bool:
    return shared.is_new(key, number.to_bytes(32, "big"), 600.0, 0.0)


def test_a_request_is_new_once_for_all_who_share_the_table() -> None:
    with table(8) as descriptor:
        one, other = SharedReplays(descriptor), SharedReplays(descriptor)
        assert is_new(one, 1)
        assert not is_new(other, 1)
        assert not is_new(one, 1)
        assert is_new(other, 2)
        assert not is_new(SharedReplays(descriptor), 2)  # one that comes later


def test_the_same_ephemeral_key_for_another_key_of_the_egress_is_another_request() -> None:
    with table(8) as descriptor:
        shared = SharedReplays(descriptor)
        assert is_new(shared, 1)
        assert is_new(shared, 1, key=b"\1" * 32)
        assert shared.is_new(b"a", b"bc", 0.0, 0.0)
        assert shared.is_new(b"ab", b"c", 0.0, 0.0)


def test_a_full_bucket_forgets_its_oldest_request_first() -> None:
    with table(1) as descriptor:
        shared = SharedReplays(descriptor)
        assert all(is_new(shared, number) for number in range(MARKS))
        assert not any(is_new(shared, number) for number in range(MARKS))
        assert is_new(shared, MARKS)
        assert not any(is_new(shared, number) for number in range(1, MARKS + 1))
        assert is_new(shared, 0)
        assert not is_new(shared, 0)


def test_tables_have_secrets_of_their_own() -> None:
    with table(1) as one, table(1) as other:
        assert os.pread(one, 32, 0) != os.pread(other, 32, 0)
        for descriptor in (one, other):
            assert is_new(SharedReplays(descriptor), 1)
        assert os.pread(one, BUCKET, HEADER) != os.pread(other, BUCKET, HEADER)


def test_octets_across_two_marks_are_no_mark() -> None:
    with table(1) as descriptor:
        shared = SharedReplays(descriptor)
        assert is_new(shared, 1)
        mark = os.pread(descriptor, 16, HEADER + 16)
        os.pwrite(descriptor, bytes(16), HEADER + 16)
        os.pwrite(descriptor, mark, HEADER + 40)
        assert is_new(shared, 1)
        assert not is_new(shared, 1)


def test_a_place_that_is_out_of_bounds_is_brought_back() -> None:
    with table(1) as descriptor:
        os.pwrite(descriptor, b"\xff", HEADER)
        shared = SharedReplays(descriptor)
        assert is_new(shared, 1)
        assert not is_new(shared, 1)


@pytest.mark.parametrize(("workers", "share"), [(1, 1), (4, 4), (256, replays.MAX_WORKERS)])
def test_more_workers_have_a_larger_table_up_to_a_limit(workers: int, share: int) -> None:
    descriptor = make_table(workers)
    try:
        buckets = replays.BUCKETS_PER_WORKER * share
        assert os.fstat(descriptor).st_size == HEADER + buckets * BUCKET
        assert os.fstat(descriptor).st_blocks * 512 <= HEADER  # the rest is taken when needed
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


def test_nobody_can_shorten_a_table_that_others_have_mapped() -> None:
    with table(2) as descriptor:
        for size in (0, HEADER + BUCKET, HEADER + 3 * BUCKET):
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, size)


@pytest.mark.parametrize("size", [0, HEADER, HEADER + BUCKET - 1, HEADER + BUCKET + 1])
def test_memory_of_another_size_is_no_table(size: int) -> None:
    descriptor = os.memfd_create("other")
    try:
        os.ftruncate(descriptor, size)
        with pytest.raises(LocalProtocolError, match="no table of requests"):
            SharedReplays(descriptor)
    finally:
        os.close(descriptor)


def test_a_descriptor_of_something_else_is_no_table() -> None:
    with open("/dev/null", "rb") as other, pytest.raises(LocalProtocolError):  # noqa: PTH123
        SharedReplays(other.fileno())
    with pytest.raises(LocalProtocolError, match="no table of requests"):
        SharedReplays(1 << 20)


def test_a_failure_leaves_no_descriptor_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(OverflowError):
        replays._make(1 << 80)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


RACE = """
import sys
from tng.gateway.workers.replays import SharedReplays
shared = SharedReplays(int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
count = sum(shared.is_new(bytes(32), n.to_bytes(32, "big"), 0.0, 0.0) for n in range(20000))
print(count)
"""


@pytest.mark.slow
def test_of_processes_that_ask_at_the_same_time_one_hears_that_a_request_is_new() -> None:
    with table(4096) as descriptor, ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RACE, str(descriptor)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    pass_fds=[descriptor],
                    text=True,
                )
            )
            for _ in range(3)
        ]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        counts = [int(racer.communicate()[0]) for racer in racers]
        assert sum(counts) == 20_000
