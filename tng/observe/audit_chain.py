"""Lines of an audit log, each of which vouches for all lines before it.

A record and the digest of the line before in, a line out; lines in, the first one that is not what
was written out.  One line is one JSON object in canonical form (members sorted, no spaces, ASCII):

    {"chain": HEX, "previous": HEX, "record": {...}, "sequence": N}
    chain = SHA-256("tng audit 1" NUL, previous as 32 octets, N as 8 octets, canonical record)

The first line of all has sequence 1 and 64 zeros as `previous`.  What is left of a line that was
being written when the writer was killed is closed off by the next line: a record of kind `torn`
that has its length and SHA-256.

Invariant: of a chain whose last digest is known, no line can be altered, removed, added or moved
without `examine` naming a line at or before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
"""A JSON value."""
Record: TypeAlias = Mapping[str, Json]
"""What one line says; `kind` says of what."""

START: Final = "0" * 64
"""`previous` of the first line of a chain."""

MAX_LINE: Final = 1 << 20
"""Octets of a line; a verdict of eight `verify` sections with every detail at its limit fits."""

TORN: Final = "torn"
"""Kind of the record that closes off what is left of a line."""

_MEMBERS: Final = {"chain", "previous", "record", "sequence"}
_DOMAIN: Final = b"tng audit 1\0"
_MAX_SEQUENCE: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is what was written, seen by itself.

    Attributes:
        sequence: from 1.
        previous: digest of the line before, 64 hexadecimal digits.
        chain: digest of this one.
        record: what it says.
    """

    sequence: int
    previous: str
    chain: str
    record: Record


@dataclass(frozen=True, slots=True)
class Problem:
    """The first place where a log is not what was written.

    Attributes:
        file: position in the list of files, from 0.
        line: number of the line in that file, from 1; 0 if no line is at fault.
        kind: "altered", "missing", "reordered", "torn" or "head".
        detail: what was expected and what was seen.
    """

    file: int
    line: int
    kind: str
    detail: str


@dataclass(slots=True)
class Examined:
    """What was found in a log.

    Attributes:
        records: lines that hold, up to the problem.
        first: number of the first of them; 0 if there is none.
        last: number of the last of them.
        head: digest of the last of them; `START` if there is none.
        problem: the first fault; None if there is none.
        remarks: what is no fault and should be known.
    """

    records: int = 0
    first: int = 0
    last: int = 0
    head: str = START
    problem: Problem | None = None
    remarks: list[str] = field(default_factory=list)


def seal(record: Record, sequence: int, previous: str) -> tuple[bytes, str]:
    """A line with its newline, and its digest.

    Args:
        record: what to say; no NaN, no infinity.
        sequence: one more than that of the line before.
        previous: digest of the line before.
    """
    chain = _digest(_canonical(record), sequence, previous)
    line = {"chain": chain, "previous": previous, "record": record, "sequence": sequence}
    return _canonical(line) + b"\n", chain


def parse_line(octets: bytes) -> Line | None:
    """The line, if these octets without newline are exactly what `seal` makes; else None."""
    parsed = _object(octets)
    if parsed is None or set(parsed) != _MEMBERS:
        return None
    sequence, previous, chain = parsed["sequence"], parsed["previous"], parsed["chain"]
    record = parsed["record"]
    if isinstance(sequence, bool) or not isinstance(sequence, int) or not isinstance(record, dict):
        return None
    if not 1 <= sequence <= _MAX_SEQUENCE or not (_is_digest(previous) and _is_digest(chain)):
        return None
    try:
        line, expected = seal(record, sequence, str(previous))
    except ValueError:  # a number that is none
        return None
    is_same = chain == expected and line[:-1] == octets
    return Line(sequence, str(previous), expected, record) if is_same else None


def is_object(octets: bytes) -> bool:
    """Whether these octets are a whole JSON object, which no torn line is."""
    return _object(octets) is not None


def torn_record(octets: bytes, at: float) -> Record:
    """The record that closes off octets that are no line; a newline is counted with them.

    Args:
        octets: all of them after the last line, with every newline.
        at: Unix time, seconds.
    """
    return {
        "kind": TORN,
        "at": at,
        "octets": len(octets),
        "sha256": hashlib.sha256(octets).hexdigest(),
    }


def examine(files: Iterable[Iterable[bytes]], head: str | None = None) -> Examined:
    """Check a log that may lie in several files, the oldest first.

    Args:
        files: of each, its lines with their newlines; no line longer than `MAX_LINE` + 1.
        head: digest that a line must have, in lower case; None for any.
    """
    examination = _Examination(head)
    for number, lines in enumerate(files):
        for where, octets in enumerate(lines, 1):
            examination.take(number, where, octets)
    return examination.result()


class _Examination:
    """Takes lines until the first fault; after a gap it only looks for the line that is missed."""

    def __init__(self, head: str | None) -> None:
        self._found = Examined()
        self._wanted = head
        self._is_first = True
        self._rest: list[bytes] = []  # octets that are no line, until they are closed off
        self._rest_at = (0, 0)
        self._missed = 0

    def take(self, file: int, where: int, octets: bytes) -> None:
        line = parse_line(octets.removesuffix(b"\n")) if octets.endswith(b"\n") else None
        if self._found.problem is not None:
            self._look_for_missed(line, file, where)
        elif line is None:
            self._keep(file, where, octets)
        else:
            self._link(file, where, line)

    def result(self) -> Examined:
        if self._rest and self._found.problem is None:
            octets = b"".join(self._rest)
            kind = "altered" if octets.endswith(b"\n") else "torn"
            self._fail(self._rest_at, kind, _words(octets))
        if self._wanted not in {None, START} and self._found.problem is None:
            self._fail((-1, 0), "head", f"no line has the digest {self._wanted}: lines are missing")
        return self._found

    def _keep(self, file: int, where: int, octets: bytes) -> None:
        """Hold on to octets that are no line: the next line may close them off."""
        if not self._rest:
            self._rest_at = (file, where)
        whole = octets.removesuffix(b"\n")
        self._rest.append(octets)
        if is_object(whole) or sum(map(len, self._rest)) > 2 * MAX_LINE:
            self._fail((file, where), "altered", _words(octets))

    def _link(self, file: int, where: int, line: Line) -> None:
        found = self._found
        if self._rest and not self._closes(line):
            self._fail(self._rest_at, "altered", _words(b"".join(self._rest)))
            return
        expected = found.last + 1
        if self._is_first:
            if line.sequence > 1:
                found.remarks.append(
                    f"begins at record {line.sequence}: {line.sequence - 1} older ones are not here"
                )
            elif line.previous != START:
                self._fail((file, where), "altered", "record 1 does not begin a chain")
                return
            found.first = line.sequence
        elif line.sequence != expected:
            self._gap(file, where, line.sequence, expected)
            return
        elif line.previous != found.head:
            detail = (
                f"record {line.sequence} follows {line.previous[:16]}..., "
                f"the line before it is {found.head[:16]}..."
            )
            self._fail((file, where), "altered", detail)
            return
        self._accept(line)

    def _accept(self, line: Line) -> None:
        found = self._found
        self._is_first = False
        if self._rest:
            found.remarks.append(
                f"{self._words_of_place()}: torn line of {sum(map(len, self._rest))} octets, "
                f"closed off by record {line.sequence}"
            )
            self._rest = []
        found.records += 1
        found.last, found.head = line.sequence, line.chain
        if line.chain == self._wanted:
            self._wanted = None

    def _closes(self, line: Line) -> bool:
        octets = b"".join(self._rest)
        record = line.record
        return (
            record.get("kind") == TORN
            and record.get("octets") == len(octets)
            and record.get("sha256") == hashlib.sha256(octets).hexdigest()
        )

    def _gap(self, file: int, where: int, sequence: int, expected: int) -> None:
        detail = f"record {sequence} stands where record {expected} belongs"
        if sequence > expected:
            self._missed = expected
            self._fail((file, where), "missing", detail)
        else:
            self._fail((file, where), "reordered", detail)

    def _look_for_missed(self, line: Line | None, file: int, where: int) -> None:
        problem = self._found.problem
        if self._missed and line is not None and line.sequence == self._missed and problem:
            detail = f"{problem.detail}; it is line {where}" + (
                f" of file {file + 1}" if file else ""
            )
            self._missed = 0
            self._found.problem = Problem(problem.file, problem.line, "reordered", detail)

    def _fail(self, at: tuple[int, int], kind: str, detail: str) -> None:
        self._found.problem = Problem(*at, kind, detail)

    def _words_of_place(self) -> str:
        file, line = self._rest_at
        return f"line {line}" + (f" of file {file + 1}" if file else "")


def _digest(record: bytes, sequence: int, previous: str) -> str:
    digest = hashlib.sha256(_DOMAIN + bytes.fromhex(previous) + sequence.to_bytes(8, "big"))
    digest.update(record)
    return digest.hexdigest()


def _canonical(value: Mapping[str, object]) -> bytes:
    text = json.dumps(
        value, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return text.encode("ascii")


def _object(octets: bytes) -> dict[str, Json] | None:
    if len(octets) > MAX_LINE:
        return None
    try:
        value: Json = json.loads(octets)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_digest(value: Json) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _words(octets: bytes) -> str:
    if not octets.endswith(b"\n"):
        return f"{len(octets)} octets without an end of line: cut off, or being written now"
    return "not the line that was written: it is no record, or its digest is another"
