from __future__ import annotations

import base64
import importlib.util

import pytest

from tng.attest.policy.native import NativePolicy
from tng.errors import ConfigError, UntrustedPeerError
from tng.trustee.policy import (
    BUILT_IN,
    HARDWARE_ONLY_TEXT,
    MAX_POLICY_TEXT,
    TRUST_ALL_TEXT,
    make_policy,
)
from tng.trustee.problems import ProblemCode, TrusteeRequestError

needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("regorus") is None, reason="no Rego engine (extra `rego`)"
)
MINE = """\
package policy

import rego.v1

hardware := 2 if input.tdx.quote.header.tee_type in query_reference_value("kinds")
"""


def no_engine():
    raise ConfigError(["there is none"])


def vector(policy, evidence, references=None):
    return policy.evaluate(evidence, references or {}).vector


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
    assert vector(BUILT_IN[policy_id], TDX) == {
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
    assert vector(BUILT_IN[policy_id], evidence)["hardware"] == 97


def test_trust_all_affirms_anything():
    assert set(vector(BUILT_IN["trust_all"], {}).values()) == {2}


def test_the_shipped_texts_need_no_engine(shared):
    folder = shared / "vectors" / "attestation" / "policies"
    known = ("hardware_only", "trust_all", "openanolis_v1.9_ear_default_policy_cpu")
    for name in known:
        policy = make_policy("mine", (folder / f"{name}.rego").read_text(), no_engine)
        assert isinstance(policy.appraises, NativePolicy)
        assert policy.evaluate(TDX, {}).policy_id == "mine"
    assert policy.reads_references


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
    assert vector(make_policy("mine", text), evidence)["hardware"] == hardware


def test_our_own_texts_can_be_uploaded_again():
    policy = make_policy("mine", HARDWARE_ONLY_TEXT, no_engine)
    assert vector(policy, {"tpm": {}})["hardware"] == 97
    assert not policy.reads_references
    assert make_policy("mine", TRUST_ALL_TEXT, no_engine).trusts_all


@needs_engine
def test_our_own_texts_say_in_rego_what_their_twins_say():
    for name, text in (("hardware_only", HARDWARE_ONLY_TEXT), ("trust_all", TRUST_ALL_TEXT)):
        rego = make_policy("mine", text + "\n")
        for evidence in (TDX, {}, {"tpm": {}}, {"tdx": {"quote": {}}}):
            assert vector(rego, evidence) == vector(BUILT_IN[name], evidence)


@needs_engine
def test_another_text_is_evaluated_with_the_reference_values():
    policy = make_policy("mine", MINE)
    assert policy.reads_references
    assert not policy.trusts_all
    assert vector(policy, TDX, {"kinds": ["81000000"]}) == {"hardware": 2}
    with pytest.raises(UntrustedPeerError, match="sets no trust claim"):
        policy.evaluate(TDX, {"kinds": ["00000000"]})


def test_another_text_without_an_engine_is_refused_with_its_hash():
    with pytest.raises(TrusteeRequestError, match=r"SHA-384 is [0-9a-f]{96}") as caught:
        make_policy("mine", MINE, no_engine)
    assert caught.value.http_status == 501


@needs_engine
@pytest.mark.parametrize("text", ["", "package policies", "package policy\nx := [", "x" * 9])
def test_a_text_that_is_no_policy_is_the_callers_fault(text):
    with pytest.raises(TrusteeRequestError) as caught:
        make_policy("mine", text)
    assert caught.value.problem is ProblemCode.INVALID_ARGUMENT


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
