"""What an administrator can do, and what nobody else can."""

from __future__ import annotations

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tng.errors import StartError
from tng.trustee.kbs.admin_gate import AdminGate, read_admin_key
from tng.trustee.kbs.resource_policy import AFFIRMING_TEXT, DENY_ALL_TEXT
from tng.trustee.policy import TRUST_ALL_TEXT
from tng.trustee.problems import TrusteeRequestError

NOW = 1_795_000_000
PATH = "/kbs/v0/resource/default/aliyun/model-decryption-key"
JSON = {"content-type": "application/json"}


def b64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


ADMIN_REQUESTS = [
    ("POST", PATH),
    ("DELETE", PATH),
    ("GET", "/kbs/v0/resources"),
    ("GET", "/kbs/v0/resource-policy"),
    ("POST", "/kbs/v0/resource-policy"),
    ("POST", "/kbs/v0/attestation-policy"),
    ("GET", "/kbs/v0/attestation-policies"),
    ("GET", "/kbs/v0/attestation-policy/default"),
    ("DELETE", "/kbs/v0/attestation-policy/default"),
    ("POST", "/kbs/v0/rvps/register"),
    ("GET", "/kbs/v0/rvps/query"),
    ("DELETE", "/kbs/v0/rvps/delete/x"),
]


@pytest.mark.parametrize(("method", "path"), ADMIN_REQUESTS)
def test_everything_needs_the_administrators_token(broker, admin, method, path):
    stranger_key = ed25519.Ed25519PrivateKey.generate()
    claims = {"iat": NOW, "exp": NOW + 60}
    refused = [
        {},
        {"authorization": "Basic eDp5"},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {jwt.encode(claims, stranger_key, 'EdDSA')}"},
        {"authorization": f"Bearer {jwt.encode(claims, 'k' * 32, 'HS256')}"},
        {"authorization": f"Bearer {jwt.encode(claims, None, 'none')}"},
    ]
    for headers in refused:
        answer = broker.http.request(method, path, headers={**JSON, **headers}, content=b"{}")
        assert answer.status_code == 401, headers
        assert answer.json()["type"].endswith("/AdminAuth")


@pytest.mark.parametrize(("method", "path"), ADMIN_REQUESTS)
def test_without_a_configured_key_administration_is_off(closed, admin, method, path):
    answer = closed.http.request(method, path, headers={**JSON, **admin.headers()}, content=b"{}")
    assert answer.status_code == 403
    assert "--admin-key" in answer.json()["detail"]


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW},
        {"exp": None},
        {"iat": None},
        {"iat": NOW + 61, "exp": NOW + 100},
        {"nbf": NOW + 61},
        {"exp": NOW + 7201},
        {"iat": "now"},
        {"exp": 1e300},
        {"iat": True},
        {"iat": -1},
    ],
)
def test_a_token_out_of_its_time_is_refused(admin, changes):
    gate = AdminGate(admin.key.public_key())
    gate.check(admin.headers()["authorization"], NOW)
    with pytest.raises(TrusteeRequestError) as caught:
        gate.check(admin.headers(**changes)["authorization"], NOW)
    assert caught.value.http_status == 401


@pytest.mark.parametrize(
    "data", [b"", b"x", b"-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"]
)
def test_a_file_that_is_no_key_is_a_start_error(tmp_path, data):
    (tmp_path / "key").write_bytes(data)
    with pytest.raises(StartError, match="key"):
        read_admin_key(tmp_path / "key")
    with pytest.raises(StartError, match="No such file"):
        read_admin_key(tmp_path / "nothing")


def test_another_kind_of_key_is_a_start_error(tmp_path):
    pem = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "key").write_bytes(pem)
    with pytest.raises(StartError, match="Ed25519"):
        read_admin_key(tmp_path / "key")


def test_secrets_are_stored_listed_replaced_and_deleted(broker, admin, stranger):
    listed = ["kbs:///default/aliyun/model-decryption-key"]
    assert broker.http.get("/kbs/v0/resources", headers=admin.headers()).json() == listed
    broker.http.post(PATH, content=b"other", headers=admin.headers())
    one = stranger()
    one.auth()
    one.attest()
    assert one.open(one.get()) == b"other"
    assert broker.http.delete(PATH, headers=admin.headers()).status_code == 200
    assert one.get().status_code == 404
    assert broker.http.delete(PATH, headers=admin.headers()).status_code == 404
    assert broker.http.get("/kbs/v0/resources", headers=admin.headers()).json() == []


@pytest.mark.parametrize(("size", "status"), [(0, 400), (512 * 1024, 200), (512 * 1024 + 1, 413)])
def test_a_secret_has_a_size(broker, admin, size, status):
    answer = broker.http.post(PATH, content=b"x" * size, headers=admin.headers())
    assert answer.status_code == status


@pytest.mark.parametrize("tag", [".x", "a,b", "a" * 65, "a%2fb"])
def test_a_secret_needs_a_name(broker, admin, tag):
    path = f"/kbs/v0/resource/default/x/{tag}"
    assert broker.http.post(path, content=b"x", headers=admin.headers()).status_code == 400


def test_the_resource_policy_is_read_and_set_and_holds_at_once(broker, admin, stranger):
    one = stranger()
    one.auth()
    one.attest()
    path = "/kbs/v0/resource-policy"
    shown = broker.http.get(path, headers=admin.headers()).json()
    assert shown == {"policy": b64url(AFFIRMING_TEXT)}
    body = {"policy": b64url(DENY_ALL_TEXT)}
    assert broker.http.post(path, json=body, headers=admin.headers()).status_code == 200
    answer = one.get()
    assert answer.status_code == 403
    assert answer.json()["type"].endswith("/PolicyDeny")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"policy": b64url("package policies")}, 400),
        ({"policy": "!"}, 400),
        ({"policy": "_w"}, 400),
        ({}, 400),
    ],
)
def test_a_resource_policy_that_cannot_be_evaluated_is_refused(broker, admin, body, status):
    path = "/kbs/v0/resource-policy"
    assert broker.http.post(path, json=body, headers=admin.headers()).status_code == status
    shown = broker.http.get(path, headers=admin.headers()).json()
    assert shown == {"policy": b64url(AFFIRMING_TEXT)}


def test_appraisal_policies_are_administered_here_too(broker, admin):
    base, headers = "/kbs/v0/attestation-policy", admin.headers()
    body = {"policy_id": "mine", "policy": b64url(TRUST_ALL_TEXT)}
    assert broker.http.post(base, json=body, headers=headers).status_code == 200
    listed = broker.http.get("/kbs/v0/attestation-policies", headers=headers).json()
    assert "mine" in {item["policy-id"] for item in listed}
    assert broker.http.get(f"{base}/mine", headers=headers).text == b64url(TRUST_ALL_TEXT)
    assert broker.http.delete(f"{base}/mine", headers=headers).status_code == 200
    assert broker.http.get(f"{base}/mine", headers=headers).status_code == 404


@pytest.mark.parametrize("prefix", ["", "/as"])
def test_with_an_administrator_being_on_the_machine_is_not_enough_for_policies(
    broker, admin, prefix
):
    body = {"policy_id": "mine", "policy": b64url(TRUST_ALL_TEXT)}
    answer = broker.http.post(f"{prefix}/policy", json=body)
    assert answer.status_code == 401
    assert broker.http.delete(f"{prefix}/policy/mine").status_code == 401
    answer = broker.http.post(f"{prefix}/policy", json=body, headers=admin.headers())
    assert answer.status_code == 200
    answer = broker.http.delete(f"{prefix}/policy/mine", headers=admin.headers())
    assert answer.status_code == 200


def message(values: object, **changes: object) -> dict:
    payload = base64.b64encode(json.dumps(values).encode()).decode()
    return {"version": "0.1.0", "type": "sample", "payload": payload, **changes}


def test_reference_values_are_registered_merged_shown_and_deleted(broker, admin):
    base, headers = "/kbs/v0/rvps", admin.headers()
    for values in ({"mr_td": ["a", "b"], "svn": 1}, {"mr_td": ["b", "c"], "svn": 2}):
        answer = broker.http.post(f"{base}/register", json=message(values), headers=headers)
        assert answer.json() == ["mr_td", "svn"]
    wrapped = {"message": json.dumps(message({"other": {"x": [1]}}))}
    assert broker.http.post(f"{base}/register", json=wrapped, headers=headers).status_code == 200
    shown = broker.http.get(f"{base}/query", headers=headers).json()
    assert shown == {"mr_td": ["a", "b", "c"], "svn": 2, "other": {"x": [1]}}
    assert broker.http.delete(f"{base}/delete/svn", headers=headers).status_code == 200
    assert broker.http.post(f"{base}/delete/svn", headers=headers).status_code == 404
    assert "svn" not in broker.http.get(f"{base}/query", headers=headers).json()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (message({}, version="0.2.0"), 400),
        (message({}, type="slsa"), 501),
        (message({}, payload="!"), 400),
        (message([]), 400),
        (message({"": 1}), 400),
        (message({"x" * 257: 1}), 400),
        (message({"a": "x" * 65_537}), 400),
        ({"message": 1}, 400),
        ({}, 400),
    ],
)
def test_a_message_that_is_none_is_refused(broker, admin, body, status):
    headers = admin.headers()
    before = broker.http.get("/kbs/v0/rvps/query", headers=headers).json()
    answer = broker.http.post("/kbs/v0/rvps/register", json=body, headers=headers)
    assert answer.status_code == status
    assert broker.http.get("/kbs/v0/rvps/query", headers=headers).json() == before
