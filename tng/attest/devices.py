"""Further devices beside a CPU's TEE: whose evidence is judged how, and what class each is of.

The additional evidence of an attestation agent goes in, `{"nvidia": {...}, ...}`; one
`DeviceAppraisal` per device comes out, in the order and with the classes that a Trustee's token
uses for its submodules (`gpu0`, `gpu1`, ...).  Devices that nobody here can judge are refused:
evidence that was handed over is never passed over.

    for number, device in enumerate(judge_devices(additional, expected=digest, now=now)):
        submods[f"{device.device_class}{number}"] = device.claims
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest.evidence_text import evidence_members, malformed
from tng.attest.gpu.appraisal import judge_gpus
from tng.attest.sample import judge_sample_device

if TYPE_CHECKING:
    from tng.attest.strict_json import Json
    from tng.verdict import Check

GPU: Final = "gpu"
"""Class of all devices that are known here."""

NVIDIA: Final = "nvidia"
SAMPLE_DEVICE: Final = "sampledevice"


@dataclass(frozen=True, slots=True)
class DeviceAppraisal:
    """A device that passed.

    Attributes:
        device_class: what its submodules are called, without a number.
        claims: by TEE name.
        checks: what was asked, in order; none failed.
    """

    device_class: str
    claims: dict[str, object]
    checks: tuple[Check, ...]


def judge_device(
    tee: str,
    evidence: bytes,
    *,
    expected: bytes | None,
    now: float,
    allow_sample: bool = False,
) -> tuple[DeviceAppraisal, ...]:
    """Judge the evidence of all devices of one kind.

    Args:
        tee: "nvidia" or "sampledevice".
        evidence: JSON text, in that kind's form.
        expected: what the evidence must be bound to: the digest of the runtime data.  None is
            refused by `nvidia`.
        now: Unix time, seconds.
        allow_sample: take evidence that anybody can make.

    Raises:
        UntrustedPeerError: it did not pass; or no such device is judged here
            (evidence_malformed).
    """
    if tee == NVIDIA:
        gpus = judge_gpus(evidence, expected_nonce=expected, now=now)
        return tuple(DeviceAppraisal(GPU, {NVIDIA: gpu.claims}, gpu.checks) for gpu in gpus)
    if tee == SAMPLE_DEVICE and allow_sample:
        claims = judge_sample_device(evidence, expected_report_data=expected)
        return (DeviceAppraisal(GPU, claims, ()),)
    known = f"{NVIDIA}, {SAMPLE_DEVICE}" if allow_sample else NVIDIA
    raise malformed(f"evidence of device {tee[:32]!r} is not judged here, only of {known}")


def judge_devices(
    additional: bytes | None, *, expected: bytes | None, now: float, allow_sample: bool = False
) -> tuple[DeviceAppraisal, ...]:
    """Judge an attestation agent's additional evidence; arguments and errors as `judge_device`.

    Args:
        additional: JSON object from TEE names to evidence, which is an object or the text of one;
            None, empty and `{}` mean no further device.
        expected: see `judge_device`.
        now: Unix time, seconds.
        allow_sample: see `judge_device`.

    Raises:
        UntrustedPeerError: one did not pass, which is as if none had.
    """
    if not additional:
        return ()
    devices = evidence_members(additional, "additional evidence")
    return tuple(
        device
        for tee, evidence in devices.items()
        for device in judge_device(
            tee, _octets(evidence), expected=expected, now=now, allow_sample=allow_sample
        )
    )


def _octets(evidence: Json) -> bytes:
    """The evidence's JSON text; lone surrogates stay escaped."""
    text = evidence if isinstance(evidence, str) else json.dumps(evidence)
    return text.encode("utf-8", "surrogatepass")
