from __future__ import annotations

import contextlib
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.kbs.tee_key import ECDH, TeeKey, dump_tee_key
from tng.errors import TngError
from tng.trustee.kbs.handshake import auth_answer, parse_attest, parse_auth
from tng.trustee.problems import TrusteeRequestError

PROBE = {"version": "0.1.0", "tee": "tdx", "extra-params": "foo"}
JWK = dump_tee_key(TeeKey(ECDH, ec.generate_private_key(ec.SECP256R1()).public_key()))
NEW = {
    "init-data": None,
    "runtime-data": {"nonce": "n", "tee-pubkey": JWK},
    "tee-evidence": {"primary_evidence": {"a": 1}, "additional_evidence": ""},
}
OLD = {"tee-pubkey": JWK, "tee-evidence": {"a": 1}}


def parse(body: object, version: str = "0.4.0"):
    return parse_attest(json.dumps(body).encode(), "n", "tdx", version)


def hashed(value: object) -> bytes:
    return hashlib.sha384(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    ).digest()


@pytest.mark.parametrize("version", ["0.1.0", "0.1.1", "0.2.0", "0.3.0", "0.4.0"])
@pytest.mark.parametrize("extra", ["foo", "", {"supported-hash-algorithms": ["sha384"]}, None])
def test_every_version_is_taken_with_any_extra_parameters(version, extra):
    request = parse_auth(json.dumps(PROBE | {"version": version, "extra-params": extra}).encode())
    assert (request.version, request.tee) == (version, "tdx")
    assert auth_answer("n") == b'{"nonce":"n","extra-params":""}'


@pytest.mark.parametrize(
    "changes", [{"version": "0.5.0"}, {"version": 1}, {"tee": "x"}, {"tee": None}, {"more": 1}]
)
def test_another_first_request_is_refused(changes):
    with pytest.raises(TrusteeRequestError) as caught:
        parse_auth(json.dumps(PROBE | changes).encode())
    assert caught.value.http_status == 400


def test_the_new_form_is_bound_to_nonce_key_and_further_evidence():
    request = parse(NEW)
    (device,) = request.appraisal.requests
    assert request.nonce == "n"
    assert request.appraisal.policy_ids == ("default",)
    assert device.tee == "tdx"
    assert json.loads(device.evidence) == {"a": 1}
    bound = {"additional-evidence": "", "nonce": "n", "tee-pubkey": JWK}
    assert device.runtime_data.report_data == hashed(bound)
    assert device.runtime_data.claims == bound


@pytest.mark.parametrize("evidence", [{"a": 1}, '{"a":1}'])
def test_the_old_form_is_bound_to_the_sessions_nonce(evidence):
    request = parse(OLD | {"tee-evidence": evidence}, "0.1.0")
    (device,) = request.appraisal.requests
    assert request.nonce is None
    assert device.evidence == b'{"a":1}'
    assert device.runtime_data.report_data == hashed({"nonce": "n", "tee-pubkey": JWK})


def test_further_devices_are_bound_to_nonce_and_key():
    text = json.dumps({"sample": {"b": 2}, "az-tdx-vtpm": {"c": 3}})
    evidence = {"primary_evidence": {"a": 1}, "additional_evidence": text}
    first, second, third = parse(NEW | {"tee-evidence": evidence}).appraisal.requests
    assert first.runtime_data.claims["additional-evidence"] == text
    assert (second.tee, third.tee) == ("sample", "aztdxvtpm")
    assert second.runtime_data.report_data == hashed({"nonce": "n", "tee-pubkey": JWK})


def test_init_data_belong_to_the_first_device():
    text = 'algorithm = "sha384"\nversion = "0.1.0"\n[data]\na = "b"\n'
    (device,) = parse(NEW | {"init-data": {"format": "toml", "body": text}}).appraisal.requests
    assert device.init_data.digest == hashlib.sha384(text.encode()).digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime-data": 1},
        {"runtime-data": {"tee-pubkey": JWK}},
        {"runtime-data": {"nonce": "n"}},
        {"runtime-data": {"nonce": "n", "tee-pubkey": JWK, "x": 1}},
        {"runtime-data": {"nonce": "n", "tee-pubkey": {**JWK, "d": "AA"}}},
        {"tee-evidence": None},
        {"tee-evidence": ""},
        {"tee-evidence": [1]},
        {"tee-evidence": {"primary_evidence": 1, "additional_evidence": ""}},
        {"tee-evidence": {"primary_evidence": {}, "additional_evidence": None}},
        {"tee-evidence": {"primary_evidence": {}, "additional_evidence": "["}},
        {"tee-evidence": {"primary_evidence": {}, "additional_evidence": '{"x":{}}'}},
        {"tee-evidence": {"primary_evidence": {}, "additional_evidence": '{"tdx":1}'}},
        {"init-data": {"format": "json", "body": "{}"}},
        {"init-data": {"format": "toml"}},
        {"init-data": 1},
        {"tee-pubkey": JWK},
    ],
)
def test_another_second_request_is_refused(changes):
    with pytest.raises(TrusteeRequestError) as caught:
        parse(NEW | changes)
    assert caught.value.http_status == 400


def test_there_is_a_limit_of_devices():
    names = ["sgx", "snp", "tdx", "csv", "sample", "sampledevice", "se", "tpm", "sev", "azsnpvtpm"]
    names += ["aztdxvtpm", "system", "hygondcu", "hygontpm", "az-snp-vtpm", "az-tdx-vtpm"]
    text = json.dumps({name: {} for name in names})
    evidence = {"primary_evidence": {}, "additional_evidence": text}
    with pytest.raises(TrusteeRequestError, match="fewer than 16"):
        parse(NEW | {"tee-evidence": evidence})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "runtime-data": json_values,
            "tee-pubkey": json_values | st.just(JWK),
            "tee-evidence": json_values,
            "init-data": json_values,
        },
    )
)
def test_any_json_gives_a_request_or_an_error_of_ours(body):
    with contextlib.suppress(TngError):
        parse(body)
