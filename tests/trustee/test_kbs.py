from __future__ import annotations

import base64
import json

import pytest

from tng.trustee.kbs import answer_auth
from tng.trustee.problems import TrusteeRequestError

PROBE = {"version": "0.1.0", "tee": "tdx", "extra-params": "foo"}


@pytest.mark.parametrize("version", ["0.1.0", "0.4.0"])
def test_a_probe_gets_a_nonce_and_empty_parameters(version):
    first = answer_auth(json.dumps(PROBE | {"version": version}).encode())
    second = answer_auth(json.dumps(PROBE).encode())
    assert first.body.startswith(b'{"nonce":"')
    assert first.body.endswith(b'","extra-params":""}')
    assert len(base64.b64decode(json.loads(first.body)["nonce"])) == 32
    assert len(bytes.fromhex(first.session_id)) == 16
    assert first.body != second.body
    assert first.session_id != second.session_id


@pytest.mark.parametrize(
    "changes", [{"version": "0.5.0"}, {"version": 1}, {"tee": "x"}, {"tee": None}, {"more": 1}]
)
def test_another_request_is_refused(changes):
    with pytest.raises(TrusteeRequestError) as caught:
        answer_auth(json.dumps(PROBE | changes).encode())
    assert caught.value.http_status == 400
