"""Files that tools write: results that anybody may read, and secrets for their user alone.

Octets and a path in.  Invariant: a secret is never in a file that others can open, not for a
moment, and never behind a link.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tng.errors import StartError


def write(path: Path, data: bytes | str) -> None:
    """Write a file, in place of what was there.

    Raises:
        StartError: it cannot be written.
    """
    try:
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    except OSError as exc:
        raise StartError(f"{str(path)!r} cannot be written: {exc.strerror}") from exc


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its user can read, mode 0600.

    Raises:
        StartError: it cannot be written, or is a link.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # before the first octet: an old file may be open to all
            file.truncate()
            file.write(data)
    except OSError as exc:
        raise StartError(f"{str(path)!r} cannot be written: {exc.strerror}") from exc


def make_folder(path: Path) -> None:
    """Make a folder for results, and those above it, if they are missing.

    Raises:
        StartError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StartError(f"{str(path)!r} cannot be made: {exc.strerror}") from exc


def pretty(value: object) -> str:
    """JSON as the reference's tools write it: two spaces, members as they came, no newline."""
    return json.dumps(value, indent=2, ensure_ascii=False)
