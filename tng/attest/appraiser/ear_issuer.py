"""The signer of the builtin attestation service: tokens, challenges, and who vouches for them.

What appraisal came to goes in, a compact JWS (ES256) comes out, in the form that Trustee's default
broker gives its tokens (EAR, draft-ietf-rats-ear); and challenges, which come back in runtime
data.  The keys are made at the start and never leave the process, so that a token or a challenge
of an earlier process means nothing here.

Invariant: a challenge that `check_challenge` lets through was issued by this very object, at most
`CHALLENGE_LIFETIME_S` ago.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tng import __version__
from tng.attest.base64_text import dump_base64url
from tng.attest.ear import PROFILE
from tng.attest.key_usage import ISSUER_USES, key_usage
from tng.attest.policy.base import Appraisal
from tng.errors import ErrorCode, UntrustedPeerError

TOKEN_LIFETIME_S: Final = 300
"""Seconds from `iat` to `exp`; the same as Trustee's."""

CHALLENGE_LIFETIME_S: Final = 300
"""Seconds for which a challenge may be answered; the same as Trustee's."""

CERTIFICATE_LIFETIME_S: Final = 10 * 365 * 86_400
"""Seconds; longer than a process runs."""

MAX_CHALLENGE: Final = 1024
"""Characters of a challenge; ours have about 200."""

_BACKDATED_S: Final = 3600  # our own clock may be set back
_COORDINATE: Final = 32  # octets of a P-256 coordinate or of half a signature, RFC 7518 section 3.4
_SECRET_OCTETS: Final = 32
_ALGORITHM: Final = "HS256"  # who issues a challenge is the only one who reads it


@dataclass(frozen=True, slots=True)
class AppraisedDevice:
    """One device of a token.

    Attributes:
        name: "cpu0", "cpu1", ...
        appraisal: what the policy made of it.
        evidence: annotated evidence; a JSON object.
    """

    name: str
    appraisal: Appraisal
    evidence: Mapping[str, object]

    def claims(self) -> dict[str, object]:
        """The submodule of the token."""
        return {
            "ear.status": self.appraisal.status.value,
            "ear.trustworthiness-vector": self.appraisal.vector,
            "ear.appraisal-policy-id": self.appraisal.policy_id,
            "ear.veraison.annotated-evidence": dict(self.evidence),
        }


class EarIssuer:
    """Signs with keys that it makes itself.

    Args:
        now: Unix time, seconds.

    Attributes:
        ca_certificate: issued the certificate in every token; the anchor to trust.
    """

    def __init__(self, now: float) -> None:
        ca_key, self._key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        ca_name, name = _name("tng builtin AS CA"), _name("tng builtin AS")
        start = int(now) - _BACKDATED_S
        self.ca_certificate = _certificate(ca_name, ca_name, ca_key, ca_key, start)
        certificate = _certificate(ca_name, name, ca_key, self._key, start)
        self._chain = [
            dump_base64url(item.public_bytes(Encoding.DER))
            for item in (certificate, self.ca_certificate)
        ]
        self._secret = secrets.token_bytes(_SECRET_OCTETS)

    def token(self, devices: Sequence[AppraisedDevice], now: int, *, simulated: bool) -> str:
        """Sign what appraisal came to.

        Args:
            devices: at least one; names distinct.
            now: Unix time, seconds.
            simulated: no hardware stands behind the evidence; the verifier's name then says so.
        """
        build = f"builtin AS {__version__}" + (" SIMULATED" if simulated else "")
        claims = {
            "eat_profile": PROFILE,
            "iat": now,
            "exp": now + TOKEN_LIFETIME_S,
            "ear.verifier-id": {"developer": "tng-gateway", "build": build},
            "submods": {device.name: device.claims() for device in devices},
        }
        header = {"typ": "JWT", "alg": "ES256", "jwk": self._jwk()}
        signing_input = f"{_part(header)}.{_part(claims)}"
        r, s = decode_dss_signature(
            self._key.sign(signing_input.encode("ascii"), ec.ECDSA(hashes.SHA256()))
        )
        signature = r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")
        return f"{signing_input}.{dump_base64url(signature)}"

    def challenge(self, now: int) -> str:
        """A fresh challenge, a JWT.

        Args:
            now: Unix time, seconds.
        """
        nonce = base64.b64encode(secrets.token_bytes(_SECRET_OCTETS)).decode("ascii")
        claims = {"nonce": nonce, "iat": now, "exp": now + CHALLENGE_LIFETIME_S}
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def check_challenge(self, token: str, now: int) -> None:
        """Accept a challenge of ours that is still fresh.

        Args:
            token: as it stands in the runtime data.
            now: Unix time, seconds.

        Raises:
            UntrustedPeerError: not ours, damaged, or out of its time (stale).
        """
        if len(token) > MAX_CHALLENGE:
            raise _stale(f"has {len(token)} characters, expected at most {MAX_CHALLENGE}")
        try:
            # Times are checked below, against the clock that everything else uses.
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except jwt.InvalidTokenError as exc:
            raise _stale(f"was not issued by this gateway since its start: {exc}") from exc
        issued, expires = claims["iat"], claims["exp"]
        if not issued <= now < expires:
            raise _stale(f"is out of its time: issued {issued}, expires {expires}, now {now}")

    def _jwk(self) -> dict[str, object]:
        point = self._key.public_key().public_numbers()
        return {
            "alg": "ES256",
            "x5c": self._chain,
            "kty": "EC",
            "crv": "P-256",
            "x": dump_base64url(point.x.to_bytes(_COORDINATE, "big")),
            "y": dump_base64url(point.y.to_bytes(_COORDINATE, "big")),
        }


def _certificate(
    issuer: x509.Name,
    subject: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    start: int,
) -> x509.Certificate:
    is_ca = issuer == subject
    begin = dt.datetime.fromtimestamp(start, dt.UTC)
    uses = key_usage(*ISSUER_USES) if is_ca else key_usage("digital_signature")
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(seconds=_BACKDATED_S + CERTIFICATE_LIFETIME_S))
        .add_extension(
            x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True
        )
        .add_extension(uses, critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _part(value: object) -> str:
    return dump_base64url(
        json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    )


def _stale(problem: str) -> UntrustedPeerError:
    return UntrustedPeerError(f"challenge_token {problem}", code=ErrorCode.STALE)
