"""The key in a file: however a new one gets there it is noticed, and nothing else replaces one."""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from tng.config.ohttp import OhttpKey
from tng.errors import ConfigError
from tng.tunnel.ohttp.key_source import make_key_source
from tng.tunnel.ohttp.keyring import KeyStatus
from tng.tunnel.ohttp.keys_file import GRACE_S, MAX_REPLACED, FileKey

WHERE = "add_egress[0].ohttp.key"
LOOK_S = 1.1


class TrioClock:
    """The time of day follows trio's clock, and can be set."""

    def __init__(self) -> None:
        self.ahead = 1_800_000_000.0

    def now(self) -> float:
        return trio.current_time() + self.ahead


def pem(private: X25519PrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write(path: pathlib.Path, content: bytes, mode: int = 0o600) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def put(path: pathlib.Path) -> bytes:
    """Write a new key; its public half."""
    private = X25519PrivateKey.generate()
    write(path, pem(private))
    return private.public_key().public_bytes_raw()


@asynccontextmanager
async def running(path: pathlib.Path, clock: TrioClock | None = None) -> AsyncIterator[FileKey]:
    settings = OhttpKey.model_validate({"source": "file", "path": str(path)})
    source = make_key_source(settings, clock or TrioClock(), where=WHERE)
    assert isinstance(source, FileKey)
    async with trio.open_nursery() as nursery:
        await nursery.start(source.run)
        yield source
        nursery.cancel_scope.cancel()


def offered(source: FileKey, clock: TrioClock) -> bytes:
    key = source.keyring.active(clock.now())
    assert key is not None
    return key.public_key


def in_place(path: pathlib.Path) -> bytes:
    return put(path)


def renamed_over(path: pathlib.Path) -> bytes:
    other = path.with_name("new")
    public = put(other)
    other.rename(path)
    return public


def deleted_and_made_again(path: pathlib.Path) -> bytes:
    path.unlink()
    return put(path)


def linked_elsewhere(path: pathlib.Path) -> bytes:
    other = path.with_name("elsewhere")
    public = put(other)
    path.unlink()
    path.symlink_to(other)
    return public


@pytest.mark.parametrize(
    "replace", [in_place, renamed_over, deleted_and_made_again, linked_elsewhere]
)
async def test_a_new_key_is_noticed_however_it_got_there(
    replace, tmp_path: pathlib.Path, autojump_clock
) -> None:
    clock, path = TrioClock(), tmp_path / "key.pem"
    first = put(path)
    async with running(path, clock) as source:
        assert offered(source, clock) == first
        second = replace(path)
        await trio.sleep(LOOK_S)
        assert offered(source, clock) == second


async def test_a_kubernetes_secret_is_followed(tmp_path: pathlib.Path, autojump_clock) -> None:
    """The file is a link into `..data`, which is a link to a folder that is swapped."""
    clock, path = TrioClock(), tmp_path / "key.pem"
    (tmp_path / "..one").mkdir()
    (tmp_path / "..two").mkdir()
    first, second = put(tmp_path / "..one" / "key.pem"), put(tmp_path / "..two" / "key.pem")
    (tmp_path / "..data").symlink_to("..one")
    path.symlink_to("..data/key.pem")
    async with running(path, clock) as source:
        assert offered(source, clock) == first
        (tmp_path / "..tmp").symlink_to("..two")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        await trio.sleep(LOOK_S)
        assert offered(source, clock) == second


async def test_a_change_that_leaves_size_and_time_alone_is_noticed(
    tmp_path: pathlib.Path, autojump_clock
) -> None:
    clock, path = TrioClock(), tmp_path / "key.pem"
    put(path)
    about = path.stat()
    async with running(path, clock) as source:
        second = put(path)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
        await trio.sleep(LOOK_S)
        assert offered(source, clock) == second


async def test_a_replaced_key_serves_for_the_grace_and_not_longer(
    tmp_path: pathlib.Path, autojump_clock
) -> None:
    clock, path = TrioClock(), tmp_path / "key.pem"
    first = put(path)
    async with running(path, clock) as source:
        put(path)
        await trio.sleep(LOOK_S)
        old = source.keyring.find(first, clock.now())
        assert old is not None
        assert old.status(clock.now()) is KeyStatus.STALE
        await trio.sleep(GRACE_S - 1)
        assert source.keyring.find(first, clock.now()) is old
        await trio.sleep(1.1)
        assert source.keyring.find(first, clock.now()) is None
        await trio.sleep(LOOK_S)
        assert len(source.keyring) == 1


async def test_a_key_that_comes_back_is_offered_again(
    tmp_path: pathlib.Path, autojump_clock
) -> None:
    clock, path = TrioClock(), tmp_path / "key.pem"
    first = put(path)
    kept = path.read_bytes()
    async with running(path, clock) as source:
        second = put(path)
        await trio.sleep(LOOK_S)
        path.write_bytes(kept)
        await trio.sleep(LOOK_S)
        assert offered(source, clock) == first
        assert [key.public_key for key in source.keyring] == [first, second]


async def test_the_same_key_written_again_is_no_new_key(
    tmp_path: pathlib.Path, autojump_clock
) -> None:
    path = tmp_path / "key.pem"
    put(path)
    async with running(path) as source:
        (before,) = source.keyring
        path.write_bytes(path.read_bytes() + b"\n")
        await trio.sleep(LOOK_S)
        assert list(source.keyring) == [before]


async def test_many_new_keys_keep_a_bounded_number_of_old_ones(
    tmp_path: pathlib.Path, autojump_clock
) -> None:
    path = tmp_path / "key.pem"
    put(path)
    async with running(path) as source:
        for _ in range(MAX_REPLACED + 5):
            put(path)
            await trio.sleep(LOOK_S)
        assert len(source.keyring) == MAX_REPLACED + 1


def p256() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def locked() -> bytes:
    return X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
    )


BAD = [
    (b"", "expected a PKCS#8 PEM private key without a password (ValueError)"),
    (b"\x00garbage", "expected a PKCS#8 PEM private key without a password (ValueError)"),
    (pem(X25519PrivateKey.generate())[:-40], "expected a PKCS#8 PEM private key"),
    (locked(), "expected a PKCS#8 PEM private key without a password (TypeError)"),
    (p256(), "expected an X25519 private key, got one of another kind"),
    (b"x" * 16_385, "it has more than 16384 octets"),
]


@pytest.mark.parametrize(("content", "complaint"), BAD, ids=range(len(BAD)))
async def test_a_start_without_a_key_is_refused_by_name(
    content: bytes, complaint: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "key.pem"
    write(path, content)
    with pytest.raises(ConfigError) as caught:
        await FileKey(str(path), TrioClock(), f"{WHERE}.path").run()
    (problem,) = caught.value.problems
    assert problem.startswith(f"{WHERE}.path: cannot use {str(path)!r}: {complaint}")


def missing(path: pathlib.Path) -> None:
    """Nothing is there."""


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (missing, "No such file or directory"),
        (pathlib.Path.mkdir, "Is a directory"),
        (os.mkfifo, "it is no plain file"),
    ],
)
async def test_what_is_no_plain_file_is_refused_and_holds_nothing_up(
    make, complaint: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "key.pem"
    make(path)
    with pytest.raises(ConfigError, match=complaint):
        await FileKey(str(path), TrioClock(), f"{WHERE}.path").run()


@pytest.mark.parametrize("content", [content for content, _ in BAD], ids=range(len(BAD)))
async def test_bad_content_later_keeps_the_key_and_is_told_once(
    content: bytes,
    tmp_path: pathlib.Path,
    autojump_clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, path = TrioClock(), tmp_path / "key.pem"
    first = put(path)
    async with running(path, clock) as source:
        path.write_bytes(content)
        await trio.sleep(5)
        assert offered(source, clock) == first
        assert caplog.text.count("the key read before stays") == 1
        second = put(path)
        await trio.sleep(LOOK_S)
        assert offered(source, clock) == second


async def test_a_deleted_file_keeps_the_key(tmp_path: pathlib.Path, autojump_clock) -> None:
    clock, path = TrioClock(), tmp_path / "key.pem"
    first = put(path)
    async with running(path, clock) as source:
        path.unlink()
        await trio.sleep(2 * GRACE_S)
        assert offered(source, clock) == first
        assert source.not_ready is None


@pytest.mark.parametrize("step", [-86400.0, 86400.0, 40 * 365 * 86400.0])
async def test_a_clock_that_is_set_costs_at_most_a_second(
    step: float, tmp_path: pathlib.Path, autojump_clock
) -> None:
    clock, path = TrioClock(), tmp_path / "key.pem"
    first = put(path)
    async with running(path, clock) as source:
        clock.ahead += step
        await trio.sleep(LOOK_S)
        assert offered(source, clock) == first
        assert len(source.keyring) == 1


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1)])
async def test_rights_of_others_are_warned_of_once(
    mode: int,
    warnings: int,
    tmp_path: pathlib.Path,
    autojump_clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "key.pem"
    put(path)
    path.chmod(mode)
    async with running(path):
        await trio.sleep(5)
    assert caplog.text.count("chmod 600 is expected") == warnings


async def test_the_status_is_that_of_the_reference(tmp_path: pathlib.Path, autojump_clock) -> None:
    clock, path = TrioClock(), tmp_path / "key.pem"
    unread = FileKey(str(path), clock, WHERE)
    assert unread.status(clock.now()) == {"key_manager_type": "file", "key": None}
    assert unread.not_ready == f"no OHTTP key is active; {WHERE} holds the key"
    public = put(path)
    async with running(path, clock) as source:
        status = source.status(clock.now())
    assert status["key_manager_type"] == "file"
    key = status["key"]
    assert isinstance(key, dict)
    assert (key["key_id"], key["public_key"], key["status"]) == (0, public.hex(), "Active")
    assert int(key["stale_at"][:4]) == int(key["actived_at"][:4]) + 30


async def test_nobody_else_is_asked_and_nothing_secret_is_told(
    tmp_path: pathlib.Path, autojump_clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "key.pem"
    put(path)
    async with running(path) as source:
        assert not await source.find_elsewhere(bytes(32))
        (key,) = source.keyring
    told = caplog.text + repr(source.keyring) + repr(source._seen)
    secret = path.read_text().splitlines()[1]
    assert secret not in told
    assert key.private.private_bytes_raw().hex() not in told
