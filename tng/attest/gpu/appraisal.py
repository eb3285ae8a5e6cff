"""The judgement of GPU evidence: eight numbered checks for each device.

Evidence as an attestation agent returns it goes in (`gpu.evidence`); one `GpuAppraisal` per GPU
comes out, or `GpuRefused` with every check of the GPU that did not pass.

     1  evidence format     5  firmware: the signing key was made for the firmware reported
     2  report format       6  nonce: the report answers this question and no older one
     3  certificates        7  revocation: skipped, nobody is asked
     4  report signature    8  measurements: skipped, left to the policy, which has the claims

Sources: DMTF DSP0274 (SPDM 1.1) section 10.11; the `nvidia` verifier of upstream Trustee, whose
claims these are.  Stricter on purpose: there is no judgement without a nonce to compare with,
every field must be known, and a certificate must be of the architecture that the evidence names.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tng.attest.gpu.certificates import NVIDIA_ROOT_SPKI_SHA256, verify_gpu_chain
from tng.attest.gpu.evidence import ARCHITECTURES, parse_gpu_evidence
from tng.attest.gpu.fields import parse_fields
from tng.attest.gpu.spdm import NONCE_OCTETS, SIGNATURE_OCTETS, parse_report
from tng.errors import ErrorCode, UntrustedPeerError
from tng.verdict import Check, Outcome

if TYPE_CHECKING:
    from tng.attest.gpu.certificates import GpuKey
    from tng.attest.gpu.evidence import GpuEvidence
    from tng.attest.gpu.fields import Config
    from tng.attest.gpu.spdm import GpuReport

GPU_CHECK_NAMES: Final = {
    1: "evidence format",
    2: "report format",
    3: "certificates",
    4: "report signature",
    5: "firmware",
    6: "nonce",
    7: "revocation",
    8: "measurements",
}
"""Every check by its number."""

_FORMAT, _REPORT, _CERTIFICATES, _SIGNATURE, _FIRMWARE, _NONCE, _REVOCATION, _MEASURED = (
    GPU_CHECK_NAMES
)


@dataclass(frozen=True, slots=True)
class GpuAppraisal:
    """A GPU that passed.

    Attributes:
        claims: `{"arch", "uuid", "config": {...}, "measurements": {index: hexadecimal}}`.
        checks: all eight, none failed.
    """

    claims: dict[str, object]
    checks: tuple[Check, ...]


class GpuRefused(UntrustedPeerError):  # noqa: N818 - says what happened
    """Evidence that did not pass.

    Attributes:
        checks: of the GPU in question; exactly one failed, those after it are skipped.
    """

    def __init__(self, message: str, *, code: ErrorCode, checks: tuple[Check, ...]) -> None:
        super().__init__(message, code=code)
        self.checks = checks


def judge_gpus(
    evidence: bytes,
    *,
    expected_nonce: bytes | None,
    now: float,
    root_spki_sha256: str = NVIDIA_ROOT_SPKI_SHA256,
) -> tuple[GpuAppraisal, ...]:
    """Judge the GPUs of one machine at a given time.

    Args:
        evidence: JSON text of an attestation agent; at most 4 MiB.
        expected_nonce: compared with the nonce's 32 octets, cut or with zeros appended.  None is
            refused: a report that answers no question of ours may be of any age.
        now: Unix time, seconds.
        root_spki_sha256: of the trusted root's key; NVIDIA's is built in.

    Raises:
        GpuRefused: a GPU did not pass; no other one counts then.
    """
    record = _Record()
    try:
        devices = parse_gpu_evidence(evidence)
    except UntrustedPeerError as exc:
        raise record.refusal(exc, "") from exc
    return tuple(
        _judge(device, f"GPU {number}: ", expected_nonce, now, root_spki_sha256)
        for number, device in enumerate(devices)
    )


class _Record:
    """The checks made so far, for one device."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Outcome, str]] = {}

    def note(self, number: int, detail: str, outcome: Outcome = Outcome.PASS) -> None:
        self._made[number] = (outcome, detail)

    def checks(self) -> tuple[Check, ...]:
        current = max(self._made)
        missing = (Outcome.SKIP, f"not made: check {current} failed")
        return tuple(
            Check(number, name, *self._made.get(number, missing))
            for number, name in GPU_CHECK_NAMES.items()
        )

    def refusal(self, error: UntrustedPeerError, where: str) -> GpuRefused:
        """The error with the checks; the first that has no answer yet is the one that failed."""
        self.note(len(self._made) + 1, str(error), Outcome.FAIL)
        return GpuRefused(f"{where}{error}", code=error.code, checks=self.checks())


def _judge(
    device: GpuEvidence, where: str, expected_nonce: bytes | None, now: float, root: str
) -> GpuAppraisal:
    record = _Record()
    record.note(_FORMAT, f"{device.architecture}, {len(device.report)} octets of report")
    try:
        report = parse_report(device.report)
        config = parse_fields(report.opaque)
        record.note(_REPORT, f"SPDM 1.1, {len(report.measurements)} measurements")
        key = verify_gpu_chain(device.chain_pem, now=now, root_spki_sha256=root)
        _check_architecture(device, key)
        record.note(_CERTIFICATES, f"{key.name!r} leads to the trusted root")
        _check_signature(report, key)
        record.note(_SIGNATURE, "ECDSA P-384 with SHA-384")
        _check_firmware(config, key)
        record.note(_FIRMWARE, key.firmware_id.hex())
        _check_nonce(report, expected_nonce)
        record.note(_NONCE, report.nonce.hex())
    except UntrustedPeerError as exc:
        raise record.refusal(exc, where) from exc
    record.note(_REVOCATION, "nobody was asked", Outcome.SKIP)
    record.note(_MEASURED, "left to the policy", Outcome.SKIP)
    return GpuAppraisal(_claims(device, report, config), record.checks())


def _check_architecture(device: GpuEvidence, key: GpuKey) -> None:
    prefix = ARCHITECTURES[device.architecture]
    if not key.name.startswith(prefix):
        raise UntrustedPeerError(
            f"the certificate is of {key.name!r}, expected one of {device.architecture} ({prefix})",
            code=ErrorCode.QUOTE_INVALID,
        )


def _check_signature(report: GpuReport, key: GpuKey) -> None:
    half = SIGNATURE_OCTETS // 2
    r, s = (
        int.from_bytes(part, "big") for part in (report.signature[:half], report.signature[half:])
    )
    try:
        key.key.verify(encode_dss_signature(r, s), report.signed_part, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as exc:
        raise UntrustedPeerError(
            f"the report is not signed by the key of {key.name!r}", code=ErrorCode.QUOTE_INVALID
        ) from exc


def _check_firmware(config: Config, key: GpuKey) -> None:
    reported = config.get("fwid")
    if not isinstance(reported, str) or not hmac.compare_digest(reported, key.firmware_id.hex()):
        raise UntrustedPeerError(
            f"the report is of firmware {reported}, its key is for {key.firmware_id.hex()}",
            code=ErrorCode.QUOTE_INVALID,
        )


def _check_nonce(report: GpuReport, expected: bytes | None) -> None:
    if expected is None:
        raise UntrustedPeerError(
            "there is no nonce to compare with: the report may be of any age, and of any machine",
            code=ErrorCode.BINDING_MISMATCH,
        )
    padded = expected[:NONCE_OCTETS].ljust(NONCE_OCTETS, b"\0")
    if not hmac.compare_digest(report.nonce, padded):
        raise UntrustedPeerError(
            f"the report has nonce {report.nonce.hex()}, expected {padded.hex()}",
            code=ErrorCode.BINDING_MISMATCH,
        )


def _claims(device: GpuEvidence, report: GpuReport, config: Config) -> dict[str, object]:
    claims: dict[str, object] = {
        "arch": device.architecture.capitalize(),
        "config": config,
        "measurements": {str(index): value.hex() for index, value in report.measurements.items()},
    }
    return claims | ({} if device.uuid is None else {"uuid": device.uuid})
