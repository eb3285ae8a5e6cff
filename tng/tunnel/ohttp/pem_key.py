"""A private key for HPKE in a file: PKCS#8 PEM (RFC 5958, RFC 7468) with an X25519 key (RFC 8410).

A path in, the key and the file's permissions out.  A file that is no such key, is no plain file, or
is longer than any, gives `UnusableFileError`; no message repeats what the file holds.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tng.errors import ErrorCode, TngError

MAX_FILE: Final = 16_384
"""Octets of a file that is read here: such a key has 120, a list of 256 peers mostly less."""

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class UnusableFileError(TngError):
    """A file cannot be read, or holds something else; the text says which, and no content."""

    code = ErrorCode.CONFIG_INVALID


@dataclass(frozen=True, slots=True)
class ReadFile:
    """What was in a file.

    Attributes:
        content: at most `MAX_FILE` octets; maybe secret, so in no repr.
        is_private: whether nobody but its owner has rights to it.
    """

    content: bytes = field(repr=False)
    is_private: bool


def read_small_file(path: str) -> ReadFile:
    """The content of a plain file; symbolic links are followed anew each time.

    Raises:
        UnusableFileError: it cannot be read, is no plain file, or is longer than `MAX_FILE`.
    """
    try:
        # A named pipe without a writer would hold us up; with this flag it is opened, and refused.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(number, "rb") as file:
            about = os.fstat(number)
            if not stat.S_ISREG(about.st_mode):
                raise UnusableFileError("it is no plain file")
            content = file.read(MAX_FILE + 1)
    except OSError as exc:
        raise UnusableFileError(exc.strerror or type(exc).__name__) from exc
    if len(content) > MAX_FILE:
        raise UnusableFileError(f"it has more than {MAX_FILE} octets")
    return ReadFile(content, not about.st_mode & _OTHERS)


def parse_private_key(content: bytes) -> X25519PrivateKey:
    """The key in a PEM text.

    Raises:
        UnusableFileError: it is no PKCS#8 PEM with an X25519 key that is not encrypted.
    """
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        # Without the cause: what another library says about a secret is not ours to pass on.
        raise UnusableFileError(
            f"expected a PKCS#8 PEM private key without a password ({type(exc).__name__})"
        ) from None
    if not isinstance(key, X25519PrivateKey):
        raise UnusableFileError("expected an X25519 private key, got one of another kind")
    return key
