from __future__ import annotations

import base64
import json

import jwt
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tng.attest.ear import PROFILE
from tng.attest.ear_token import Submodule, sign_ear
from tng.attest.policy.base import Tier, tier_of
from tng.attest.signer_identity import make_signer
from tng.errors import LocalProtocolError

NOW = 1_795_000_000


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((-1, 0, 1), Tier.NONE),
        ((-32, -2, 2, 31), Tier.AFFIRMING),
        ((-96, -33, 32, 95), Tier.WARNING),
        ((-128, -97, 96, 127), Tier.CONTRAINDICATED),
    ],
)
def test_tiers_are_those_that_were_measured(shared, values, expected):
    recorded = json.loads(
        (shared / "vectors/attestation/recorded/tng-2.12.0-wire.json").read_text()
    )
    ranges = recorded["ear_status_tiers"][expected.value]
    edges = [edge for item in ranges for edge in (item if isinstance(item, list) else [item])]
    assert sorted(edges) == sorted(values)
    assert {tier_of(value) for value in values} == {expected}


def signed(module, *, simulated):
    names = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("ca", "leaf"))
    signer = make_signer(*names, NOW)
    return sign_ear(signer, [module], service="a service", now=NOW, simulated=simulated)


def status_of(vector):
    return Submodule("cpu0", "default", vector, {}).status


def test_the_worst_tier_decides():
    assert status_of({"a": 2, "b": 0}) is Tier.AFFIRMING
    assert status_of({"a": 0}) is Tier.NONE
    assert status_of({"a": 2, "b": 35}) is Tier.WARNING
    assert status_of({"a": 35, "b": 97, "c": 2}) is Tier.CONTRAINDICATED


def test_an_empty_vector_makes_no_token():
    with pytest.raises(LocalProtocolError):
        status_of({})


def test_a_token_verifies_with_the_key_of_its_own_chain():
    module = Submodule("cpu0", "default", {"hardware": 2}, {"tdx": {"ä": 1}})
    token = signed(module, simulated=False)
    header = jwt.get_unverified_header(token)
    assert header["typ"] == "JWT"
    assert header["alg"] == header["jwk"]["alg"] == "ES256"
    leaf_der = base64.urlsafe_b64decode(header["jwk"]["x5c"][0] + "==")
    leaf = x509.load_der_x509_certificate(leaf_der)
    claims = jwt.decode(token, leaf.public_key(), ["ES256"], options={"verify_exp": False})
    assert jwt.PyJWK(header["jwk"]).key.public_numbers() == leaf.public_key().public_numbers()
    assert claims["eat_profile"] == PROFILE
    assert claims["exp"] - claims["iat"] == 300
    assert claims["submods"]["cpu0"]["ear.status"] == "affirming"
    assert claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"] == {"tdx": {"ä": 1}}
    assert "SIMULATED" not in claims["ear.verifier-id"]["build"]


def test_a_token_for_simulated_evidence_says_so():
    module = Submodule("cpu0", "default", {"hardware": 2}, {})
    token = signed(module, simulated=True)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["ear.verifier-id"]["build"].endswith("SIMULATED")
