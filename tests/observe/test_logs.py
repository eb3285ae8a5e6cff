"""Logging neither blocks nor ends the process, and loses nothing silently."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import queue
import threading

import pytest

from tng.errors import ConfigError, StartError
from tng.observe.access_log import AccessRecord, log_access
from tng.observe.levels import OFF
from tng.observe.logs import (
    QUEUE_RECORDS,
    LogFormat,
    LogOptions,
    RecordQueue,
    configure_logging,
)

log = logging.getLogger("tng.tests")


def options(tmp_path: pathlib.Path, **others: object) -> LogOptions:
    return LogOptions(file=tmp_path / "tng.log", **others)  # type: ignore[arg-type]


def lines(tmp_path: pathlib.Path) -> list[str]:
    return (tmp_path / "tng.log").read_text().splitlines()


def test_everything_logged_before_closing_is_written_in_order(tmp_path: pathlib.Path) -> None:
    with configure_logging(options(tmp_path)):
        for number in range(1000):
            log.info("line=%d", number)
    written = lines(tmp_path)
    assert [line.rpartition("=")[2] for line in written] == [str(n) for n in range(1000)]


def test_json_lines_are_json(tmp_path: pathlib.Path) -> None:
    with configure_logging(options(tmp_path, format=LogFormat.JSON)):
        log.warning("careful")
    assert json.loads(lines(tmp_path)[0])["fields"]["message"] == "careful"


def test_lines_without_a_file_go_to_the_stream() -> None:
    reader, writer = os.pipe()
    with configure_logging(LogOptions(), stream=writer):
        log.info("to the terminal")
    os.close(writer)
    with os.fdopen(reader) as stream:
        assert stream.read().endswith(" INFO tng.tests: to the terminal\n")


def test_lines_go_to_standard_output_unless_told_otherwise(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with configure_logging(LogOptions()):
        log.info("here")
    assert capfd.readouterr().out.endswith("tng.tests: here\n")


def test_errors_go_to_their_own_file_alone(tmp_path: pathlib.Path) -> None:
    with configure_logging(options(tmp_path, error_file=tmp_path / "error.log")):
        log.warning("small")
        log.error("large")
    assert len(lines(tmp_path)) == 1
    assert "small" in lines(tmp_path)[0]
    assert (tmp_path / "error.log").read_text().endswith(": large\n")


def test_files_roll_over_only_when_asked(tmp_path: pathlib.Path) -> None:
    with configure_logging(options(tmp_path, rolling=False, max_size=1)):
        log.info("one")
    with configure_logging(options(tmp_path, rolling=False, max_size=1)):
        log.info("two")
    assert len(lines(tmp_path)) == 2
    with configure_logging(options(tmp_path, rolling=True, max_size=1)):
        log.info("three")
    assert len(lines(tmp_path)) == 1
    assert (tmp_path / "tng.log.1").exists()


def test_levels_hold_while_configured_and_are_restored(tmp_path: pathlib.Path) -> None:
    root, own = logging.getLogger(), logging.getLogger("tng.tests.quiet")
    before = (root.level, own.level, list(root.handlers))
    with configure_logging(options(tmp_path, levels="warn,tng.tests.quiet=off")):
        log.info("below the level")
        log.warning("at the level")
        own.critical("off")
        own.log(OFF, "not even so")
    assert [line.rpartition(": ")[2] for line in lines(tmp_path)] == ["at the level"]
    assert (root.level, own.level, list(root.handlers)) == before


def test_arguments_are_written_as_they_were_at_the_call(tmp_path: pathlib.Path) -> None:
    values = [1]
    with configure_logging(options(tmp_path)):
        log.info("values=%s", values)
        values.append(2)
    assert lines(tmp_path)[0].endswith("values=[1]")


def test_a_record_whose_arguments_do_not_fit_costs_only_its_own_text(
    tmp_path: pathlib.Path,
) -> None:
    with configure_logging(options(tmp_path)):
        handler = logging.getLogger().handlers[-1]  # not through pytest's own, which would raise
        handler.handle(logging.LogRecord("a", 20, "f.py", 3, "%d tunnels", ("no number",), None))
        log.info("next")
    assert "unprintable log record from" in lines(tmp_path)[0]
    assert "no number" not in lines(tmp_path)[0]
    assert lines(tmp_path)[1].endswith(": next")


def test_a_traceback_is_written_and_keeps_no_frame_alive(tmp_path: pathlib.Path) -> None:
    record: list[logging.LogRecord] = []
    with configure_logging(options(tmp_path)):
        handler = logging.getLogger().handlers[-1]
        handler.addFilter(lambda entry: record.append(entry) or True)
        try:
            int("broken")
        except ValueError:
            log.exception("it broke")
    assert "ValueError: invalid literal" in "\n".join(lines(tmp_path))
    assert record[0].exc_info is None


def test_a_secret_is_masked_on_its_way_out(tmp_path: pathlib.Path) -> None:
    with configure_logging(options(tmp_path)):
        log.info("headers=%s", {"Authorization": "Bearer abcdefghijkl"})
    assert "abcdefghijkl" not in lines(tmp_path)[0]


def test_a_terminal_that_takes_nothing_blocks_neither_calls_nor_the_end() -> None:
    reader, writer = os.pipe()
    session = configure_logging(LogOptions(), stream=writer)
    for _ in range(QUEUE_RECORDS * 2):
        log.info("x" * 100)
    assert session.dropped > 0
    os.close(reader)  # lets the writer go: its write fails
    session.close()
    os.close(writer)


def test_the_log_says_how_many_lines_are_missing(tmp_path: pathlib.Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(fifo, os.O_WRONLY)
    session = configure_logging(LogOptions(), stream=writer)
    for _ in range(QUEUE_RECORDS * 2):
        log.info("x" * 100)
    assert session.dropped > 0
    os.set_blocking(reader, True)
    taken: list[bytes] = []
    drain = threading.Thread(
        target=lambda: taken.extend(iter(lambda: os.read(reader, 1 << 20), b""))
    )
    drain.start()
    log.info("last")
    session.close()
    os.close(writer)
    drain.join()
    os.close(reader)
    assert b"log lines dropped count=" in b"".join(taken)


def test_wrong_options_leave_logging_as_it_was(tmp_path: pathlib.Path) -> None:
    before = list(logging.getLogger().handlers)
    with pytest.raises(ConfigError):
        configure_logging(options(tmp_path, levels="a=b"), stream=1)
    with pytest.raises(StartError):
        configure_logging(options(tmp_path, error_file=tmp_path / "absent" / "e.log"), stream=1)
    assert logging.getLogger().handlers == before


def test_a_full_queue_refuses_and_counts() -> None:
    records = RecordQueue(1)
    record = logging.LogRecord("x", 20, "f", 1, "m", None, None)
    records.put_nowait(record)
    with pytest.raises(queue.Full):
        records.put_nowait(record)
    assert records.dropped == 1
    assert records.take_all(0) == [record]
    records.close()
    assert records.take_all(0) is None


CONNECTED = AccessRecord("a:1", "b:2", "mapping", "c:3", "d:4", encrypted=True, attested=True)


def test_an_access_record_becomes_a_line_where_the_log_is_written(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    with configure_logging(LogOptions(file=path)):
        log_access(CONNECTED)
    (line,) = path.read_text().splitlines()
    assert line.endswith(f"Z  INFO tng.access: {CONNECTED}")


def test_an_access_record_is_json_where_lines_are(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    with configure_logging(LogOptions(file=path, format=LogFormat.JSON)):
        log_access(CONNECTED)
    record = json.loads(path.read_text())
    assert record["fields"] == {"message": str(CONNECTED)}
    assert (record["level"], record["target"]) == ("INFO", "tng.access")


def test_a_failed_connection_goes_to_the_file_of_errors(tmp_path: pathlib.Path) -> None:
    log, errors = tmp_path / "log", tmp_path / "errors"
    with configure_logging(LogOptions(file=log, error_file=errors)):
        log_access(AccessRecord("a:1", "b:2", "mapping"))
        log_access(CONNECTED)
    assert "accepted only" in errors.read_text()
    assert "accepted only" not in log.read_text()


def test_access_records_obey_the_level_of_their_logger(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    with configure_logging(LogOptions(file=path, levels="info,tng.access=error")):
        log_access(CONNECTED)
    assert path.read_text() == ""


def test_after_the_session_access_records_go_to_logging_again(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    with configure_logging(LogOptions(file=tmp_path / "log")):
        pass
    with caplog.at_level(logging.INFO):
        log_access(CONNECTED)
    assert str(CONNECTED) in caplog.text
