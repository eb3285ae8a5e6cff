"""The audit log on the disk: restarts, torn lines, rotation, a disk that is full."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tng.clock import FixedClock
from tng.errors import StartError
from tng.observe.audit import AuditLog
from tng.observe.audit_chain import MAX_LINE, Examined, examine

CLOCK = FixedClock(1_800_000_000.0)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "audit.jsonl"


def wrote(path: pathlib.Path, *numbers: int) -> None:
    with AuditLog(path, CLOCK) as audit:
        for number in numbers:
            audit.write({"kind": "test", "n": number})


def lines(path: pathlib.Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def records(path: pathlib.Path) -> list[dict[str, object]]:
    return [json.loads(line)["record"] for line in lines(path)]


def checked(*paths: pathlib.Path) -> Examined:
    found = examine([lines(path) for path in paths])
    assert found.problem is None
    return found


def test_records_are_there_when_write_returns(path: pathlib.Path) -> None:
    with AuditLog(path, CLOCK) as audit:
        audit.write({"kind": "test", "n": 1})
        assert records(path) == [{"kind": "test", "n": 1}]
    assert checked(path).records == 1
    assert path.stat().st_mode & 0o777 & ~0o640 == 0


def test_a_restart_continues_the_chain(path: pathlib.Path) -> None:
    wrote(path, 1, 2)
    wrote(path, 3)
    wrote(path)
    wrote(path, 4)
    assert checked(path).last == 4


@pytest.mark.parametrize("cut", [1, 40, -2])
def test_a_torn_line_is_closed_off(
    path: pathlib.Path, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    wrote(path, 1, 2, 3)
    whole = lines(path)
    path.write_bytes(b"".join(whole[:2]) + whole[2][:cut])
    wrote(path, 4)
    found = checked(path)
    assert [record["kind"] for record in map(json_record, lines(path)) if record] == [
        "test",
        "test",
        "torn",
        "test",
    ]
    assert found.records == 4
    assert "torn line" in found.remarks[0]
    assert "torn line" in caplog.text


def json_record(line: bytes) -> dict[str, object] | None:
    try:
        record: dict[str, object] = json.loads(line)["record"]
    except ValueError:
        return None
    return record


def test_a_line_torn_while_a_torn_line_was_closed_off(path: pathlib.Path) -> None:
    wrote(path, 1)
    with path.open("ab") as file:
        file.write(b'{"chain":"01\n{"cha')
    wrote(path, 2)
    assert checked(path).records == 3


def test_a_file_with_nothing_but_a_torn_line(path: pathlib.Path) -> None:
    path.write_bytes(b'{"chain"')
    wrote(path, 1)
    assert checked(path).records == 2


def test_an_altered_last_line_keeps_the_log_from_opening(path: pathlib.Path) -> None:
    wrote(path, 1, 2)
    path.write_bytes(path.read_bytes().replace(b'"n":2', b'"n":3'))
    with pytest.raises(StartError, match="does not end with a line that was written here"):
        AuditLog(path, CLOCK)


@pytest.mark.parametrize("content", [b'{"some":"log"}\n', b"x" * (3 * MAX_LINE)])
def test_a_file_of_something_else_keeps_the_log_from_opening(
    path: pathlib.Path, content: bytes
) -> None:
    path.write_bytes(content)
    with pytest.raises(StartError):
        AuditLog(path, CLOCK)
    assert path.read_bytes() == content


def test_one_file_is_one_process_s(path: pathlib.Path) -> None:
    with AuditLog(path, CLOCK), pytest.raises(StartError, match="another process's"):
        AuditLog(path, CLOCK)
    wrote(path, 1)


def test_a_folder_that_is_not_there_or_a_link_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(StartError, match="cannot be opened"):
        AuditLog(tmp_path / "nowhere" / "audit", CLOCK)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match="cannot be opened"):
        AuditLog(tmp_path / "link", CLOCK)


def test_a_renamed_file_is_followed_by_a_new_one_of_the_same_chain(path: pathlib.Path) -> None:
    older = path.with_name("audit.jsonl.1")
    with AuditLog(path, CLOCK) as audit:
        audit.write({"kind": "test", "n": 1})
        path.rename(older)
        audit.write({"kind": "test", "n": 2})
        audit.write({"kind": "test", "n": 3})
    assert (len(lines(older)), len(lines(path))) == (1, 2)
    assert checked(older, path).records == 3


def test_a_file_that_was_emptied_goes_on_with_the_next_number(path: pathlib.Path) -> None:
    with AuditLog(path, CLOCK) as audit:
        audit.write({"kind": "test", "n": 1})
        os.truncate(path, 0)
        audit.write({"kind": "test", "n": 2})
    assert checked(path).first == 2


def test_a_restart_after_rotation_continues_the_older_file(path: pathlib.Path) -> None:
    older = path.with_name("audit.jsonl.1")
    wrote(path, 1, 2)
    path.rename(older)
    wrote(path, 3)
    assert checked(older, path).records == 3


def test_a_torn_line_at_the_end_of_the_older_file_is_closed_off_in_the_new_one(
    path: pathlib.Path,
) -> None:
    older = path.with_name("audit.jsonl.1")
    wrote(path, 1)
    with path.open("ab") as file:
        file.write(b'{"chain":"01')
    path.rename(older)
    wrote(path, 2)
    assert checked(older, path).records == 3


def test_a_file_put_in_place_of_the_log_is_not_written_to(
    path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    with AuditLog(path, CLOCK) as audit:
        audit.write({"kind": "test", "n": 1})
        path.rename(path.with_name("kept"))
        path.write_text("somebody else's\n")
        audit.write({"kind": "test", "n": 2})
        assert path.read_text() == "somebody else's\n"
        assert "audit record lost" in caplog.text
        path.unlink()
        audit.write({"kind": "test", "n": 3})
    assert [record["kind"] for record in records(path)] == ["lost", "test"]
    assert records(path)[0]["records"] == 1
    assert checked(path.with_name("kept"), path).records == 3


FULL = """
import pathlib, resource, signal, sys
from tng.clock import FixedClock
from tng.observe.audit import AuditLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = pathlib.Path(sys.argv[1])
with AuditLog(path, FixedClock(1.0)) as audit:
    audit.write({"kind": "test", "n": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, resource.RLIM_INFINITY))
    audit.write({"kind": "test", "n": 2})
    audit.write({"kind": "test", "n": 3})
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    audit.write({"kind": "test", "n": 4})
"""


def test_records_that_a_full_disk_lost_are_counted_in_the_chain(path: pathlib.Path) -> None:
    subprocess.run([sys.executable, "-c", FULL, str(path)], check=True, timeout=20)
    assert [record["kind"] for record in records(path)] == ["test", "lost", "test"]
    assert records(path)[1]["records"] == 2
    checked(path)


KILLED = """
import os, pathlib, signal, sys
from tng.clock import FixedClock
from tng.observe.audit import AuditLog
audit = AuditLog(pathlib.Path(sys.argv[1]), FixedClock(1.0))
for number in range(100):
    audit.write({"kind": "test", "n": number})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_no_record(path: pathlib.Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=20)
    assert ended.returncode == -signal.SIGKILL
    wrote(path, 100)
    assert checked(path).records == 101


def test_a_record_that_is_too_long_is_replaced_by_a_remark(path: pathlib.Path) -> None:
    with AuditLog(path, CLOCK) as audit:
        audit.write({"kind": "test", "at": 1.0, "text": "x" * MAX_LINE})
    (record,) = records(path)
    assert (record["kind"], record["at"]) == ("test", 1.0)
    assert "limit" in str(record["left_out"])


def test_a_log_whose_file_was_removed_is_closed_in_order(
    path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with AuditLog(path, CLOCK) as audit:
        audit.write({"kind": "test"})
        path.unlink()
    assert not path.exists()
