"""Secrets at rest, settings at rest, and what a crash leaves of them."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from tng.attest.kbs.resource_id import ResourceId, parse_resource_uri
from tng.errors import AppraiserError, StartError
from tng.trustee.kbs import sealed_directory
from tng.trustee.kbs.database import Database
from tng.trustee.kbs.resources import MAX_RESOURCE, Resources
from tng.trustee.kbs.sealed_directory import SealedDirectory
from tng.trustee.problems import TrusteeRequestError, problem_of
from tng.trustee.state import StateDirectory

NAME = ResourceId("default", "test", "key-1.bin")
SECRET = b"alibaba@1688 and some more octets"
KEY = b"k" * 32
NOW = 1_795_000_000.0


def run(coroutine):
    return asyncio.run(coroutine)


@pytest.fixture
def store(tmp_path):
    return SealedDirectory(tmp_path, KEY)


def test_a_secret_comes_back_and_is_not_in_the_file(store, tmp_path):
    run(store.put(NAME, SECRET))
    assert run(store.get(NAME)) == SECRET
    (file,) = tmp_path.iterdir()
    assert SECRET not in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = file.read_bytes()
    run(store.put(NAME, SECRET))
    assert file.read_bytes() != first
    assert run(store.names()) == [NAME]
    assert run(store.delete(NAME)) is True
    assert run(store.delete(NAME)) is False
    assert run(store.get(NAME)) is None


def test_every_changed_octet_is_noticed(store, tmp_path):
    run(store.put(NAME, b"secret"))
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    changed = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(len(good))]

    async def look_at_each():
        for data in (*changed, *(good[:cut] for cut in range(len(good)))):
            file.write_bytes(data)
            with pytest.raises(StartError, match="does not open"):
                await store.get(NAME)

    run(look_at_each())


def test_a_file_under_another_name_does_not_open(store, tmp_path):
    run(store.put(NAME, SECRET))
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / "default,test,other.sealed")
    with pytest.raises(StartError, match="does not open"):
        run(store.get(ResourceId("default", "test", "other")))


def test_another_key_opens_nothing(store, tmp_path):
    run(store.put(NAME, SECRET))
    with pytest.raises(StartError, match="does not open"):
        run(SealedDirectory(tmp_path, b"x" * 32).get(NAME))


def test_what_a_crash_left_is_no_secret(store, tmp_path):
    (tmp_path / ".default,test,key.sealed.0011").write_bytes(b"half")
    (tmp_path / "odd.sealed").write_bytes(b"")
    assert run(store.names()) == []


def test_there_is_room_for_so_many(store, monkeypatch):
    monkeypatch.setattr(sealed_directory, "MAX_RESOURCES", 1)
    run(store.put(NAME, SECRET))
    run(store.put(NAME, b"other"))
    with pytest.raises(TrusteeRequestError, match="already"):
        run(store.put(ResourceId("a", "b", "c"), SECRET))


class Vault:
    """A key management service."""

    async def fetch(self, name):
        return {"model-decryption-key": b"alibaba@1688"}.get(name)


def test_a_service_answers_for_what_it_is_mounted_over(store):
    resources = Resources(store, {("default", "aliyun"): Vault()})
    uri = "kbs:///default/aliyun/model-decryption-key"
    assert run(resources.get(parse_resource_uri(uri))) == b"alibaba@1688"
    other = ResourceId("default", "aliyun", "other")
    run(store.put(other, SECRET))
    with pytest.raises(TrusteeRequestError, match="no resource"):
        run(resources.get(other))
    for change in (resources.put(other, b"x"), resources.delete(other)):
        with pytest.raises(TrusteeRequestError, match="key management service"):
            run(change)
    run(resources.put(NAME, b"x"))
    assert run(resources.get(NAME)) == b"x"


def test_a_service_that_cannot_be_asked_is_a_503_that_may_be_tried_again():
    problem = problem_of(AppraiserError("the vault does not answer"))
    assert (problem.status, problem.retryable) == (503, True)


@pytest.mark.parametrize("size", [0, MAX_RESOURCE + 1])
def test_a_secret_has_a_size(store, size):
    with pytest.raises(TrusteeRequestError, match="octets"):
        run(Resources(store).put(NAME, b"x" * size))


def test_the_key_of_secrets_is_made_once_and_may_live_elsewhere(tmp_path):
    with StateDirectory.open(tmp_path / "s") as state:
        key = state.resource_key()
        assert len(key) == 32
        assert state.resource_key() == key
        elsewhere = tmp_path / "key"
        other = state.resource_key(elsewhere)
        assert other != key
        assert elsewhere.read_bytes() == other
        elsewhere.write_bytes(b"short")
        with pytest.raises(StartError, match="expected 32"):
            state.resource_key(elsewhere)
        elsewhere.chmod(0o644)
        with pytest.raises(StartError, match="0600"):
            state.resource_key(elsewhere)


def test_settings_and_values_survive(tmp_path):
    with Database.open(tmp_path / "db") as database:
        assert database.setting("a") is None
        database.set_setting("a", "1")
        database.set_setting("a", "2")
        database.set_reference_values({"x": "1", "y": "[2]"}, NOW + 10, NOW)
        assert stat.S_IMODE((tmp_path / "db").stat().st_mode) == 0o600
    with Database.open(tmp_path / "db") as database:
        assert database.setting("a") == "2"
        assert database.reference_values(NOW) == {"x": "1", "y": "[2]"}
        assert database.reference_values(NOW + 10) == {}
        assert database.delete_reference_value("x") is True
        assert database.delete_reference_value("x") is False
        database.set_reference_values({}, 0, NOW + 10)
        assert database.reference_values(NOW) == {}


def test_a_change_that_fails_leaves_everything_as_it_was(tmp_path):
    with Database.open(tmp_path / "db") as database:
        database.set_reference_values({"x": "1"}, NOW + 10, NOW)
        with pytest.raises(StartError):
            database.set_reference_values({"y": "2", "z": None}, NOW + 10, NOW)  # type: ignore[dict-item]
        assert database.reference_values(NOW) == {"x": "1"}


def test_threads_take_turns(tmp_path):
    with Database.open(tmp_path / "db") as database:
        threads = [
            threading.Thread(target=database.set_setting, args=(str(n), "v")) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [database.setting(str(n)) for n in range(8)] == ["v"] * 8


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "db").write_bytes(b"not a database, but long enough to be looked at" * 50)
    (tmp_path / "db").chmod(0o600)
    with pytest.raises(StartError, match="database"):
        Database.open(tmp_path / "db")


def test_a_file_of_a_later_version_or_of_others_is_refused(tmp_path):
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    (tmp_path / "db").chmod(0o600)
    with pytest.raises(StartError, match="later version"):
        Database.open(tmp_path / "db")
    (tmp_path / "db").chmod(0o644)
    with pytest.raises(StartError, match="0600"):
        Database.open(tmp_path / "db")
    with pytest.raises(StartError, match="directory"):
        Database.open(tmp_path)


WRITER = """\
import asyncio, pathlib, sys
from tng.attest.kbs.resource_id import ResourceId
from tng.trustee.kbs.database import Database
from tng.trustee.kbs.sealed_directory import SealedDirectory
folder = pathlib.Path(sys.argv[1])
database = Database.open(folder / "db")
store = SealedDirectory(folder / "sealed", b"k" * 32)
async def main():
    for n in range(1_000_000):
        await store.put(ResourceId("a", "b", "c"), b"%d" % n * 2000)
        database.set_reference_values({"x": str(n), "y": str(n)}, 2e9, 0)
        print(n, flush=True)
asyncio.run(main())
"""


@pytest.mark.slow
def test_after_kill_9_everything_is_whole(tmp_path):
    (tmp_path / "sealed").mkdir()
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            for _ in range(5):
                seen = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            seen = max([seen, *(int(line) for line in process.stdout if line.endswith("\n"))])
        assert process.returncode == -signal.SIGKILL
        store = SealedDirectory(tmp_path / "sealed", KEY)
        secret = run(store.get(ResourceId("a", "b", "c")))
        assert secret in (b"%d" % seen * 2000, b"%d" % (seen + 1) * 2000)
        with Database.open(tmp_path / "db") as database:
            values = database.reference_values(0)
        assert values["x"] == values["y"]
        assert int(values["x"]) in (seen, seen + 1)
        assert run(store.names()) == [ResourceId("a", "b", "c")]
