"""Lines reach their file, files roll over, and no disk ends the process."""

from __future__ import annotations

import os
import pathlib

import pytest

from tng.errors import StartError
from tng.observe.sinks import DescriptorSink, FileSink

FULL = pathlib.Path("/dev/full")


def test_lines_are_appended_to_what_is_there(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tng.log"
    path.write_text("before\n")
    sink = FileSink(path)
    sink.write_lines(["one", "two"])
    sink.close()
    assert path.read_text() == "before\none\ntwo\n"


def test_a_new_file_is_not_for_everybody(tmp_path: pathlib.Path) -> None:
    FileSink(tmp_path / "tng.log").close()
    assert (tmp_path / "tng.log").stat().st_mode & 0o007 == 0


def test_a_file_rolls_over_by_size_and_keeps_so_many(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tng.log"
    sink = FileSink(path, max_size=10, max_backups=2)
    for number in range(5):
        sink.write_lines([f"line {number}"])
    sink.close()
    assert path.read_text() == "line 4\n"
    assert (tmp_path / "tng.log.1").read_text() == "line 3\n"
    assert (tmp_path / "tng.log.2").read_text() == "line 2\n"
    assert len(list(tmp_path.iterdir())) == 3


def test_no_backups_means_starting_over(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tng.log"
    sink = FileSink(path, max_size=10, max_backups=0)
    for number in range(3):
        sink.write_lines([f"line {number}"])
    sink.close()
    assert path.read_text() == "line 2\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_already_is_too_large_rolls_first(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tng.log"
    path.write_text("x" * 50)
    sink = FileSink(path, max_size=10, max_backups=1)
    sink.write_lines(["new"])
    sink.close()
    assert path.read_text() == "new\n"
    assert (tmp_path / "tng.log.1").read_text() == "x" * 50


def test_a_file_that_cannot_be_opened_is_a_start_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(StartError, match=r"absent/tng\.log"):
        FileSink(tmp_path / "absent" / "tng.log")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_reported_once_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    sink = FileSink(FULL)
    sink.write_lines(["one"])
    sink.write_lines(["two", "three"])
    sink.close()
    assert sink.lost == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "/dev/full" in told


def test_a_reader_that_went_away_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    sink = DescriptorSink(writer, "standard output")
    sink.write_lines(["one"])
    sink.close()
    os.close(writer)
    assert sink.lost == 1
    assert "standard output" in capsys.readouterr().err


def test_text_that_has_no_encoding_is_still_written(tmp_path: pathlib.Path) -> None:
    sink = FileSink(tmp_path / "tng.log")
    sink.write_lines(["lone \udcff surrogate"])
    sink.close()
    assert (tmp_path / "tng.log").read_text() == "lone \\udcff surrogate\n"
