"""Credentials of our own: a fresh key, and a certificate in which our TEE vouches for it.

An attester, a clock and, for the passport model, an appraiser in; a `Credential` out:

    key -> claims -> report data -> evidence (-> token) -> extension -> certificate

Invariant: every credential has a key of its own, which never leaves the process, and is of no
use after `not_after`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tng.attest.attester.ita import AnyAttester, ItaAttester
from tng.attest.base64_text import decode_base64
from tng.attest.binding import report_data, runtime_data_for
from tng.attest.certificate import make_certificate
from tng.attest.evidence import Evidence, Shown, dump_evidence
from tng.attest.jws import MAX_TOKEN
from tng.attest.passport import AnyAppraiser, obtain_token
from tng.attest.strict_json import parse_object
from tng.clock import Clock
from tng.errors import AppraiserError, ErrorCode
from tng.wire.dice import CocoEvidence, HashAlgorithm


@dataclass(frozen=True, slots=True)
class Credential:
    """What a TLS endpoint presents.

    Attributes:
        key: P-256 private key.
        certificate: attested certificate for it.
        not_after: Unix time after which peers refuse it, seconds.
        tee: name of the TEE that vouches for the key.
    """

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate
    not_after: float
    tee: str


class CredentialSource:
    """Makes credentials, each with a new key.

    Args:
        attester: obtains evidence from our TEE.
        clock: the time of day, for certificates.
        appraiser: turns evidence into a token (model passport); None to present the evidence
            itself (model background_check).
        policy_ids: policies to ask the appraiser for.
    """

    def __init__(
        self,
        attester: AnyAttester,
        clock: Clock,
        appraiser: AnyAppraiser | None = None,
        policy_ids: Sequence[str] = (),
    ) -> None:
        self._attester = attester
        self._clock = clock
        self._appraiser = appraiser
        self._policy_ids = tuple(policy_ids)

    async def make(self) -> Credential:
        """A new credential.

        Raises:
            EvidenceError: our TEE gave no evidence.
            AppraiserError: the attestation service gave no usable token.
            UntrustedPeerError: the attestation service refused our evidence.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        evidence = await collect_evidence(self._attester, runtime_data_for(spki))
        carried: Shown = evidence
        expires: float | None = None
        if self._appraiser is not None:
            carried = await obtain_token(self._appraiser, evidence, self._policy_ids)
            expires = read_live_expiry(carried.text, self._clock.now())
        now = self._clock.now()
        certificate = make_certificate(key, dump_evidence(carried), int(now))
        not_after = certificate.not_valid_after_utc.timestamp()
        if expires is not None:
            not_after = min(not_after, expires)
        return Credential(key, certificate, not_after, evidence.tee_type)


async def collect_evidence(attester: AnyAttester, runtime_data: str) -> Evidence:
    """Evidence of our TEE over claims.

    Args:
        attester: who is asked.
        runtime_data: the claims as canonical JSON.

    Raises:
        EvidenceError: there is none.
    """
    if isinstance(attester, ItaAttester):
        return await attester.collect(runtime_data)
    digest = report_data(runtime_data.encode(), HashAlgorithm.SHA384)
    said = await attester.get_evidence(digest)
    return CocoEvidence(
        tee_type=said.tee,
        aa_evidence=said.evidence,
        aa_additional_evidence=said.additional,
        aa_runtime_data=runtime_data,
        hash_algorithm=HashAlgorithm.SHA384,
    )


def read_live_expiry(token: str, now: float) -> float:
    """The `exp` claim of a token that has just been made for us, Unix time in seconds.

    Raises:
        AppraiserError: AS_BAD_TOKEN; as `read_expiry`, or it has passed already.
    """
    expires = read_expiry(token)
    if expires <= now:
        raise AppraiserError(
            f"attestation service issued a token that expired {now - expires:.0f} s ago; "
            "compare the clocks of both machines",
            code=ErrorCode.AS_BAD_TOKEN,
        )
    return expires


def read_expiry(token: str) -> float:
    """The `exp` claim of a token of ours, Unix time in seconds; its signature is not checked here.

    Peers check the token; we only need to know when to ask for the next one.

    Raises:
        AppraiserError: AS_BAD_TOKEN; not a JWT with a numeric `exp`.
    """
    parts = token.split(".") if len(token) <= MAX_TOKEN else []
    if len(parts) != 3:
        raise _bad_token("it is not a JWT")
    try:
        claims = parse_object(decode_base64(parts[1]))
    except ValueError as exc:
        raise _bad_token("its claims are not a JSON object in base64url") from exc
    expires = claims.get("exp")
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise _bad_token("it has no numeric exp claim")
    # Year 9999; also keeps infinities, NaN and integers beyond any float out.
    if not 0 < expires < 253402300800:
        raise _bad_token("its exp claim is no point in time")
    return float(expires)


def _bad_token(detail: str) -> AppraiserError:
    return AppraiserError(
        f"attestation service returned an unusable token: {detail}", code=ErrorCode.AS_BAD_TOKEN
    )
