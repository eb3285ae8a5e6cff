"""The first step of the key broker's handshake, as a probe of a deployment uses it.

`POST /kbs/v0/auth` (Key Broker Service protocol, RCAR) is answered with a nonce and a session
cookie. No session is kept and no key is released: the rest of the protocol is not available in
this version.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from typing import Final

from tng.trustee.dialects import parse_tee
from tng.trustee.json_body import invalid, parse_body, refuse_unknown, text_member

SESSION_COOKIE: Final = "kbs-session-id"
"""Name of the cookie."""

SESSION_LIFETIME_S: Final = 300
"""Seconds after which the cookie is no longer sent."""

_VERSIONS: Final = ("0.1.0", "0.1.1", "0.2.0", "0.3.0", "0.4.0")
_NONCE_OCTETS: Final = 32


@dataclass(frozen=True, slots=True)
class Authentication:
    """Answer to the first step.

    Attributes:
        body: JSON with a fresh nonce.
        session_id: 32 hexadecimal digits.
    """

    body: bytes
    session_id: str


def answer_auth(body: bytes) -> Authentication:
    """Answer `POST /kbs/v0/auth`.

    Args:
        body: `{"version", "tee", "extra-params"}`; any JSON as extra parameters.

    Raises:
        TrusteeRequestError: not such a request, or a version that we do not know (400).
    """
    members = parse_body(body)
    refuse_unknown(members, frozenset({"version", "tee", "extra-params"}), "")
    version = text_member(members, "version")
    if version not in _VERSIONS:
        raise invalid(f"expected one of {', '.join(_VERSIONS)}, got {version[:40]!r}", "version")
    parse_tee(text_member(members, "tee"), "tee")
    nonce = base64.b64encode(secrets.token_bytes(_NONCE_OCTETS)).decode("ascii")
    answer = json.dumps({"nonce": nonce, "extra-params": ""}, separators=(",", ":"))
    return Authentication(answer.encode("ascii"), secrets.token_hex(16))
