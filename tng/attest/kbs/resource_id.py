"""The name of a secret at a key broker: `kbs:///REPOSITORY/TYPE/TAG`.

Text in, a `ResourceId` out, and back.  Source: resource URIs of the Confidential Containers key
broker.  Stricter on purpose: no host, no query, and at most 64 characters per segment.

Invariant: a segment is a plain file name: it has no slash, is neither `.` nor `..`, and does not
begin with a dot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

SCHEME: Final = "kbs:///"
"""What a URI begins with; the broker's address is never part of it."""

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, order=True)
class ResourceId:
    """One name.  Made by `parse_resource_uri` or `make_resource_id`.

    Attributes:
        repository: first segment, e.g. "default".
        kind: second segment, e.g. "aliyun".
        tag: third segment, e.g. "model-decryption-key".
    """

    repository: str
    kind: str
    tag: str

    def __str__(self) -> str:
        return SCHEME + self.path

    @property
    def path(self) -> str:
        """The three segments with slashes between them."""
        return f"{self.repository}/{self.kind}/{self.tag}"


def parse_resource_uri(text: str) -> ResourceId:
    """Read `kbs:///a/b/c`.

    Raises:
        ValueError: another scheme, a host, or other segments than a name has.
    """
    if not text.startswith(SCHEME):
        raise ValueError(f"expected {SCHEME}REPOSITORY/TYPE/TAG, got {text[:200]!r}")
    return parse_resource_path(text.removeprefix(SCHEME))


def parse_resource_path(text: str) -> ResourceId:
    """Read `a/b/c`.

    Raises:
        ValueError: not three segments of a name.
    """
    segments = text.split("/")
    if len(segments) != 3:
        raise ValueError(f"expected REPOSITORY/TYPE/TAG, got {text[:200]!r}")
    return make_resource_id(*segments)


def make_resource_id(repository: str, kind: str, tag: str) -> ResourceId:
    """Put three segments together.

    Raises:
        ValueError: a segment is not 1 to 64 letters, digits, '_', '-' or (not first) '.'.
    """
    for segment in (repository, kind, tag):
        if not _SEGMENT.fullmatch(segment):
            raise ValueError(
                "expected segments of 1 to 64 letters, digits, '_', '-' and, not first, '.';"
                f" got {segment[:80]!r}"
            )
    return ResourceId(repository, kind, tag)
