"""Files that hold secrets: private to one user, replaced whole.

Directories are 0700 and files 0600.  A file is written beside, flushed, renamed, and the directory
flushed, so that a crash at any moment leaves the old text or the new one.

Invariant: what was read here could be read, and its directory be written, by nobody else; what
could is refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from typing import TYPE_CHECKING, Final

from tng.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE: Final = 1_048_576
"""Octets that are read of one file; a policy has at most 256 KiB, a sealed secret 512 KiB."""

FILE_MODE: Final = 0o600
"""Mode of every file."""

_DIRECTORY_MODE: Final = 0o700
_DRAFT: Final = re.compile(r"\..*\.[0-9a-f]{16}", re.DOTALL)


def make_private_directory(path: Path, *, parents: bool = False) -> None:
    """Make a directory if it is missing, and check it.

    Raises:
        StartError: it is not ours, or others can write to it.
        OSError: the file system says no.
    """
    path.mkdir(mode=_DIRECTORY_MODE, parents=parents, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise StartError(f"{path}: expected a directory of the user who runs tng")
    if status.st_mode & 0o022:
        # Whoever can write here may have put a key of his own in place.
        raise StartError(
            f"{path}: mode is {stat.S_IMODE(status.st_mode):04o}, other users can write to it;"
            " expected 0700: name a new directory"
        )
    path.chmod(_DIRECTORY_MODE)


def read_private(path: Path) -> bytes | None:
    """Octets of a file; None where there is none.

    Raises:
        StartError: it is not ours alone, longer than `MAX_FILE`, or the file system says no.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StartError(f"{path}: {exc.strerror}") from exc
    with os.fdopen(descriptor, "rb") as file:
        check_private(descriptor, path)
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise StartError(f"{path}: larger than {MAX_FILE} octets")
    return data


def check_private(descriptor: int, path: Path) -> None:
    """Return if an open file is ours and nobody else's.

    Raises:
        StartError: it is not.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise StartError(f"{path}: expected a regular file of the user who runs tng")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise StartError(
            f"{path}: mode is {stat.S_IMODE(status.st_mode):04o}, expected 0600;"
            " other users may know this secret: delete the file to get a new one"
        )


def replace_private(path: Path, data: bytes) -> None:
    """Write a file, or put a new one in its place.

    Raises:
        StartError: the file system says no; the old file is still there.
    """
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
        _flush_directory(path.parent)
    except OSError as exc:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise StartError(f"{path}: cannot be written: {exc.strerror}") from exc


def remove_private(path: Path) -> None:
    """Forget a file; one that is not there is forgotten already.

    Raises:
        StartError: the file system says no.
    """
    try:
        path.unlink(missing_ok=True)
        _flush_directory(path.parent)
    except OSError as exc:
        raise StartError(f"{path}: {exc.strerror}") from exc


def remove_drafts(directory: Path) -> None:
    """Remove what a crash left half-written; nobody else may be writing here.

    Raises:
        OSError: the file system says no.
    """
    for path in directory.iterdir():
        if _DRAFT.fullmatch(path.name):
            path.unlink()


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
