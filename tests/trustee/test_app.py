from __future__ import annotations

import base64
import hashlib
import json

import jwt
import pytest
from aiohttp.test_utils import make_mocked_request
from cryptography import x509
from cryptography.x509.oid import NameOID

from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.attest.tdx.simulator.spoil import EXPECTED_CODE, Spoil
from tng.attest.token import check_token
from tng.errors import ErrorCode, UntrustedPeerError
from tng.trustee.app import _require_local
from tng.trustee.policy import HARDWARE_ONLY_TEXT, TRUST_ALL_TEXT
from tng.trustee.problems import TrusteeRequestError

NOW = 1_795_000_000
CHECKS = [
    "evidence format",
    "quote format",
    "quote signature",
    "collateral freshness",
    "revocation",
    "TCB status",
    "trust domain",
    "report data",
    "init data",
    "event log",
]


def verified_claims(token: str, pem: bytes) -> dict:
    """Check a token as a stranger would: chain from the PEM, key from the chain, then PyJWT."""
    header = jwt.get_unverified_header(token)
    entries = [base64.urlsafe_b64decode(text + "==") for text in header["jwk"]["x5c"]]
    leaf, ca = (x509.load_der_x509_certificate(der) for der in entries)
    assert x509.load_pem_x509_certificates(pem) == [leaf, ca]
    leaf.verify_directly_issued_by(ca)
    ca.verify_directly_issued_by(ca)
    assert leaf.not_valid_before_utc.timestamp() < NOW < leaf.not_valid_after_utc.timestamp()
    return jwt.decode(token, leaf.public_key(), ["ES256"], options={"verify_exp": False})


@pytest.fixture(params=["", "/as"])
def prefix(request):
    return request.param


@pytest.fixture(params=["listed", "flat"])
def form(request, requests):
    return getattr(requests, request.param)


def test_simulated_evidence_becomes_an_affirming_token_that_says_simulated(
    trustee, platform, requests, form, prefix
):
    body = form("tdx", platform.evidence(requests.digest))
    answer = trustee.http.post(f"{prefix}/attestation", json=body)
    assert answer.status_code == 200
    claims = verified_claims(answer.text, trustee.http.get(f"{prefix}/certificate").content)
    assert (claims["iat"], claims["exp"]) == (NOW, NOW + 300)
    assert "SIMULATED" in claims["ear.verifier-id"]["build"]
    assert list(claims["submods"]) == ["cpu0"]
    module = claims["submods"]["cpu0"]
    assert module["ear.status"] == "affirming"
    assert module["ear.appraisal-policy-id"] == "default"
    evidence = module["ear.veraison.annotated-evidence"]
    assert evidence["runtime_data_claims"] == requests.claims
    assert evidence["report_data"] == requests.digest.hex() + "00" * 16
    assert evidence["init_data"] == "00" * 48
    assert evidence["init_data_claims"] is None
    assert evidence["tdx"]["simulated_platform"] is True
    assert evidence["tdx"]["quote"]["body"]["mr_td"] == platform.mr_td.hex()
    assert evidence["tdx"]["tcb_verification"]["tcb_status"] == "UpToDate"
    assert evidence["tdx"]["uefi_event_logs"]


def test_our_own_verifier_accepts_the_token_only_with_allow_simulated(trustee, platform, requests):
    body = requests.listed("tdx", platform.evidence(requests.digest))
    token = trustee.http.post("/attestation", json=body).text
    anchors = x509.load_pem_x509_certificates(trustee.http.get("/certificate").content)
    options = {
        "anchors": anchors,
        "expected_claims": requests.claims,
        "policy_ids": ["default"],
        "now": float(NOW),
    }
    check_token(token, allow_simulated=True, **options)
    with pytest.raises(UntrustedPeerError) as caught:
        check_token(token, allow_simulated=False, **options)
    assert caught.value.code is ErrorCode.SIMULATED_EVIDENCE


@pytest.mark.parametrize(
    "spoil", [s for s in Spoil if s not in (Spoil.REVOKED, Spoil.EXPIRED_COLLATERAL)]
)
def test_every_tampering_is_refused_with_its_own_code(trustee, platform, requests, spoil):
    body = requests.listed("tdx", platform.spoiled(spoil).evidence(requests.digest))
    answer = trustee.http.post("/as/attestation", json=body)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem = answer.json()
    assert problem["tng_code"] == EXPECTED_CODE[spoil].value
    assert problem["code"].startswith("AS.EVIDENCE.")
    assert problem["status"] == answer.status_code
    assert problem["retryable"] is False
    assert [check["name"] for check in problem["checks"]] == CHECKS
    assert [check["outcome"] for check in problem["checks"]].count("fail") == 1


@pytest.mark.parametrize("spoil", [Spoil.REVOKED, Spoil.EXPIRED_COLLATERAL])
def test_spoiled_collateral_is_refused_with_its_own_code(start, tmp_path, requests, spoil):
    platform = SimulatedPlatform.create(tmp_path / "platform", now=NOW, spoil=spoil)
    trustee = start(simulated=tmp_path / "platform")
    body = requests.listed("tdx", platform.evidence(requests.digest))
    problem = trustee.http.post("/attestation", json=body).json()
    assert problem["tng_code"] == EXPECTED_CODE[spoil].value
    assert problem["code"] == "AS.EVIDENCE.VERIFICATION_FAILED"


def test_without_allow_simulated_a_simulated_platform_is_refused_by_name(start, platform, requests):
    trustee = start()
    body = requests.listed("tdx", platform.evidence(requests.digest))
    answer = trustee.http.post("/attestation", json=body)
    assert answer.status_code == 422
    assert answer.json()["tng_code"] == "simulated_evidence"
    assert answer.json()["checks"][2]["outcome"] == "fail"
    assert trustee.http.get("/status").json()["dangers"] == []


def test_another_simulated_platform_is_not_the_one_that_was_named(trustee, requests):
    stranger = SimulatedPlatform.build(now=NOW)
    body = requests.listed("tdx", stranger.evidence(requests.digest))
    assert trustee.http.post("/attestation", json=body).json()["tng_code"] == "unknown_root"


def test_evidence_bound_to_other_claims_is_refused(trustee, platform, requests):
    evidence = platform.evidence(requests.digest)
    requests.claims["pubkey-hash"] = "another"
    answer = trustee.http.post("/attestation", json=requests.listed("tdx", evidence))
    assert answer.status_code == 422
    assert answer.json()["code"] == "AS.EVIDENCE.BINDING_MISMATCH"


def test_raw_runtime_data_bind_as_they_are(trustee, platform, requests):
    raw = base64.urlsafe_b64encode(b"r" * 64).rstrip(b"=").decode()
    body = requests.listed("tdx", platform.evidence(b"r" * 64), runtime_data={"raw": raw})
    token = trustee.http.post("/attestation", json=body).text
    claims = jwt.decode(token, options={"verify_signature": False})
    evidence = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert evidence["runtime_data_claims"] is None
    body = requests.listed("tdx", platform.evidence(b"s" * 64), runtime_data={"raw": raw})
    assert trustee.http.post("/attestation", json=body).status_code == 422


def test_init_data_are_compared(trustee, platform, requests):
    text = 'algorithm = "sha384"\nversion = "0.1.0"\n[data]\na = "b"\n'
    init_data = {"init_data_toml": text}
    body = requests.listed("tdx", platform.evidence(requests.digest), init_data=init_data)
    assert trustee.http.post("/attestation", json=body).json()["tng_code"] == "binding_mismatch"


def test_several_devices_are_all_judged(trustee, platform, requests):
    evidence = platform.evidence(requests.digest)
    one, two = requests.one("tdx", evidence), requests.one("sample", requests.sample())
    body = {"verification_requests": [one, two], "policy_ids": []}
    token = trustee.http.post("/attestation", json=body).text
    modules = jwt.decode(token, options={"verify_signature": False})["submods"]
    assert {name: module["ear.status"] for name, module in modules.items()} == {
        "cpu0": "affirming",
        "cpu1": "contraindicated",
    }
    bad = requests.one("sample", b"{}")
    body = {"verification_requests": [one, bad], "policy_ids": []}
    assert trustee.http.post("/attestation", json=body).status_code == 400


@pytest.mark.parametrize(
    ("policy", "status"), [("default", "contraindicated"), ("trust_all", "affirming")]
)
def test_sample_evidence_is_affirmed_by_trust_all_alone(trustee, requests, form, policy, status):
    answer = trustee.http.post("/attestation", json=form("sample", requests.sample(), policy))
    claims = jwt.decode(answer.text, options={"verify_signature": False})
    assert claims["submods"]["cpu0"]["ear.status"] == status
    assert "init_data_claims" not in claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]


def test_sample_evidence_needs_a_switch(start, requests):
    answer = start().http.post("/attestation", json=requests.listed("sample", requests.sample()))
    assert answer.status_code == 400
    assert answer.json()["code"] == "AS.REQUEST.UNSUPPORTED_TEE"
    assert "--allow-sample" in answer.json()["detail"]


@pytest.mark.parametrize("tee", ["snp", "csv", "az-tdx-vtpm"])
def test_a_tee_that_is_not_verified_here_is_refused(trustee, requests, tee):
    answer = trustee.http.post("/attestation", json=requests.listed(tee, b"{}"))
    assert answer.status_code == 400
    assert answer.json()["code"] == "AS.REQUEST.UNSUPPORTED_TEE"
    assert answer.json()["field"] == "verification_requests[0].tee"


def test_an_unknown_policy_is_refused_before_the_evidence_is_judged(trustee, requests):
    answer = trustee.http.post("/attestation", json=requests.listed("tdx", b"x", "nothing"))
    assert answer.status_code == 400
    assert answer.json()["field"] == "policy_ids[0]"


def test_a_challenge_is_good_for_one_round(trustee, platform, requests, prefix):
    answer = trustee.http.post(f"{prefix}/challenge", json={}).json()
    requests.claims["challenge_token"] = answer["extra-params"]["jwt"]
    body = requests.listed("tdx", platform.evidence(requests.digest))
    assert trustee.http.post(f"{prefix}/attestation", json=body).status_code == 200


@pytest.mark.parametrize(("token", "status"), [("dummy nonce", 401), ("a.b.c", 401), (7, 400)])
def test_a_foreign_challenge_is_refused(trustee, platform, requests, token, status):
    requests.claims["challenge_token"] = token
    body = requests.listed("tdx", platform.evidence(requests.digest))
    answer = trustee.http.post("/attestation", json=body)
    assert answer.status_code == status


def test_a_challenge_for_a_tee_is_empty(trustee, prefix):
    answer = trustee.http.post(f"{prefix}/challenge", json={"tee": "tdx", "tee_params": ""})
    assert (answer.status_code, answer.text) == (200, "")
    assert trustee.http.post(f"{prefix}/challenge", json={"tee": "x"}).status_code == 400


def test_the_certificate_is_a_pem_chain_with_the_ca_that_is_on_disk(trustee, prefix):
    answer = trustee.http.get(f"{prefix}/certificate")
    assert answer.headers["content-type"] == "application/x-pem-file"
    leaf, ca = x509.load_pem_x509_certificates(answer.content)
    assert ca.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "tng trustee CA"
    pinned = (trustee.settings.state / "ca.pem").read_bytes()
    assert x509.load_pem_x509_certificate(pinned) == ca
    assert leaf != ca


def _b64url(text):
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def test_policies_are_stored_listed_shown_and_deleted(trustee, prefix):
    body = {"type": "rego", "policy_id": "mine", "policy": _b64url(TRUST_ALL_TEXT)}
    answer = trustee.http.post(f"{prefix}/policy", json=body)
    assert (answer.status_code, answer.content) == (200, b"")
    listed = {item["policy-id"]: item["policy-hash"] for item in trustee.http.get("/policy").json()}
    digest = hashlib.sha384(TRUST_ALL_TEXT.encode()).digest()
    assert listed["mine"] == base64.urlsafe_b64encode(digest).decode()
    assert trustee.http.get(f"{prefix}/policy/mine").text == _b64url(TRUST_ALL_TEXT)
    assert trustee.http.get(f"{prefix}/policy/default").text == _b64url(HARDWARE_ONLY_TEXT)
    assert trustee.http.delete(f"{prefix}/policy/mine").status_code == 200
    assert trustee.http.get(f"{prefix}/policy/mine").status_code == 404
    assert trustee.http.delete(f"{prefix}/policy/mine").status_code == 404
    assert trustee.http.delete(f"{prefix}/policy/default").status_code == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"policy_id": "mine", "policy": _b64url("package policies")}, 400),
        ({"policy_id": "../x", "policy": _b64url(TRUST_ALL_TEXT)}, 400),
        ({"policy_id": "mine", "policy": "!"}, 400),
        ({"policy_id": "mine", "policy": "_w"}, 400),
        ({"policy_id": "mine"}, 400),
        ({"policy": "AA"}, 400),
        ([], 400),
    ],
)
def test_a_policy_that_cannot_be_stored_is_refused(trustee, body, status):
    before = trustee.http.get("/policy").json()
    answer = trustee.http.post("/policy", json=body)
    assert answer.status_code == status
    assert trustee.http.get("/policy").json() == before


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_web_page_cannot_change_policies(trustee, method):
    path = "/policy" if method == "POST" else "/policy/default"
    body = {"policy_id": "mine", "policy": _b64url(TRUST_ALL_TEXT)}
    headers = {"origin": "http://127.0.0.1"}
    answer = trustee.http.request(method, path, json=body, headers=headers)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("remote", "allowed"),
    [("127.0.0.1", True), ("::1", True), ("192.0.2.1", False), ("2001:db8::1", False), ("", False)],
)
def test_another_machine_cannot_change_policies(remote, allowed):
    request = make_mocked_request("POST", "/policy").clone(remote=remote)
    if allowed:
        _require_local(request)
        return
    with pytest.raises(TrusteeRequestError, match="loopback"):
        _require_local(request)


def test_trouble_of_ours_is_a_500_without_its_cause(start, caplog):
    trustee = start()
    (trustee.settings.state / "policies").rmdir()
    body = {"policy_id": "mine", "policy": _b64url(TRUST_ALL_TEXT)}
    answer = trustee.http.post("/policy", json=body)
    assert answer.status_code == 500
    assert answer.json()["code"] == "AS.INTERNAL.ERROR"
    assert str(trustee.settings.state) not in answer.text
    assert "cannot be written" in caplog.text
    assert trustee.http.get("/policy/mine").status_code == 404


def test_an_uploaded_policy_is_evaluated(trustee, requests):
    body = {"policy_id": "uploaded", "policy": _b64url(TRUST_ALL_TEXT)}
    trustee.http.post("/policy", json=body)
    body = requests.listed("sample", requests.sample(), "uploaded")
    claims = jwt.decode(
        trustee.http.post("/attestation", json=body).text, options={"verify_signature": False}
    )
    assert claims["submods"]["cpu0"]["ear.appraisal-policy-id"] == "uploaded"
    assert claims["submods"]["cpu0"]["ear.status"] == "affirming"


def test_the_status_names_what_is_dangerous(trustee, prefix):
    body = trustee.http.get(f"{prefix}/status").json()
    assert body["service"] == "attestation-service"
    assert body["status"] == "ok"
    assert {item["kind"] for item in body["dependencies"]} == {"signer", "collateral"}
    assert len(body["dangers"]) == 2
    assert "SIMULATED" in body["dangers"][0]


def test_the_probe_of_the_deployment_article_is_answered(trustee, prefix):
    probe = {"version": "0.1.0", "tee": "tdx", "extra-params": "foo"}
    answer = trustee.http.post(f"{prefix}/kbs/v0/auth", json=probe)
    assert answer.status_code == 200
    assert list(answer.json()) == ["nonce", "extra-params"]
    assert len(answer.json()["nonce"]) == 44
    assert answer.headers["set-cookie"].startswith("kbs-session-id=")
    trustee.http.cookies.clear()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/attestation", 405), ("PUT", "/policy", 405)],
)
def test_other_paths_and_methods_are_problems_too(trustee, method, path, status):
    answer = trustee.http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["tng_code"] == "request_rejected"


@pytest.mark.parametrize("path", ["/attestation", "/challenge", "/policy", "/kbs/v0/auth"])
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"a":1,"a":2}'])
def test_a_garbage_body_is_a_400_problem(trustee, path, body):
    answer = trustee.http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["code"] == "AS.REQUEST.INVALID_JSON"


@pytest.mark.parametrize("path", ["/attestation", "/challenge", "/policy", "/kbs/v0/auth"])
def test_a_body_that_a_web_page_could_post_is_refused(trustee, path):
    answer = trustee.http.post(path, content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415


def test_a_compressed_body_is_refused(trustee):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert trustee.http.post("/attestation", content=b"x", headers=headers).status_code == 415


def test_evidence_that_is_no_evidence_is_malformed_with_its_checks(trustee, requests):
    answer = trustee.http.post("/attestation", json=requests.listed("tdx", b"not json"))
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["tng_code"] == "evidence_malformed"
    assert [check["outcome"] for check in problem["checks"][:2]] == ["fail", "skip"]


def test_no_refusal_repeats_evidence_or_secrets(trustee, platform, requests):
    secret = "s3cret-claim-value"
    requests.claims["other"] = secret
    body = requests.listed("tdx", platform.evidence(b"x"))
    answer = trustee.http.post("/attestation", json=body)
    assert answer.status_code == 422
    assert secret not in answer.text
    assert json.dumps(body["verification_requests"][0]["evidence"]) not in answer.text
