"""Rego over the wire: uploaded, given reference values, bounded in time, and after a restart."""

from __future__ import annotations

import base64
import concurrent.futures
import importlib.util
import json
import time

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("regorus") is None, reason="no Rego engine (extra `rego`)"
)
KNOWN_GUEST = """\
package policy

import rego.v1

default executables := 33

executables := 2 if input.tdx.quote.body.mr_td in query_reference_value("mr_td")

hardware := 2 if input.tdx
"""
ENDLESS = """\
package policy

import rego.v1

hardware := 2 if {
	some i in numbers.range(1, 9000)
	some j in numbers.range(1, 9000)
	i * j == -1
}
"""


def b64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def put(trustee, name, text, **more):
    body = {"policy_id": name, "policy": b64url(text)}
    answer = trustee.http.post("/policy", json=body, **more)
    assert answer.status_code == 200, answer.text


def status_of(answer):
    assert answer.status_code == 200, answer.text
    claims = json.loads(base64.urlsafe_b64decode(answer.text.split(".")[1] + "=="))
    return claims["submods"]["cpu0"]["ear.status"]


def test_reference_values_of_administrators_reach_the_policy(service, admin, platform, requests):
    put(service, "known-guest", KNOWN_GUEST, headers=admin.headers())
    body = requests.listed("tdx", platform.evidence(requests.digest), "known-guest")
    assert status_of(service.http.post("/attestation", json=body)) == "warning"
    values = base64.b64encode(json.dumps({"mr_td": [platform.mr_td.hex()]}).encode()).decode()
    message = {"version": "0.1.0", "type": "sample", "payload": values}
    answer = service.http.post("/kbs/v0/rvps/register", json=message, headers=admin.headers())
    assert answer.status_code == 200
    assert status_of(service.http.post("/attestation", json=body)) == "affirming"
    service.http.delete("/kbs/v0/rvps/delete/mr_td", headers=admin.headers())
    assert status_of(service.http.post("/attestation", json=body)) == "warning"


def test_a_policy_that_gives_no_vector_is_a_refusal_and_no_token(trustee, platform, requests):
    put(trustee, "silent", "package policy\n")
    body = requests.listed("tdx", platform.evidence(requests.digest), "silent")
    answer = trustee.http.post("/attestation", json=body)
    assert (answer.status_code, answer.json()["tng_code"]) == (422, "policy_denied")
    assert trustee.decisions[-1].granted is False


def test_an_uploaded_text_is_there_and_evaluated_after_a_restart(
    start, platform_directory, platform, requests
):
    first = start(simulated=platform_directory)
    put(first, "mine", KNOWN_GUEST)
    first.stop()
    second = start(simulated=platform_directory)
    assert second.http.get("/policy/mine").text == b64url(KNOWN_GUEST)
    body = requests.listed("tdx", platform.evidence(requests.digest), "mine")
    assert status_of(second.http.post("/attestation", json=body)) == "warning"


@pytest.mark.slow
def test_a_policy_that_takes_too_long_is_a_refusal_and_nobody_else_waits(
    start, platform_directory, platform, requests
):
    trustee = start(simulated=platform_directory, rego_limit_s=1.0)
    put(trustee, "endless", ENDLESS)
    body = requests.listed("tdx", platform.evidence(requests.digest), "endless")
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        endless = threads.submit(trustee.http.post, "/attestation", json=body)
        took = []
        while not endless.done():
            begin = time.monotonic()
            assert trustee.http.get("/status").status_code == 200
            took.append(time.monotonic() - begin)
        answer = endless.result()
    assert max(took) < 0.8
    assert sum(took) > 0.8
    assert (answer.status_code, answer.json()["tng_code"]) == (422, "policy_denied")
    assert "not evaluated within 1 s" in answer.json()["detail"]
    fine = requests.listed("tdx", platform.evidence(requests.digest))
    assert status_of(trustee.http.post("/attestation", json=fine)) == "affirming"


def test_a_resource_policy_of_ones_own_decides_by_path_and_claims(broker, admin, stranger):
    text = """package policy

import rego.v1

allow if {
	data["resource-path"] == "resource/default/aliyun/model-decryption-key"
	input.submods.cpu0["ear.status"] == "affirming"
}
"""
    path, headers = "/kbs/v0/resource-policy", admin.headers()
    answer = broker.http.post(path, json={"policy": b64url(text)}, headers=headers)
    assert answer.status_code == 200
    one = stranger()
    one.auth()
    one.attest()
    assert one.open(one.get())
    broker.http.post("/kbs/v0/resource/default/aliyun/other", content=b"x", headers=headers)
    refused = one.get("/kbs/v0/resource/default/aliyun/other")
    assert refused.status_code == 403
    assert refused.json()["type"].endswith("/PolicyDeny")
