"""Keys in a directory: whole ones are taken, their times count, moving ones are not lost."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tng.config.ohttp import OhttpKey
from tng.errors import ConfigError
from tng.tunnel.ohttp.key_source import make_key_source
from tng.tunnel.ohttp.keyring import MAX_KEYS
from tng.tunnel.ohttp.keys_directory import OVERLAP_S, DirectoryKeys

START = 1_800_000_000.0
WHERE = "add_egress[0].ohttp.key"
LOOK_S = 1.1


class TrioClock:
    def now(self) -> float:
        return trio.current_time() + START


def text_time(ahead: float) -> str:
    return dt.datetime.fromtimestamp(START + ahead, dt.UTC).isoformat()


def put(folder: pathlib.Path, begins: float, **changes: object) -> bytes:
    """Write both files of a new key; its public half.  Times in seconds from the test's start."""
    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{public.hex()}.key"
    file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.chmod(0o600)
    meta = {
        "key_id": 0,
        "public_key": public.hex(),
        "kem": 32,
        "suites": [{"kdf": 1, "aead": 1}, {"kdf": 1, "aead": 3}],
        "status": "Active",
        "actived_at": text_time(begins),
        "stale_at": text_time(begins + 100),
        "expire_at": text_time(begins + 200),
    }
    kept = {name: value for name, value in {**meta, **changes}.items() if value is not None}
    file.with_suffix(".meta.json").write_text(json.dumps(kept))
    return public


@asynccontextmanager
async def running(path: pathlib.Path) -> AsyncIterator[DirectoryKeys]:
    settings = OhttpKey.model_validate({"source": "directory", "path": str(path)})
    source = make_key_source(settings, TrioClock(), where=WHERE)
    assert isinstance(source, DirectoryKeys)
    async with trio.open_nursery() as nursery:
        await nursery.start(source.run)
        yield source
        nursery.cancel_scope.cancel()


def offered(source: DirectoryKeys) -> bytes | None:
    key = source.keyring.active(TrioClock().now())
    return None if key is None else key.public_key


async def test_keys_of_all_three_folders_are_used_by_their_times(
    tmp_path: pathlib.Path, autojump_clock
) -> None:
    old, current = put(tmp_path / "expired", -150), put(tmp_path / "current", -50)
    coming = put(tmp_path / "next", 50)
    async with running(tmp_path) as source:
        now = TrioClock().now()
        assert offered(source) == current
        assert all(source.keyring.find(key, now) for key in (old, current, coming))
        await trio.sleep(50.1)
        assert offered(source) == coming, "its time has come, whatever folder it lies in"
        await trio.sleep(OVERLAP_S)
        assert source.keyring.find(old, TrioClock().now()) is None
        assert [key["status"] for key in source.status(TrioClock().now())["keys"]] == [  # type: ignore[attr-defined]
            "Active",
            "Stale",
        ]


async def test_a_current_key_is_offered_until_its_successor_is_there(
    tmp_path: pathlib.Path, autojump_clock
) -> None:
    first = put(tmp_path / "current", 0)
    stale = put(tmp_path / "expired", -1)
    async with running(tmp_path) as source:
        await trio.sleep(102)
        assert offered(source) == first, "it got stale two seconds ago"
        second = put(tmp_path / "next", 100)
        await trio.sleep(LOOK_S)
        assert offered(source) == second
        (tmp_path / "next" / f"{second.hex()}.key").unlink()
        await trio.sleep(OVERLAP_S)
        assert offered(source) is None
        assert source.keyring.find(first, TrioClock().now()) is not None
        assert source.keyring.find(stale, TrioClock().now()) is not None


async def test_an_empty_folder_is_waited_for(tmp_path: pathlib.Path, autojump_clock) -> None:
    async with running(tmp_path) as source:
        assert source.not_ready == f"no OHTTP key is active; {WHERE}.path has 0 usable keys"
        public = put(tmp_path / "current", 0)
        await trio.sleep(LOOK_S)
        assert offered(source) == public
        assert source.not_ready is None


async def test_a_folder_that_is_not_there_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"ohttp\.key\.path: expected a directory at"):
        await DirectoryKeys(str(tmp_path / "gone"), TrioClock(), f"{WHERE}.path").run()


async def test_a_key_without_its_second_file_waits_for_it(
    tmp_path: pathlib.Path, autojump_clock, caplog: pytest.LogCaptureFixture
) -> None:
    public = put(tmp_path / "current", 0)
    meta = tmp_path / "current" / f"{public.hex()}.meta.json"
    whole = meta.read_text()
    meta.write_text(whole[:50])
    async with running(tmp_path) as source:
        assert offered(source) is None
        meta.write_text(whole)
        await trio.sleep(LOOK_S)
        assert offered(source) == public
    assert "left out" not in caplog.text, "what is just being written is no fault"


async def test_a_key_on_its_way_between_folders_is_not_lost(
    tmp_path: pathlib.Path, autojump_clock
) -> None:
    public = put(tmp_path / "next", 0)
    async with running(tmp_path) as source:
        names = [f"{public.hex()}.key", f"{public.hex()}.meta.json"]
        (tmp_path / "current").mkdir()
        (tmp_path / "next" / names[0]).rename(tmp_path / "current" / names[0])
        await trio.sleep(LOOK_S)
        assert offered(source) == public
        (tmp_path / "next" / names[1]).rename(tmp_path / "current" / names[1])
        await trio.sleep(LOOK_S)
        assert offered(source) == public


async def test_a_deleted_key_is_used_no_more(tmp_path: pathlib.Path, autojump_clock) -> None:
    public = put(tmp_path / "current", 0)
    async with running(tmp_path) as source:
        (tmp_path / "current" / f"{public.hex()}.key").unlink()
        await trio.sleep(2 * LOOK_S)
        assert source.keyring.find(public, TrioClock().now()) is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"key_id": None}, "expected an integer 0-255 as key_id"),
        ({"key_id": 256}, "expected an integer 0-255 as key_id"),
        ({"key_id": True}, "expected an integer 0-255 as key_id"),
        ({"expire_at": None}, "with its offset as expire_at"),
        ({"expire_at": 5}, "with its offset as expire_at"),
        ({"stale_at": "2027-01-15T08:00:00"}, "with its offset as stale_at"),
        ({"actived_at": "yesterday"}, "with its offset as actived_at"),
        ({"stale_at": text_time(-1)}, "in this order"),
    ],
)
async def test_a_key_with_wrong_words_beside_it_is_left_out_and_told_of_once(
    changes: dict[str, object],
    complaint: str,
    tmp_path: pathlib.Path,
    autojump_clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(tmp_path / "current", 0, **changes)
    good = put(tmp_path / "current", 0)
    async with running(tmp_path) as source:
        await trio.sleep(10)
        assert [key.public_key for key in source.keyring] == [good]
    assert caplog.text.count(complaint) == 1


@pytest.mark.parametrize("meta", ["", "[]", "{", '{"key_id": 0, "key_id": 0}', "[" * 5000])
async def test_what_is_no_json_object_is_left_out(
    meta: str, tmp_path: pathlib.Path, autojump_clock, caplog: pytest.LogCaptureFixture
) -> None:
    public = put(tmp_path / "current", 0)
    (tmp_path / "current" / f"{public.hex()}.meta.json").write_text(meta)
    async with running(tmp_path) as source:
        await trio.sleep(5)
        assert len(source.keyring) == 0
    assert caplog.text.count("expected a JSON object in .meta.json beside it") == 1


async def test_a_key_under_the_name_of_another_is_left_out(
    tmp_path: pathlib.Path, autojump_clock, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "current"
    one, two = put(folder, 0), put(folder, 0)
    (folder / f"{one.hex()}.key").write_bytes((folder / f"{two.hex()}.key").read_bytes())
    async with running(tmp_path) as source:
        await trio.sleep(5)
        assert [key.public_key for key in source.keyring] == [two]
    assert f"its public key is {two.hex()}" in caplog.text


async def test_other_files_are_none_of_our_business(
    tmp_path: pathlib.Path, autojump_clock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cluster.json").write_text("{}")
    (tmp_path / "current").mkdir()
    (tmp_path / "current" / "README.key").write_text("x")
    (tmp_path / "next").write_text("no folder")
    async with running(tmp_path) as source:
        await trio.sleep(5)
        assert len(source.keyring) == 0
    assert caplog.text == ""


async def test_more_keys_than_a_ring_takes_are_left_out(
    tmp_path: pathlib.Path, autojump_clock
) -> None:
    for folder, count in (("current", 100), ("next", 100), ("expired", 60)):
        for _ in range(count):
            put(tmp_path / folder, 0)
    async with running(tmp_path) as source:
        assert len(source.keyring) == MAX_KEYS


async def test_rights_of_others_are_warned_of_once(
    tmp_path: pathlib.Path, autojump_clock, caplog: pytest.LogCaptureFixture
) -> None:
    public = put(tmp_path / "current", 0)
    (tmp_path / "current" / f"{public.hex()}.key").chmod(0o644)
    async with running(tmp_path) as source:
        await trio.sleep(5)
        assert offered(source) == public
    assert caplog.text.count("chmod 600 is expected") == 1


async def test_an_unknown_key_is_looked_for_at_once(tmp_path: pathlib.Path, autojump_clock) -> None:
    async with running(tmp_path) as source:
        public = put(tmp_path / "current", 0)
        assert not await source.find_elsewhere(bytes(32))
        assert await source.find_elsewhere(public)
        assert source.status(TrioClock().now())["key_manager_type"] == "directory"
