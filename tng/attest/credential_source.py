"""Where credentials of our own come from: a fresh key, for which our TEE vouches.

An attester, a clock and, for the passport model, an appraiser in; a `Credential` out:

    key -> claims -> report data -> evidence (-> token) -> extension -> certificate

Invariant: every credential has a key of its own, which never leaves the process, and is of no
use after `not_after`.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tng.attest.attester.ita import AnyAttester, ItaAttester
from tng.attest.binding import report_data, runtime_data_for
from tng.attest.certificate import make_certificate
from tng.attest.credential import Credential
from tng.attest.evidence import Evidence, Shown, dump_evidence
from tng.attest.passport import AnyAppraiser, obtain_token
from tng.attest.token_expiry import read_live_expiry
from tng.clock import Clock
from tng.wire.dice import CocoEvidence, HashAlgorithm


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
