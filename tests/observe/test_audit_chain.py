"""Lines that vouch for those before them: every way to spoil a log is found where it begins."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.observe.audit_chain import (
    MAX_LINE,
    START,
    examine,
    is_object,
    parse_line,
    seal,
    torn_record,
)


def chain(count: int, begin: int = 1, previous: str = START) -> list[bytes]:
    lines = []
    for number in range(begin, begin + count):
        line, previous = seal(
            {"kind": "judgement", "n": number, "text": "ü\u2028"}, number, previous
        )
        lines.append(line)
    return lines


def fault(*files: list[bytes]) -> tuple[str, int, int]:
    problem = examine(files).problem
    assert problem is not None
    return problem.kind, problem.file, problem.line


def test_a_chain_holds_and_its_head_is_that_of_the_last_line() -> None:
    found = examine([chain(5)])
    assert (found.problem, found.records, found.first, found.last) == (None, 5, 1, 5)
    assert found.head == json.loads(chain(5)[-1])["chain"]


def test_the_digest_is_the_one_in_the_documentation() -> None:
    line, digest = seal({"kind": "x"}, 7, "ab" * 32)
    record = b'{"kind":"x"}'
    expected = hashlib.sha256(
        b"tng audit 1\0" + bytes.fromhex("ab" * 32) + (7).to_bytes(8, "big") + record
    ).hexdigest()
    assert digest == expected
    assert line == (
        b'{"chain":"%s","previous":"%s","record":{"kind":"x"},"sequence":7}\n'
        % (expected.encode(), b"ab" * 32)
    )


def test_a_log_without_lines_is_no_fault() -> None:
    assert examine([[]]).head == START
    assert examine([[], chain(2)]).problem is None


@given(st.integers(0, 4), st.data())
def test_any_altered_octet_is_found_in_its_line(where: int, data: st.DataObject) -> None:
    lines = chain(5)
    at = data.draw(st.integers(0, len(lines[where]) - 2))
    octet = data.draw(st.integers(0, 255).filter(lambda value: value != lines[where][at]))
    line = bytearray(lines[where])
    line[at] = octet
    spoiled = b"".join([*lines[:where], bytes(line), *lines[where + 1 :]])
    problem = examine(
        [spoiled.splitlines(keepends=True) if octet != 13 else split(spoiled)]
    ).problem
    assert problem is not None
    assert problem.line == where + 1
    assert problem.kind == "altered"


def split(octets: bytes) -> list[bytes]:
    return [part + b"\n" for part in octets.split(b"\n")[:-1]]


def test_a_record_that_was_rewritten_with_a_fitting_digest_breaks_the_next_line() -> None:
    lines = chain(4)
    lines[1] = seal({"kind": "judgement", "n": 99}, 2, json.loads(lines[0])["chain"])[0]
    assert fault(lines) == ("altered", 0, 3)


def test_a_missing_line_is_named_where_it_is_missed() -> None:
    lines = chain(5)
    assert fault(lines[:2] + lines[3:]) == ("missing", 0, 3)


def test_a_moved_line_is_called_moved_and_where_it_is_now() -> None:
    lines = chain(5)
    moved = [lines[0], lines[2], lines[1], *lines[3:]]
    problem = examine([moved]).problem
    assert problem is not None
    assert (problem.kind, problem.line) == ("reordered", 2)
    assert "it is line 3" in problem.detail


def test_a_repeated_line_is_found() -> None:
    lines = chain(3)
    assert fault([*lines, lines[1]]) == ("reordered", 0, 4)


def test_missing_lines_at_the_end_are_found_by_a_digest_that_was_kept() -> None:
    lines = chain(4)
    head = json.loads(lines[-1])["chain"]
    assert examine([lines], head).problem is None
    assert examine([[*lines, *chain(1, 5, head)]], head).problem is None
    problem = examine([lines[:3]], head).problem
    assert problem is not None
    assert (problem.kind, problem.line) == ("head", 0)


def test_files_of_one_chain_are_checked_as_one() -> None:
    lines = chain(6)
    assert examine([lines[:2], lines[2:4], lines[4:]]).records == 6
    assert fault(lines[:2], lines[3:]) == ("missing", 1, 1)
    assert fault(lines[2:], lines[:2]) == ("reordered", 1, 1)


def test_a_log_that_does_not_begin_at_the_beginning_says_so() -> None:
    found = examine([chain(6)[3:]])
    assert (found.problem, found.first, found.records) == (None, 4, 3)
    assert "3 older ones" in found.remarks[0]


def test_a_first_record_that_follows_something_is_altered() -> None:
    assert fault([seal({"kind": "x"}, 1, "ab" * 32)[0]]) == ("altered", 0, 1)


def test_what_is_left_of_a_torn_line_is_fine_once_it_is_closed_off() -> None:
    lines = chain(2)
    rest = b'{"chain":"0123\n'
    closing, head = seal(torn_record(rest, 5.0), 3, json.loads(lines[-1])["chain"])
    more = chain(1, 4, head)
    found = examine([[*lines, rest, closing, *more]])
    assert found.problem is None
    assert found.records == 4
    assert "line 3: torn line of 15 octets" in found.remarks[0]
    assert fault([*lines, b'{"chain":"0124\n', closing]) == ("altered", 0, 3)
    assert fault([*lines, rest, *chain(1, 3, json.loads(lines[-1])["chain"])]) == ("altered", 0, 3)


def test_a_last_line_without_its_end_is_called_torn() -> None:
    assert fault([*chain(2), b'{"chain":']) == ("torn", 0, 3)
    assert fault([*chain(2), b"garbage\n"]) == ("altered", 0, 3)


def test_a_torn_line_never_excuses_a_whole_record() -> None:
    lines = chain(3)
    altered = lines[1].replace(b'"n":2', b'"n":3')
    closing, _ = seal(torn_record(altered, 5.0), 2, json.loads(lines[0])["chain"])
    assert fault([lines[0], altered, closing]) == ("altered", 0, 2)


def test_endless_octets_are_given_up_on() -> None:
    assert fault([*chain(1), b"x" * MAX_LINE, b"x" * MAX_LINE, b"x" * MAX_LINE])[0] == "altered"


@given(st.binary(max_size=200))
def test_garbage_is_no_line(octets: bytes) -> None:
    assert parse_line(octets) is None
    examine([octets.splitlines(keepends=True)])


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": True},
        {"sequence": 0},
        {"sequence": "1"},
        {"sequence": 1 << 70},
        {"record": []},
        {"previous": "AB" * 32},
        {"previous": 5},
        {"chain": "00"},
        {"record": {"x": float("nan")}},
        {"more": 1},
    ],
)
def test_a_line_of_another_form_is_no_line(change: dict[str, object]) -> None:
    line = json.loads(chain(1)[0])
    text = json.dumps({**line, **change}, sort_keys=True, separators=(",", ":"))
    assert parse_line(text.encode()) is None
    assert parse_line(chain(1)[0][:-1]) is not None


def test_deep_or_large_octets_are_no_object() -> None:
    assert not is_object(b"[" * 100_000)
    assert not is_object(b'{"a":"' + b"x" * MAX_LINE + b'"}')
    assert is_object(b"{}")
