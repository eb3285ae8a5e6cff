"""Evidence in the form of Intel Trust Authority (`aa_provider` ita and ita_asr).

Claims in, `ItaEvidence` out.  The agent, or the api-server-rest, is the same as for Trustee; what
it is asked differs:

    nonce        what `challenge_token` among the claims says; a certificate has none
    GPU nonce    SHA-256(val, iat), or of 32 random octets without a nonce
    runtime      canonical JSON of the claims, `additional_evidence` added if there are devices
    report data  SHA-512(val, iat, runtime)

Source: TNG 2.12.0.  Different on purpose: an agent's GPU is asked for evidence in certificates
too, with a nonce that was never used before.

Invariant: the quote is over the runtime data beside it, which names the devices' evidence.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from tng.attest.attester.base import Attester, TeeEvidence
from tng.attest.base64_text import decode_base64, dump_standard
from tng.attest.binding import canonical_json
from tng.attest.ita_json import parse_nonce_text
from tng.attest.strict_json import parse_object
from tng.errors import EvidenceError, RemoteProtocolError
from tng.wire.ita_evidence import (
    GpuEvidence,
    ItaEvidence,
    ItaNonce,
    make_gpu_evidence,
    make_ita_evidence,
)

if TYPE_CHECKING:
    from tng.attest.strict_json import Json

CHALLENGE_CLAIM: Final = "challenge_token"
"""Name of the claim that holds the nonce, as text."""
ADDITIONAL_CLAIM: Final = "additional_evidence"
"""Name of the claim that holds the devices' evidence, base64."""

_GPU: Final = "nvidia"


class DeviceAttester(Protocol):
    """Obtains evidence of the TEE and of further devices apart from each other."""

    async def get_primary(self, report_data: bytes) -> TeeEvidence:
        """What the TEE alone says about `report_data`, 1 to 64 octets.

        Raises:
            EvidenceError: there is no evidence.
        """
        ...

    async def get_additional(self, runtime_data: bytes) -> bytes:
        """JSON object from the names of devices to their evidence; empty without any.

        Raises:
            EvidenceError: whoever was asked is not there.
        """
        ...


class ItaAttester:
    """Obtains evidence for Intel Trust Authority.

    Args:
        inner: who is asked.
    """

    def __init__(self, inner: DeviceAttester) -> None:
        self._inner = inner

    async def collect(self, runtime_data: str) -> ItaEvidence:
        """Evidence over claims.

        Args:
            runtime_data: the claims as canonical JSON; `challenge_token` among them is a nonce of
                the service.

        Raises:
            EvidenceError: there is none, or it is of another TEE than TDX.
        """
        claims = parse_object(runtime_data.encode())
        try:
            nonce = _nonce(claims)
        except RemoteProtocolError as exc:
            raise EvidenceError(
                f"evidence for Intel Trust Authority answers its nonce: {exc}; does whoever "
                'verifies have "as_provider": "ita" too?'
            ) from exc
        fresh = secrets.token_bytes(32) if nonce is None else nonce.octets
        gpu_nonce = hashlib.sha256(fresh).digest()
        additional = await self._inner.get_additional(gpu_nonce)
        if additional:
            claims[ADDITIONAL_CLAIM] = dump_standard(additional)
        runtime = canonical_json(claims)
        prefix = b"" if nonce is None else nonce.octets
        said = await self._inner.get_primary(hashlib.sha512(prefix + runtime).digest())
        try:
            gpu = _gpu(additional, gpu_nonce) if additional else None
            return make_ita_evidence(_quote(said), runtime, nonce, gpu)
        except (RemoteProtocolError, ValueError) as exc:
            raise EvidenceError(
                f"the evidence of our TEE is not what Intel Trust Authority takes: {exc}"
            ) from exc


AnyAttester: TypeAlias = Attester | ItaAttester
"""What obtains evidence, for whichever provider."""


def _nonce(claims: dict[str, Json]) -> ItaNonce | None:
    challenge = claims.get(CHALLENGE_CLAIM)
    return parse_nonce_text(challenge) if isinstance(challenge, str) else None


def _quote(said: TeeEvidence) -> bytes:
    if said.tee != "tdx":
        raise ValueError(f"the TEE is {said.tee!r}, expected 'tdx'")
    quote = parse_object(said.evidence).get("quote")
    if not isinstance(quote, str):
        raise ValueError("it has no text member quote")  # noqa: TRY004
    return decode_base64(quote)


def _gpu(additional: bytes, nonce: bytes) -> GpuEvidence | None:
    """The evidence of the first GPU, in the service's form; None without a GPU."""
    nvidia = parse_object(additional).get(_GPU)
    devices = nvidia.get("device_evidence_list") if isinstance(nvidia, dict) else None
    first = devices[0] if isinstance(devices, list) and devices else None
    if not isinstance(first, dict):
        return None
    report = first.get("evidence")
    if not isinstance(report, str):
        raise ValueError("the GPU's evidence is no text")  # noqa: TRY004
    digits = base64.b64encode(decode_base64(report).hex().encode()).decode("ascii")
    return make_gpu_evidence(digits, first.get("certificate"), first.get("arch"), nonce)
