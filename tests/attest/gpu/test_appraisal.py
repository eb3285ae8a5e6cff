"""Eight checks of a GPU: what passes, what is refused, and that every refusal tells them all."""

from __future__ import annotations

import json

import pytest

from stage.gpus import FIELDS, FIRMWARE, NONCE, NOW, certify
from tng.attest.gpu.appraisal import GPU_CHECK_NAMES, GpuRefused, judge_gpus
from tng.attest.gpu.fields import Field
from tng.errors import ErrorCode
from tng.verdict import Outcome


def judge(gpu, *others, evidence=None, nonce=NONCE, now=NOW):
    data = gpu.evidence(*others) if evidence is None else evidence
    return judge_gpus(data, expected_nonce=nonce, now=now, root_spki_sha256=gpu.root_spki)


def refused(gpu, code, number, match, *others, **arguments) -> GpuRefused:
    with pytest.raises(GpuRefused, match=match) as caught:
        judge(gpu, *others, **arguments)
    assert caught.value.code is code
    outcomes = [check.outcome for check in caught.value.checks]
    assert outcomes == [Outcome.PASS] * (number - 1) + [Outcome.FAIL] + [Outcome.SKIP] * (
        8 - number
    )
    assert [check.number for check in caught.value.checks] == list(GPU_CHECK_NAMES)
    return caught.value


def test_a_good_gpu_passes_and_what_was_not_asked_is_shown(gpu):
    (appraisal,) = judge(gpu)
    outcomes = [check.outcome for check in appraisal.checks]
    assert outcomes == [Outcome.PASS] * 6 + [Outcome.SKIP] * 2
    assert appraisal.claims == {
        "arch": "Hopper",
        "uuid": "GPU-1",
        "config": {
            "driver_version": "1.2.3",
            "vbios_version": "96.00.9f.00.01",
            "fwid": FIRMWARE.hex(),
            "measurement_count": {"1": 7, "2": 8},
            "feature_flag": "SPT",
        },
        "measurements": {"1": "01" * 48, "2": "02" * 48},
    }
    json.dumps(appraisal.claims)


def test_a_gpu_without_a_uuid_has_none_in_its_claims(gpu):
    (appraisal,) = judge(gpu.but(extra={"uuid": None}))
    assert "uuid" not in appraisal.claims


def test_all_gpus_of_a_machine_are_judged_or_none(gpu):
    assert len(judge(gpu, gpu)) == 2
    bad = gpu.but(nonce=bytes(32))
    refused(gpu, ErrorCode.BINDING_MISMATCH, 6, "GPU 1: the report has nonce", bad)


def test_evidence_of_another_form_fails_the_first_check(gpu):
    refused(gpu, ErrorCode.EVIDENCE_MALFORMED, 1, "not a JSON object", evidence=b"{")


def test_a_report_of_another_form_fails_the_second(gpu):
    bad = gpu.but(question=b"\x12\xe0\x01\xff")
    refused(gpu, ErrorCode.EVIDENCE_MALFORMED, 2, "SPDM 1.1", evidence=bad.evidence())
    bad = gpu.but(fields=((999, b""),))
    refused(gpu, ErrorCode.EVIDENCE_MALFORMED, 2, "unknown type", evidence=bad.evidence())


def test_another_root_is_refused(gpu):
    with pytest.raises(GpuRefused, match="not the trusted root") as caught:
        judge_gpus(gpu.evidence(), expected_nonce=NONCE, now=NOW)
    assert caught.value.code is ErrorCode.UNKNOWN_ROOT


def test_a_key_of_another_architecture_is_refused(gpu):
    leaf = certify("GB200", gpu.authority, is_ca=False, firmware=FIRMWARE)
    refused(
        gpu,
        ErrorCode.QUOTE_INVALID,
        3,
        "expected one of HOPPER",
        evidence=gpu.but(leaf=leaf).evidence(),
    )


def test_every_signed_octet_counts(gpu):
    member = gpu.member()
    report = bytearray.fromhex(str(member["evidence"]))
    for position in (4, 37, 45, 50, 100, len(report) - 97, len(report) - 1):
        changed = bytearray(report)
        changed[position] ^= 1
        evidence = {"device_evidence_list": [member | {"evidence": changed.hex()}]}
        with pytest.raises(GpuRefused):
            judge(gpu, evidence=json.dumps(evidence).encode())
    changed = bytearray(report)
    changed[60] ^= 1
    evidence = {"device_evidence_list": [member | {"evidence": changed.hex()}]}
    refused(
        gpu, ErrorCode.QUOTE_INVALID, 4, "is not signed", evidence=json.dumps(evidence).encode()
    )


@pytest.mark.parametrize("firmware", [bytes(48), None])
def test_a_report_of_another_firmware_than_the_keys_is_refused(gpu, firmware):
    fields = tuple(f for f in FIELDS if f[0] is not Field.FWID)
    if firmware is not None:
        fields += ((Field.FWID, firmware),)
    evidence = gpu.but(fields=fields).evidence()
    refused(gpu, ErrorCode.QUOTE_INVALID, 5, "of firmware", evidence=evidence)


@pytest.mark.parametrize("nonce", [NONCE + b"more", NONCE])
def test_the_nonce_is_compared_in_its_32_octets(gpu, nonce):
    assert judge(gpu, nonce=nonce)


def test_a_shorter_nonce_stands_before_zeros(gpu):
    short = gpu.but(nonce=b"short".ljust(32, b"\0"))
    assert judge(short, nonce=b"short")
    refused(gpu, ErrorCode.BINDING_MISMATCH, 6, "has nonce", nonce=b"short")


def test_without_a_nonce_to_compare_with_nothing_is_accepted(gpu):
    refused(gpu, ErrorCode.BINDING_MISMATCH, 6, "no nonce to compare with", nonce=None)
