"""Whether a program can be captured: the loader must load a library of ours into it.

In: a command and the environment.  Out: nothing, or the reason why not.  Source: ld.so(8)
(LD_PRELOAD, secure-execution mode), execve(2) (scripts), elf(5).  A program that the loader would
run without the library is refused here: it would speak in plain to whom it should not.

What a program starts later is captured by its environment; nobody looks at it as this does.
"""

from __future__ import annotations

import os
import pathlib
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from tng.errors import StartError

_MAX_SCRIPTS: Final = 5
"""A script's interpreter may be a script, as often as Linux allows it."""

_MAX_FIRST_LINE: Final = 256  # BINPRM_BUF_SIZE
_MAX_SEGMENTS: Final = 1024
_MAX_NOTES: Final = 1 << 16

_PT_INTERP: Final = 3
_PT_NOTE: Final = 4
_GO_BUILD_ID: Final = struct.pack("<I", 4) + b"Go\0\0"
"""Type and name of the note in every program that Go's linker has made."""

_WAYS: Final = "use an http_proxy, mapping, socks5 or netfilter entry with `tng launch` for it"


class _Layout(NamedTuple):
    """Where things are in an ELF file of one class."""

    segments: tuple[int, str]
    counts: int
    file_part: tuple[int, int, str]


_LAYOUTS: Final = {
    1: _Layout((28, "I"), 42, (4, 16, "I")),
    2: _Layout((32, "Q"), 54, (8, 32, "Q")),
}
"""Offset and form of e_phoff; offset of e_phentsize; offsets and form of p_offset and p_filesz."""


@dataclass(frozen=True, slots=True)
class Elf:
    """What the loader's behaviour depends on.

    Attributes:
        machine: class, byte order and instruction set.
        has_loader: whether a dynamic loader is asked for (PT_INTERP).
        is_go: whether Go made it: it asks the kernel without libc.
    """

    machine: tuple[int, int, int]
    has_loader: bool
    is_go: bool


def find_program(word: str, environment: Mapping[str, str]) -> pathlib.Path:
    """The file that a command starts.

    Raises:
        StartError: there is none.
    """
    import shutil  # takes a while, and no other command needs it

    found = shutil.which(word, path=environment.get("PATH", os.defpath))
    if found is None:
        raise StartError(f"cannot run {word!r}: not found in PATH, or not executable")
    return pathlib.Path(found)


def check_reach(
    program: pathlib.Path,
    library: pathlib.Path,
    environment: Mapping[str, str],
    ids: tuple[int, int] | None = None,
) -> None:
    """Refuse a program that would run without the library.

    Args:
        program: the file that is started; of a script, the interpreter is looked at.
        library: what is to be preloaded.
        environment: whose PATH `#!/usr/bin/env` uses.
        ids: effective user and group that start it; absent: ours.

    Raises:
        StartError: says what the program is, and what to do.
    """
    for file in _started(program, environment):
        program = file
    _refuse_privileged(program, *(ids or (os.geteuid(), os.getegid())))
    elf, ours = _read(program), _read(library)
    if ours is None:
        raise StartError(f"{library} is not a shared library (ELF)")
    if elf is None:
        return  # the system will say what it thinks of it
    if elf.machine != ours.machine:
        raise StartError(f"{program} is for another kind of machine than {library}; {_WAYS}")
    if not elf.has_loader:
        raise StartError(
            f"{program} is statically linked: no library can be loaded into it; {_WAYS}"
        )
    if elf.is_go:
        raise StartError(
            f"{program} is made by Go, whose programs ask the kernel without libc; {_WAYS}"
        )


def _started(program: pathlib.Path, environment: Mapping[str, str]) -> Iterator[pathlib.Path]:
    """The program, its interpreter where it is a script, and so on."""
    for _ in range(_MAX_SCRIPTS):
        yield program
        words = _first_line(program)
        if not words:
            return
        program = pathlib.Path(words[0])
        if program.name == "env":
            rest = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
            program = find_program(rest[0], environment) if rest else program
    yield program


def _first_line(path: pathlib.Path) -> list[str]:
    """The words behind `#!`; none where it is no script."""
    head = _head(path, _MAX_FIRST_LINE)
    if not head.startswith(b"#!"):
        return []
    return head[2:].split(b"\n")[0].decode(errors="replace").split()


def _head(path: pathlib.Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as exc:
        raise StartError(f"cannot read {path}: {exc.strerror}") from exc


def _refuse_privileged(program: pathlib.Path, user: int, group: int) -> None:
    """Programs that gain privileges get no library by environment (AT_SECURE)."""
    try:
        status = program.stat()
    except OSError as exc:
        raise StartError(f"cannot run {program}: {exc.strerror}") from exc
    gains_user = bool(status.st_mode & stat.S_ISUID) and status.st_uid != user
    gains_group = bool(status.st_mode & stat.S_ISGID) and status.st_gid != group
    if gains_user or gains_group or (user != 0 and _has_capabilities(program)):
        raise StartError(
            f"{program} gains privileges when it starts (setuid, setgid or file capabilities): "
            f"the loader takes no library from the environment then; {_WAYS}"
        )


def _has_capabilities(program: pathlib.Path) -> bool:
    try:
        return bool(os.getxattr(program, "security.capability"))
    except OSError:
        return False


def _read(path: pathlib.Path) -> Elf | None:
    """What the file is; None for what is no ELF file, or a broken one."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
            if head[:4] != b"\x7fELF":
                return None
            order = "<" if head[5] == 1 else ">"
            layout = _LAYOUTS[head[4]]
            (machine,) = struct.unpack_from(f"{order}H", head, 18)
            (table,) = struct.unpack_from(order + layout.segments[1], head, layout.segments[0])
            size, count = struct.unpack_from(f"{order}HH", head, layout.counts)
            has_loader = is_go = False
            for index in range(min(count, _MAX_SEGMENTS)):
                file.seek(table + index * size)
                segment = file.read(size)
                (kind,) = struct.unpack_from(f"{order}I", segment)
                has_loader |= kind == _PT_INTERP
                if kind == _PT_NOTE:
                    start, length, form = layout.file_part
                    (offset,) = struct.unpack_from(order + form, segment, start)
                    (octets,) = struct.unpack_from(order + form, segment, length)
                    file.seek(offset)
                    is_go |= _GO_BUILD_ID in file.read(min(octets, _MAX_NOTES))
    except (OSError, KeyError, IndexError, struct.error, OverflowError, ValueError):
        return None
    return Elf((head[4], head[5], machine), has_loader, is_go)
