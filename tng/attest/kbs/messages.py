"""Messages of the key broker's handshake, from the TEE's side.

    POST /kbs/v0/auth     {"version", "tee", "extra-params"}        -> {"nonce", "extra-params"}
    POST /kbs/v0/attest   evidence bound to nonce and key           -> {"token"}
    GET  /kbs/v0/resource/REPOSITORY/TYPE/TAG                       -> JWE
    refusals              {"type": ".../errors/KIND", "detail": ...}

Values in, octets out, and back.  Source: the key broker's protocol, versions 0.1.0 to 0.4.0.

Invariant: an answer is read within its limits or is a ValueError.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from tng.attest.jws import MAX_TOKEN
from tng.attest.kbs.binding import COMPOSITE
from tng.attest.strict_json import parse_object

if TYPE_CHECKING:
    from tng.attest.strict_json import Json

_MAX_NONCE: Final = 1024  # characters; 44 in practice
_MAX_WORDS: Final = 500  # of a refusal that a message repeats


def auth_body(version: str, tee: str) -> bytes:
    """The first request.

    Args:
        version: of the handshake.
        tee: name of our TEE.
    """
    return _dump({"version": version, "tee": tee, "extra-params": {}})


def attest_body(version: str, nonce: str, tee_key: Json, evidence: bytes) -> bytes:
    """The second request, for a TEE without further devices.

    Args:
        version: of the handshake.
        nonce: as the broker sent it.
        tee_key: JWK of our key.
        evidence: JSON.

    Raises:
        ValueError: the evidence is no JSON object.
    """
    parsed = parse_object(evidence)
    if version != COMPOSITE:
        return _dump({"tee-pubkey": tee_key, "tee-evidence": parsed})
    return _dump(
        {
            "init-data": None,
            "runtime-data": {"nonce": nonce, "tee-pubkey": tee_key},
            "tee-evidence": {"primary_evidence": parsed, "additional_evidence": ""},
        }
    )


def parse_nonce(body: bytes) -> str:
    """The nonce in the first answer.

    Raises:
        ValueError: there is none, or it is too long.
    """
    return _text(body, "nonce", _MAX_NONCE)


def parse_token(body: bytes) -> str:
    """The token in the second answer, unchecked: it is the broker's own business.

    Raises:
        ValueError: there is none, or it is too long.
    """
    return _text(body, "token", MAX_TOKEN)


def refusal_words(body: bytes) -> str:
    """What a refusal says, bounded, on one line."""
    try:
        members = parse_object(body)
        kind = str(members.get("type", "")).rpartition("/")[2]
        words = f"{kind}: {members['detail']}" if "detail" in members else ""
    except ValueError:
        words = ""
    return repr((words or body.decode("utf-8", "replace"))[:_MAX_WORDS])


def _text(body: bytes, name: str, limit: int) -> str:
    value = parse_object(body).get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= limit:
        raise ValueError(f"expected a text {name!r} of 1 to {limit} characters")
    return value


def _dump(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
