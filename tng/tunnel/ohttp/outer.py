"""The outer side of an encapsulated request: where it goes, and what an observer sees of it.

In: the inner path and header fields.  Out: the outer path, the outer fields, and which fields of
an outer message are copied into an inner one.  Source: spec of the OHTTP transport, sections 2.1,
4.1 and 4.2.

Invariant: no inner field is shown on the outside unless the operator named it, or wrote "all".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

import re2

from tng import __version__
from tng.config.ohttp import HeaderPassthrough, PathRewrite
from tng.wire.http1_head import Fields

USER_AGENT: Final = f"tng-gateway/{__version__}".encode()
"""What we call ourselves on the outside."""

API_FIELD: Final = b"x-tng-ohttp-api"
"""The field that alone decides what an egress does with a request."""

REQUEST_TYPE: Final = b"message/ohttp-chunked-req"
RESPONSE_TYPE: Final = b"message/ohttp-chunked-res"

_NEVER_COPIED: Final = frozenset(
    {
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"server",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        API_FIELD,
    }
)
"""Fields that belong to one message or one hop."""

_OLD_GROUP: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\(\d+)")
"""A group in the older way, `\\1`, unless its backslash is itself written with one."""

_GROUP: Final = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))", re.ASCII)


class OuterPath:
    """Makes outer paths of inner ones.

    Args:
        rewrites: the first that matches the whole path counts.
        default: where none does: "/" for "root", else the inner path.
    """

    def __init__(
        self, rewrites: Sequence[PathRewrite], default: Literal["root", "original"]
    ) -> None:
        self._rules = [
            (re2.compile(f"^(?:{rule.match_regex})$"), _read_template(rule.substitution))
            for rule in rewrites
        ]
        self._keeps_path = default == "original"

    def of(self, target: bytes) -> bytes:
        """The outer path for a request target in origin-form."""
        if not self._rules and not self._keeps_path:
            return b"/"
        path = target.partition(b"?")[0].decode("latin-1")
        for pattern, template in self._rules:
            if (found := pattern.match(path)) is not None:
                outer = _fill(template, found)
                return _visible(outer if outer.startswith("/") else "/" + outer)
        return _visible(path) if self._keeps_path and path.startswith("/") else b"/"


class Passthrough:
    """Which header fields are copied between the inside and the outside.

    Args:
        config: as written; None for none.
    """

    def __init__(self, config: HeaderPassthrough | None) -> None:
        self._request = _names(config.request_headers if config else [])
        self._response = _names(config.response_headers if config else [])

    def of_request(self, fields: Fields) -> Fields:
        """Fields of a request, inner or outer, that are copied to the other one."""
        return _chosen(self._request, fields)

    def of_response(self, fields: Fields) -> Fields:
        """Fields of a response, inner or outer, that are copied to the other one."""
        return _chosen(self._response, fields)


def overwrite(fields: Fields, copied: Fields) -> Fields:
    """`fields`, in which the copied ones have taken the place of those with their names."""
    if not copied:
        return fields
    last = dict(copied)
    return [field for field in fields if field[0] not in last] + list(last.items())


def _names(configured: list[str] | Literal["all"]) -> frozenset[bytes] | None:
    if configured == "all":
        return None
    return frozenset(name.lower().encode("ascii") for name in configured) - _NEVER_COPIED


def _chosen(names: frozenset[bytes] | None, fields: Fields) -> Fields:
    if names is None:
        return [field for field in fields if field[0] not in _NEVER_COPIED]
    return [field for field in fields if field[0] in names] if names else []


def _read_template(substitution: str) -> str:
    return _OLD_GROUP.sub(r"\1${\2}", substitution)


def _fill(template: str, found: re.Match[str]) -> str:
    """The template with the groups in their places; a group that is not there is empty."""

    def group(reference: re.Match[str]) -> str:
        if reference[1]:
            return "$"
        name = reference[2] or reference[3]
        try:
            return found.group(int(name) if name.isdigit() else name) or ""
        except (IndexError, KeyError):
            return ""

    return _GROUP.sub(group, template)


def _visible(path: str) -> bytes:
    """A path as a request target may hold it: what is not visible ASCII is percent-encoded."""
    return b"".join(
        bytes([octet]) if 0x21 <= octet <= 0x7E and octet not in b"?#" else b"%%%02X" % octet
        for octet in path.encode("latin-1", "replace")
    )
