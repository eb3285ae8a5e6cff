"""The whole exchange over HTTP, with a client written from the protocol's description."""

from __future__ import annotations

import base64
import concurrent.futures
import json

import httpx
import jwt
import pytest
from joserfc import jwe as joserfc_jwe
from joserfc import jwk as joserfc_jwk

from tng.attest.tdx.simulator.spoil import Spoil
from tng.clock import FixedClock

NOW = 1_795_000_000
PATH = "/kbs/v0/resource/default/aliyun/model-decryption-key"
SECRET = b"alibaba@1688"
ERRORS = "https://github.com/confidential-containers/kbs/errors/"


def kind(answer: httpx.Response) -> str:
    assert answer.json()["type"].startswith(ERRORS)
    assert answer.json()["detail"]
    return answer.json()["type"].removeprefix(ERRORS)


@pytest.mark.parametrize("prefix", ["", "/as"])
def test_the_probe_of_the_deployment_article_is_answered(broker, prefix):
    probe = {"version": "0.1.0", "tee": "tdx", "extra-params": "foo"}
    answer = httpx.post(f"{broker.url}{prefix}/kbs/v0/auth", json=probe)
    assert answer.status_code == 200
    assert answer.text.startswith('{"nonce":"')
    assert answer.text.endswith('","extra-params":""}')
    assert len(answer.json()["nonce"]) == 44
    name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
    assert name == "kbs-session-id"
    assert len(bytes.fromhex(value)) == 16


@pytest.mark.parametrize("key", ["EC", "RSA-OAEP-256"])
def test_a_machine_gets_its_model_key(stranger, key):
    one = stranger(kind=key)
    one.auth()
    token = one.attest().json()["token"]
    assert jwt.decode(token, options={"verify_signature": False})["eat_profile"]
    answer = one.get()
    assert one.open(answer) == SECRET
    assert answer.headers["cache-control"] == "no-store"
    header = json.loads(base64.urlsafe_b64decode(answer.json()["protected"] + "=="))
    assert header["enc"] == "A256GCM"
    assert header["alg"] == one.public["alg"]


@pytest.mark.parametrize("key", ["EC", "RSA-OAEP-256", "RSA1_5"])
@pytest.mark.parametrize("as_text", [True, False])
def test_a_machine_with_the_old_protocol_gets_it_too(stranger, key, as_text):
    one = stranger(kind=key)
    one.auth("0.1.0")
    assert one.attest(one.old_body(as_text=as_text)).status_code == 200
    assert one.open(one.get()) == SECRET


def test_the_old_padding_is_not_for_the_new_protocol(stranger):
    one = stranger(kind="RSA1_5")
    one.auth("0.4.0")
    answer = one.attest()
    assert answer.status_code == 400
    assert "RSA1_5" in answer.json()["detail"]


def test_joserfc_opens_the_answer(stranger):
    one = stranger()
    one.auth()
    one.attest()
    key = joserfc_jwk.ECKey.import_key(one.key.export(as_dict=True))
    opened = joserfc_jwe.decrypt_json(
        one.get().json(), key, algorithms=["ECDH-ES+A256KW", "A256GCM"]
    )
    assert opened.plaintext == SECRET


def test_every_answer_is_sealed_with_keys_of_its_own(stranger):
    one = stranger()
    one.auth()
    one.attest()
    first, second = one.get().json(), one.get().json()
    for member in ("protected", "encrypted_key", "iv", "ciphertext"):
        assert first[member] != second[member]


@pytest.mark.parametrize("header", ["attestation", "authorization"])
def test_a_token_serves_instead_of_the_session(stranger, header):
    one = stranger()
    one.auth()
    token = one.attest().json()["token"]
    one.http.cookies.clear()
    value = token if header == "attestation" else f"Bearer {token}"
    assert one.open(one.get(**{header: value})) == SECRET


def test_another_machine_cannot_open_what_the_token_gets(stranger):
    one, other = stranger(), stranger()
    one.auth()
    token = one.attest().json()["token"]
    answer = other.get(attestation=token)
    assert answer.status_code == 200
    with pytest.raises(Exception, match=r"(?i)decrypt|invalid|fail"):
        other.open(answer)


def test_an_attested_session_gets_its_token_again(stranger):
    one = stranger()
    one.auth()
    body = one.new_body()
    assert one.attest(body).json() == one.attest(body).json()


def test_without_evidence_there_is_nothing(stranger):
    one = stranger()
    answer = one.get()
    assert (answer.status_code, kind(answer)) == (401, "AttestationError")
    one.auth()
    answer = one.get()
    assert (answer.status_code, kind(answer)) == (401, "AttestationError")
    assert SECRET not in answer.content


def test_evidence_for_another_key_or_nonce_is_refused(stranger):
    one, other = stranger(), stranger()
    one.auth()
    other.auth()
    body = one.new_body()
    body["runtime-data"]["tee-pubkey"] = other.public
    answer = one.attest(body)
    assert (answer.status_code, kind(answer)) == (401, "AttestationError")
    assert answer.json()["tng_code"] == "binding_mismatch"
    replayed = other.attest(one.new_body())
    assert replayed.status_code == 401
    assert "nonce" in replayed.json()["detail"]
    # The old form does not repeat the nonce: the evidence alone gives a replay away.
    other.auth("0.1.0")
    other.public = one.public
    assert other.attest(one.old_body()).json()["tng_code"] == "binding_mismatch"


def test_a_nonce_is_good_for_one_attempt(stranger, platform):
    one = stranger()
    one.auth()
    good = one.new_body()
    one.evidence = platform.spoiled(Spoil.FLIPPED).evidence
    assert one.attest().status_code == 401
    answer = one.attest(good)
    assert (answer.status_code, kind(answer)) == (401, "AttestationError")


def test_a_session_ends_after_five_minutes(start, admin_key, platform_directory, stranger):
    clock = FixedClock(NOW)
    service = start(clock, admin_key=admin_key, simulated=platform_directory)
    one = stranger(url=service.url)
    one.auth()
    clock.at += 300
    assert one.attest().status_code == 401
    one.auth()
    assert one.attest().status_code == 200


def test_an_expired_token_gets_nothing(
    start, tmp_path, admin, admin_key, platform_directory, stranger
):
    clock = FixedClock(NOW)
    service = start(
        clock,
        state=tmp_path / "other",
        admin_key=admin_key,
        simulated=platform_directory,
        release_to_simulated=True,
    )
    service.http.post(PATH, content=SECRET, headers=admin.headers())
    one = stranger(url=service.url)
    one.auth()
    token = one.attest().json()["token"]
    clock.at += 299
    assert one.get(attestation=token).status_code == 200
    clock.at += 1
    answer = one.get(attestation=token)
    assert (answer.status_code, kind(answer)) == (401, "TokenVerifierError")


def test_a_token_of_another_service_gets_nothing(closed, stranger):
    one = stranger(url=closed.url)
    one.auth()
    token = one.attest().json()["token"]
    answer = stranger().get(attestation=token)
    assert (answer.status_code, kind(answer)) == (401, "TokenVerifierError")


@pytest.mark.parametrize("token", ["x", "a.b.c", "é", "eyJhbGciOiJub25lIn0.e30."])
def test_garbage_for_a_token_gets_nothing(stranger, token):
    answer = stranger().http.get(PATH, headers={b"attestation": token.encode()})
    assert (answer.status_code, kind(answer)) == (401, "TokenVerifierError")


def test_a_long_token_is_read_and_one_beyond_the_limit_is_not(stranger):
    answer = stranger().get(attestation="x" * 60_000)
    assert (answer.status_code, kind(answer)) == (401, "TokenVerifierError")
    assert stranger().get(attestation="x" * 66_000).status_code == 400
    assert stranger().get(**{f"x-{n}": "x" for n in range(70)}).status_code == 400


def test_a_changed_token_gets_nothing(stranger):
    one = stranger()
    one.auth()
    head, claims, signature = one.attest().json()["token"].split(".")
    flipped = ("B" if claims[40] == "A" else "A").join((claims[:40], claims[41:]))
    assert one.get(attestation=f"{head}.{flipped}.{signature}").status_code == 401


def test_simulated_evidence_gets_nothing_unless_the_operator_says_so(strict, stranger):
    one = stranger(url=strict.url)
    one.auth()
    assert one.attest().status_code == 200
    answer = one.get()
    assert (answer.status_code, kind(answer)) == (403, "PolicyDeny")
    assert "simulated" in answer.json()["detail"]


def test_the_switch_that_releases_to_simulated_evidence_is_loud(broker):
    assert any(
        "SIMULATED evidence" in item for item in broker.http.get("/status").json()["dangers"]
    )


def test_sample_evidence_is_not_affirmed(stranger):
    def sample(data: bytes) -> bytes:
        register = {"measure_register": "00" * 32, "svn": "1"}
        return json.dumps({**register, "report_data": base64.b64encode(data).decode()}).encode()

    one = stranger(sample)
    one.auth(tee="sample")
    assert one.attest().status_code == 200
    answer = one.get()
    assert (answer.status_code, kind(answer)) == (403, "PolicyDeny")
    assert "contraindicated" in answer.json()["detail"]


def test_a_token_made_under_another_appraisal_policy_gets_nothing(
    broker, platform, stranger, requests
):
    one = stranger()
    requests.claims = {"nonce": "x", "tee-pubkey": one.public}
    evidence = platform.evidence(requests.digest)
    for policy, status in (("default", 200), ("hardware_only", 403), ("trust_all", 403)):
        token = broker.http.post("/attestation", json=requests.listed("tdx", evidence, policy)).text
        assert one.get(attestation=token).status_code == status


def test_a_token_without_a_key_gets_nothing(broker, platform, stranger, requests):
    evidence = platform.evidence(requests.digest)
    token = broker.http.post("/attestation", json=requests.listed("tdx", evidence)).text
    answer = stranger().get(attestation=token)
    assert (answer.status_code, kind(answer)) == (401, "TokenVerifierError")


def test_a_resource_that_is_not_there_is_a_404_for_who_may_ask_and_for_nobody_else(stranger):
    one = stranger()
    path = "/kbs/v0/resource/default/aliyun/other"
    assert one.get(path).status_code == 401
    one.auth()
    one.attest()
    answer = one.get(path)
    assert (answer.status_code, kind(answer)) == (404, "ResourceNotFound")


@pytest.mark.parametrize(
    "path",
    [
        "a/b/.hidden",
        "a/b/%2e%2e",
        "a/b/c%2fd",
        "a/..%2f..%2fx/c",
        "a/b/c%00",
        "a/b/%c3%a9",
        "a/b/c,d",
    ],
)
def test_a_path_that_is_no_name_is_refused(stranger, path):
    one = stranger()
    one.auth()
    one.attest()
    answer = one.get(f"/kbs/v0/resource/{path}")
    assert answer.status_code in (400, 404)
    assert kind(answer) in ("AttestationError", "InvalidRequestPath")


@pytest.mark.parametrize("path", ["resource/a/b", "resource/a/b/c/d", "nothing", "token"])
def test_another_path_is_not_there(broker, path):
    answer = broker.http.get(f"/kbs/v0/{path}")
    assert (answer.status_code, kind(answer)) == (404, "InvalidRequestPath")


def test_without_an_administrator_there_are_no_resources(closed, stranger):
    one = stranger(url=closed.url)
    one.auth()
    assert one.attest().status_code == 200
    answer = one.get()
    assert answer.status_code == 403
    assert "--admin-key" in answer.json()["detail"]


def test_composite_evidence_is_bound_to_what_it_brings_along(broker, platform, stranger):
    one = stranger()
    one.auth()
    body = one.new_body()
    body["tee-evidence"]["additional_evidence"] = "{}"
    assert one.attest(body).json()["tng_code"] == "binding_mismatch"
    one.auth()
    assert one.attest(one.new_body("{}")).status_code == 200


def test_evidence_of_a_further_device_is_judged_too(stranger):
    one = stranger()
    one.auth()
    sample = {"measure_register": "00" * 32, "svn": "1", "report_data": "AAAA"}
    answer = one.attest(one.new_body(json.dumps({"sample": sample})))
    assert answer.json()["tng_code"] == "binding_mismatch"
    one.auth()
    answer = one.attest(one.new_body(json.dumps({"nvidia": {"x": 1}})))
    assert answer.status_code == 400
    assert "device_evidence_list" in answer.json()["detail"]
    one.auth()
    answer = one.attest(one.new_body(json.dumps({"csv": {"x": 1}})))
    assert answer.status_code == 400
    assert "csv" in answer.json()["detail"]


def test_init_data_are_compared(stranger):
    one = stranger()
    one.auth()
    text = 'algorithm = "sha384"\nversion = "0.1.0"\n[data]\na = "b"\n'
    answer = one.attest(one.new_body(**{"init-data": {"format": "toml", "body": text}}))
    assert answer.json()["tng_code"] == "binding_mismatch"


def test_many_machines_at_once_get_their_secrets(stranger):
    def one_of_them(one):
        one.auth()
        one.attest()
        return one.open(one.get())

    machines = [stranger() for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert set(threads.map(one_of_them, machines)) == {SECRET}


@pytest.mark.slow
def test_of_fifty_machines_at_once_each_gets_its_own_session_and_the_secret(broker, stranger):
    def one_of_them(one):
        assert one.auth().status_code == 200
        answer = one.attest()
        assert answer.status_code == 200, answer.text
        return one.nonce, answer.json()["token"], one.open(one.get())

    broker.decisions.clear()
    machines = [stranger() for _ in range(50)]
    with concurrent.futures.ThreadPoolExecutor(50) as threads:
        nonces, tokens, secrets = zip(*threads.map(one_of_them, machines), strict=True)
    assert set(secrets) == {SECRET}
    assert len(set(nonces)) == len(set(tokens)) == 50
    released = [d.subject for d in broker.decisions if d.act == "release" and d.granted]
    assert len(set(released)) == len(released) == 50


def test_every_decision_is_told(broker, stranger, requests):
    broker.decisions.clear()
    one = stranger()
    one.get()
    one.auth()
    one.attest(one.new_body(**{"runtime-data": {"nonce": "x", "tee-pubkey": one.public}}))
    one.auth()
    one.attest()
    one.get()
    one.get("/kbs/v0/resource/default/test/nothing")
    one.get("/kbs/v0/resources")
    broker.http.post("/attestation", json=requests.listed("sample", requests.sample()))
    broker.http.post("/attestation", json=requests.listed("sample", b"x"))
    told = [(d.act, d.granted, d.target, d.code) for d in broker.decisions]
    name = "kbs:///default/aliyun/model-decryption-key"
    sample = "evidence of sample policy=default status=contraindicated"
    assert told == [
        ("release", False, name, "KBS.SESSION.INVALID"),
        ("appraise", False, "evidence of tdx", "KBS.SESSION.INVALID"),
        ("appraise", True, "evidence of tdx policy=default status=affirming", ""),
        ("release", True, name, ""),
        ("release", False, "kbs:///default/test/nothing", "KBS.RESOURCE.NOT_FOUND"),
        ("administer", False, "list resources", "KBS.ADMIN.UNAUTHORIZED"),
        ("appraise", True, sample, ""),
        ("appraise", False, "evidence of sample", "AS.EVIDENCE.INVALID_FORMAT"),
    ]
    assert {d.client for d in broker.decisions} == {"127.0.0.1"}
    assert {d.at for d in broker.decisions} == {NOW}
    appraised, released = broker.decisions[2:4]
    assert appraised.subject == released.subject
    assert len(bytes.fromhex(released.subject)) == 32
    assert released.simulated
    assert one.nonce not in repr(broker.decisions)


def test_of_two_attempts_at_once_one_gets_the_token_and_keeps_it(stranger):
    one = stranger()
    one.auth()
    body = one.new_body()
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(one.attest, (body, body)))
    assert 200 in {answer.status_code for answer in answers}
    assert one.open(one.get()) == SECRET


@pytest.mark.slow
def test_a_restart_keeps_secrets_and_forgets_sessions(
    start, admin, admin_key, platform_directory, stranger
):
    settings = {
        "admin_key": admin_key,
        "simulated": platform_directory,
        "release_to_simulated": True,
    }
    first = start(**settings)
    first.http.post(PATH, content=SECRET, headers=admin.headers())
    one = stranger(url=first.url)
    one.auth()
    one.attest()
    first.stop()
    one.http.base_url = start(**settings).url
    assert one.get().status_code == 401
    one.auth()
    one.attest()
    assert one.open(one.get()) == SECRET


def test_no_answer_and_no_log_line_holds_the_secret(stranger, caplog):
    one = stranger()
    one.auth()
    answers = [one.attest(), one.get(), one.get("/kbs/v0/resources")]
    assert not any(SECRET in answer.content for answer in answers)
    assert SECRET.decode() not in caplog.text


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"a":1,"a":2}', b"{}", b'{"version":"0.4.0","tee":"tdx","x":1}']
)
@pytest.mark.parametrize("path", ["auth", "attest"])
def test_garbage_is_a_400_or_no_session(stranger, path, body):
    one = stranger()
    one.auth()
    answer = one.http.post(
        f"/kbs/v0/{path}", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    kind(answer)


def test_a_web_page_cannot_begin_a_handshake(broker):
    answer = broker.http.post("/kbs/v0/auth", content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
