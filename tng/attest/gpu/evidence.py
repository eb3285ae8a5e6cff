"""Evidence of the GPUs of one machine, as an attestation agent returns it for the TEE `nvidia`.

    {"device_evidence_list": [{"arch": "HOPPER", "uuid": text, "evidence": hexadecimal or base64,
                               "certificate": base64 of PEM}, ...]}

JSON text in, `GpuEvidence` values out.  Source: the `nvidia` attester of upstream Trustee.

Invariant: every field has been checked for type and size; nothing is judged here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest.base64_text import decode_standard
from tng.attest.evidence_text import evidence_members, malformed
from tng.attest.gpu.spdm import MAX_REPORT_OCTETS

if TYPE_CHECKING:
    from tng.attest.strict_json import Json

MAX_GPUS: Final = 16
"""One machine has eight GPUs and four switches at most."""

ARCHITECTURES: Final = {"HOPPER": "GH100"}
"""Architectures that are verified here, and how the names of their keys' certificates begin."""

_MAX_CHAIN_OCTETS: Final = 64 * 1024  # five certificates of 1 KiB in practice
_MEMBERS: Final = frozenset({"arch", "uuid", "evidence", "certificate"})
_UUID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_HEXADECIMAL: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+")


@dataclass(frozen=True, slots=True)
class GpuEvidence:
    """Evidence of one GPU, not judged.

    Attributes:
        architecture: a key of `ARCHITECTURES`.
        uuid: how the driver calls the device, which nobody vouches for; None when not given.
        report: see `gpu.spdm`.
        chain_pem: see `gpu.certificates`.
    """

    architecture: str
    uuid: str | None
    report: bytes
    chain_pem: bytes


def parse_gpu_evidence(evidence: bytes) -> tuple[GpuEvidence, ...]:
    """Take the evidence apart: 1 to 16 devices.

    Raises:
        UntrustedPeerError: not such evidence, or of an architecture that is not verified here
            (evidence_malformed).
    """
    members = evidence_members(evidence, "GPU evidence")
    devices = members.get("device_evidence_list")
    if members.keys() != {"device_evidence_list"} or not isinstance(devices, list):
        raise malformed("GPU evidence has one member, the list 'device_evidence_list'")
    if not 1 <= len(devices) <= MAX_GPUS:
        raise malformed(f"GPU evidence is of 1 to {MAX_GPUS} devices, got {len(devices)}")
    return tuple(_device(device) for device in devices)


def _device(value: Json) -> GpuEvidence:
    if not isinstance(value, dict):
        raise malformed("evidence of a GPU is an object")
    if unknown := value.keys() - _MEMBERS:
        raise malformed(f"evidence of a GPU has an unknown member {min(unknown)[:40]!r}")
    architecture = _text(value, "arch", 32)
    if architecture not in ARCHITECTURES:
        expected = ", ".join(ARCHITECTURES)
        raise malformed(f"GPU architecture {architecture!r} is not verified here, only {expected}")
    uuid = value.get("uuid")
    if uuid is not None and not (isinstance(uuid, str) and _UUID.fullmatch(uuid)):
        raise malformed("uuid of a GPU is 1 to 64 letters, digits and '-'")
    report = _text(value, "evidence", MAX_REPORT_OCTETS * 2)
    is_hexadecimal = _HEXADECIMAL.fullmatch(report)
    return GpuEvidence(
        architecture,
        uuid,
        bytes.fromhex(report) if is_hexadecimal else _base64(report, "evidence"),
        _base64(_text(value, "certificate", _MAX_CHAIN_OCTETS * 4 // 3), "certificate"),
    )


def _text(members: dict[str, Json], name: str, most: int) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise malformed(f"evidence of a GPU needs {name!r}, a text of 1 to {most} characters")
    return value


def _base64(text: str, name: str) -> bytes:
    try:
        return decode_standard(text)
    except ValueError as exc:
        raise malformed(f"{name!r} of a GPU is {exc}") from exc
