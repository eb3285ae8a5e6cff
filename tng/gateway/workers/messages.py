"""What crosses between a supervisor and its workers, as JSON: verdicts, errors, credentials.

`dump_x` and `parse_x` are inverse.  Both ends are the same version of the same program, so that
what does not fit exactly is an error, never guessed at.

Invariants: a private key appears in the answer that carries it and nowhere else, no message here
is ever logged; a peer that was refused cannot come out of `parse_attested`.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from tng.attest.credential import Credential
from tng.attest.verifier import explain
from tng.errors import (
    AppraiserError,
    ErrorCode,
    EvidenceError,
    NetError,
    RemoteProtocolError,
    TngError,
    UntrustedPeerError,
)
from tng.verdict import AttestedPeer, Check, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.attest.strict_json import Json

T = TypeVar("T")

_KINDS: Final[dict[str, type[TngError]]] = {
    kind.__name__: kind
    for kind in (TngError, NetError, RemoteProtocolError, EvidenceError, AppraiserError)
}
"""Errors that are rebuilt from message and code alone; others arrive as their nearest base."""

Fields = dict[str, "Json"]


def dump_error(error: TngError) -> Fields:
    """The error, with its verdict if it is a refusal."""
    kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in _NAMES)
    fields: Fields = {"kind": kind, "message": str(error), "code": error.code.value}
    if isinstance(error, UntrustedPeerError):
        fields["verdict"] = None if error.verdict is None else explain.as_json(error.verdict)
    return fields


def parse_error(fields: Mapping[str, Json]) -> TngError:
    """The error that `dump_error` was given.

    Raises:
        RemoteProtocolError: not the fields of an error.
    """
    kind, message = member(fields, "kind", str), member(fields, "message", str)
    code = _member_of(ErrorCode, member(fields, "code", str))
    if kind == UntrustedPeerError.__name__:
        judged = fields.get("verdict")
        verdict = parse_verdict(judged) if isinstance(judged, dict) else None
        return UntrustedPeerError(message, code=code, verdict=verdict)
    if kind not in _KINDS:
        raise _unfit(f"error of unknown kind {kind!r}")
    return _KINDS[kind](message, code=code)


def dump_attested(peer: AttestedPeer) -> Fields:
    """A peer that passed."""
    return {"verdict": explain.as_json(peer.verdict), "token": peer.token}


def parse_attested(fields: Mapping[str, Json]) -> AttestedPeer:
    """The peer that `dump_attested` was given.

    Raises:
        RemoteProtocolError: not such fields, or the verdict is a refusal.
    """
    verdict = parse_verdict(member(fields, "verdict", dict))
    if not verdict.accepted or verdict.code is not None:
        raise _unfit("refused peer where one that passed was expected")
    return AttestedPeer(verdict, member(fields, "token", str))


def parse_verdict(fields: Mapping[str, Json]) -> Verdict:
    """The verdict that `tng.attest.verifier.explain.as_json` was given.

    Raises:
        RemoteProtocolError: not the fields of a verdict.
    """
    code = fields.get("code")
    return Verdict(
        accepted=member(fields, "accepted", bool),
        code=None if code is None else _member_of(ErrorCode, member(fields, "code", str)),
        checks=tuple(_parse_check(check) for check in member(fields, "checks", list)),
        tee=member(fields, "tee", str),
        simulated=member(fields, "simulated", bool),
        policy_ids=tuple(_text(policy) for policy in member(fields, "policy_ids", list)),
        peer=member(fields, "peer", str),
        judged_at=number(fields, "judged_at"),
        valid_until=number(fields, "valid_until"),
    )


def dump_credential(credential: Credential) -> Fields:
    """A credential with its private key: for the stream to a worker, and nothing else."""
    key = credential.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return {
        "key": dump_octets(key),
        "certificate": dump_octets(credential.certificate.public_bytes(Encoding.DER)),
        "not_after": credential.not_after,
        "tee": credential.tee,
    }


def parse_credential(fields: Mapping[str, Json]) -> Credential:
    """The credential that `dump_credential` was given.

    Raises:
        RemoteProtocolError: not a credential, or the certificate is for another key.
    """
    key_der, certificate_der = octets(fields, "key"), octets(fields, "certificate")
    try:
        key = load_der_private_key(key_der, password=None)
        certificate = x509.load_der_x509_certificate(certificate_der)
    except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm):
        # Not chained: the library's words may show what it was given.
        raise _unfit("credential that cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unfit("credential whose key is not on a curve")
    if key.public_key() != certificate.public_key():
        raise _unfit("credential whose certificate is for another key")
    return Credential(key, certificate, number(fields, "not_after"), member(fields, "tee", str))


def dump_octets(data: bytes) -> str:
    """Octets as text."""
    return base64.b64encode(data).decode("ascii")


def octets(fields: Mapping[str, Json], name: str) -> bytes:
    """The octets under `name`.

    Raises:
        RemoteProtocolError: not text, or not base64.
    """
    try:
        return base64.b64decode(member(fields, name, str).encode(), validate=True)
    except (binascii.Error, ValueError):
        raise _unfit(f"{name!r} that is not base64") from None


def member(fields: Mapping[str, Json], name: str, kind: type[T]) -> T:
    """The value under `name`, which must be a `kind`.

    Raises:
        RemoteProtocolError: absent, or of another kind; the value is not shown.
    """
    value = fields.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _unfit(f"{name!r} is {type(value).__name__}, expected {kind.__name__}")
    return value


def number(fields: Mapping[str, Json], name: str) -> float:
    """The number under `name`.

    Raises:
        RemoteProtocolError: absent, or no number.
    """
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unfit(f"{name!r} is {type(value).__name__}, expected a number")
    try:
        return float(value)
    except OverflowError:
        raise _unfit(f"{name!r} is beyond any float") from None


_NAMES: Final = frozenset({*_KINDS, UntrustedPeerError.__name__})

_E = TypeVar("_E", ErrorCode, Outcome)


def _member_of(words: type[_E], word: str) -> _E:
    try:
        return words(word)
    except ValueError as exc:
        raise _unfit(f"unknown {words.__name__} {word!r:.60}") from exc


def _parse_check(check: Json) -> Check:
    if not isinstance(check, dict):
        raise _unfit("check that is no object")
    return Check(
        member(check, "number", int),
        member(check, "name", str),
        _member_of(Outcome, member(check, "outcome", str)),
        member(check, "detail", str),
    )


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise _unfit(f"{type(value).__name__} where text was expected")
    return value


def _unfit(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"message between processes of this gateway: {what}")
