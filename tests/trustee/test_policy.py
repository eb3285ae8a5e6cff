from __future__ import annotations

import base64

import pytest

from tng.trustee.policy import (
    BUILT_IN,
    HARDWARE_ONLY_TEXT,
    MAX_POLICY_TEXT,
    TRUST_ALL_TEXT,
    Twin,
    make_policy,
)
from tng.trustee.problems import TrusteeRequestError

TDX = {
    "tdx": {
        "quote": {
            "header": {
                "tee_type": "81000000",
                "vendor_id": "939a7233f79c4ca9940a0db3957f0607",
            }
        }
    }
}


@pytest.mark.parametrize("policy_id", ["default", "hardware_only", "trust_all"])
def test_every_built_in_policy_affirms_tdx(policy_id):
    assert BUILT_IN[policy_id].evaluate(TDX) == {
        "configuration": 2,
        "executables": 2,
        "file-system": 2,
        "hardware": 2,
    }


@pytest.mark.parametrize("policy_id", ["default", "hardware_only"])
@pytest.mark.parametrize(
    "evidence",
    [
        {},
        {"sample": {"svn": "1"}},
        {"tdx": None},
        {"tdx": {"quote": {"header": {"tee_type": "81000000"}}}},
        {"tdx": {"quote": {"header": {"tee_type": "00000000", "vendor_id": "93"}}}},
        {"tpm": {"a": 1}},
        {"csv": {"version": "1"}},
    ],
)
def test_the_default_policies_recognise_no_other_hardware(policy_id, evidence):
    assert BUILT_IN[policy_id].evaluate(evidence)["hardware"] == 97


def test_trust_all_affirms_anything():
    assert set(BUILT_IN["trust_all"].evaluate({}).values()) == {2}


def test_the_shipped_texts_are_known_by_their_hash(shared):
    folder = shared / "vectors" / "attestation" / "policies"
    hardware_only = make_policy("mine", (folder / "hardware_only.rego").read_text())
    assert hardware_only.twin is Twin.HARDWARE_ONLY
    assert make_policy("mine", (folder / "trust_all.rego").read_text()).twin is Twin.TRUST_ALL
    for path in folder.glob("*.rego"):
        if path.stem not in ("hardware_only", "trust_all"):
            with pytest.raises(TrusteeRequestError, match="Rego engine not available"):
                make_policy("mine", path.read_text())


@pytest.mark.parametrize(
    ("evidence", "hardware"),
    [
        (TDX, 2),
        ({"csv": {"version": "1"}}, 2),
        ({"csv": {"version": "2"}}, 2),
        ({"csv": {"version": "3"}}, 97),
        ({"tpm": {}}, 2),
        ({"tpm": None}, 2),
        ({"tpm": False}, 97),
        ({"system": {}}, 2),
        ({"sample": {}}, 97),
    ],
)
def test_the_twin_of_the_shipped_hardware_only_text_knows_its_hardware(shared, evidence, hardware):
    text = (shared / "vectors/attestation/policies/hardware_only.rego").read_text()
    assert make_policy("mine", text).evaluate(evidence)["hardware"] == hardware


def test_our_own_texts_can_be_uploaded_again():
    assert make_policy("mine", HARDWARE_ONLY_TEXT).twin is Twin.TDX_ONLY
    assert make_policy("mine", TRUST_ALL_TEXT).trusts_all


def test_another_text_is_refused_with_its_hash():
    with pytest.raises(TrusteeRequestError, match=r"SHA-384 is [0-9a-f]{96}") as caught:
        make_policy("mine", HARDWARE_ONLY_TEXT + "\n")
    assert caught.value.http_status == 501


@pytest.mark.parametrize("policy_id", ["", "a/b", "..", "a b", "a" * 65, "ä", "a\n"])
def test_a_policy_id_is_a_plain_file_name(policy_id):
    with pytest.raises(TrusteeRequestError, match="policy_id") as caught:
        make_policy(policy_id, TRUST_ALL_TEXT)
    assert caught.value.http_status == 400


def test_a_text_beyond_the_limit_is_refused():
    with pytest.raises(TrusteeRequestError, match="more than"):
        make_policy("a", "x" * (MAX_POLICY_TEXT + 1))


def test_the_digest_is_sha384():
    assert len(BUILT_IN["default"].digest) == 48
    assert base64.b64encode(BUILT_IN["default"].digest) != base64.b64encode(
        BUILT_IN["trust_all"].digest
    )
