"""The binding between a TLS key and the evidence for it.

A SubjectPublicKeyInfo in, report data for the TEE out (the reference's layout, 2.12.0):

    h           = SHA-256(SubjectPublicKeyInfo)
    claims      = {"pubkey-hash": base64(CBOR [1, h])}
    runtime     = canonical JSON of the claims (RFC 8785)
    report data = SHA-384(runtime), 48 octets; the TEE pads to its own width

Invariant: whoever holds evidence with this report data knows that the TEE vouched for this
very key, and for no other.
"""

from __future__ import annotations

import base64
import decimal
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Final

from tng.errors import ErrorCode, RemoteProtocolError
from tng.wire.dice import HashAlgorithm

PUBKEY_HASH_CLAIM: Final = "pubkey-hash"
"""Name of the claim that carries the hash of the key."""

_CBOR_SHA256_HEAD: Final = bytes.fromhex("82015820")  # array of 2: 1 (SHA-256), byte string of 32
_MAX_EXACT_INTEGER: Final = 2**53  # from here on RFC 8785 numbers (IEEE doubles) have gaps
_MAX_PLAIN_INTEGER: Final = 10**21  # from here on ECMAScript writes an exponent
_MAX_DEPTH: Final = 64  # nested claims; keeps a hostile document from exhausting the stack
_HASHES: Final = {
    HashAlgorithm.SHA256: hashlib.sha256,
    HashAlgorithm.SHA384: hashlib.sha384,
    HashAlgorithm.SHA512: hashlib.sha512,
}


def pubkey_claims(spki_der: bytes) -> dict[str, str]:
    """The claims that name a key.

    Args:
        spki_der: SubjectPublicKeyInfo, DER.

    Returns:
        `{"pubkey-hash": 48 characters of base64}`.
    """
    digest = hashlib.sha256(spki_der).digest()
    return {PUBKEY_HASH_CLAIM: base64.b64encode(_CBOR_SHA256_HEAD + digest).decode("ascii")}


def runtime_data_for(spki_der: bytes) -> str:
    """The canonical text of the claims that name a key (SubjectPublicKeyInfo, DER)."""
    return canonical_json(pubkey_claims(spki_der)).decode("ascii")


def report_data(runtime_data: bytes, algorithm: HashAlgorithm = HashAlgorithm.SHA384) -> bytes:
    """What the TEE signs: 32, 48 or 64 octets, without padding.

    Args:
        runtime_data: the canonical claims.
        algorithm: the reference always emits SHA-384.
    """
    return _HASHES[algorithm](runtime_data).digest()


def canonical_json(value: object) -> bytes:
    """Serialise as RFC 8785 does: keys sorted, no blanks, one spelling for every value.

    Args:
        value: None, bool, int, float, str, and lists and mappings (with text keys) of these.

    Raises:
        RemoteProtocolError: (EVIDENCE_MALFORMED) a value that has no canonical form: an integer
            with more digits than an IEEE double keeps, a number that is not finite, a lone
            surrogate, more than 64 levels.
    """
    parts: list[str] = []
    _write(value, parts, 0)
    try:
        return "".join(parts).encode()
    except UnicodeEncodeError as exc:
        raise _no_form("text with a lone surrogate") from exc


def _write(value: object, parts: list[str], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise _no_form(f"claims nested deeper than {_MAX_DEPTH}")
    match value:
        case None | bool() | str():
            parts.append(json.dumps(value, ensure_ascii=False))
        case int() | float():
            parts.append(_number(value))
        case Mapping():
            _write_object(value, parts, depth)
        case Sequence() if not isinstance(value, bytes):
            parts.append("[")
            for index, item in enumerate(value):
                parts.append("," if index else "")
                _write(item, parts, depth + 1)
            parts.append("]")
        case _:
            raise _no_form(f"a value of type {type(value).__name__}")


def _write_object(value: Mapping[object, object], parts: list[str], depth: int) -> None:
    keys: list[str] = []
    for key in value:
        if not isinstance(key, str):
            raise _no_form(f"a key of type {type(key).__name__}")
        keys.append(key)
    # RFC 8785 section 3.2.3: by UTF-16 code units, which differs from Python's order for some.
    keys.sort(key=lambda key: key.encode("utf-16-be", "surrogatepass"))
    parts.append("{")
    for index, key in enumerate(keys):
        parts.append(("," if index else "") + json.dumps(key, ensure_ascii=False) + ":")
        _write(value[key], parts, depth + 1)
    parts.append("}")


def _number(value: float) -> str:
    """ECMAScript's Number::toString, which RFC 8785 section 3.2.2.3 prescribes."""
    if isinstance(value, int):
        if abs(value) <= _MAX_EXACT_INTEGER:
            return str(value)
        if abs(value) < _MAX_PLAIN_INTEGER and (text := _number(float(value))) == str(value):
            return text
        raise _no_form("an integer with more digits than a number keeps")
    if not math.isfinite(value):
        raise _no_form("a number that is not finite")
    if value == 0:
        return "0"  # also for -0.0
    # repr gives the shortest digits that round-trip, as ECMAScript does; only the layout differs.
    number = decimal.Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(number.exponent, int)  # a letter only for what is not finite
    digits = "".join(map(str, number.digits))
    return "-" * number.sign + _place_point(digits, len(digits) + number.exponent)


def _place_point(digits: str, point: int) -> str:
    """Write 0.`digits` times 10**`point` (ECMA-262, Number::toString)."""
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"


def _no_form(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"claims hold {what}, which has no canonical JSON form (RFC 8785)",
        code=ErrorCode.EVIDENCE_MALFORMED,
    )
