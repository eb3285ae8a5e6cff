"""From a section of the configuration to the client that it names."""

from __future__ import annotations

import types

import pytest

from tng.attest.appraiser.builtin_factory import make_builtin
from tng.attest.appraiser.factory import make_appraiser
from tng.attest.appraiser.trustee_grpc import TrusteeGrpcAppraiser
from tng.attest.appraiser.trustee_rest import TrusteeRestAppraiser
from tng.clock import FixedClock
from tng.config.model import Verify
from tng.errors import ConfigError


def verify(**members):
    members = {"as_addr": "http://127.0.0.1:1", "policy_ids": ["default"], **members}
    return Verify.model_validate(members)


def test_each_kind_of_service_has_its_client():
    assert isinstance(make_appraiser(verify(), "verify"), TrusteeRestAppraiser)
    section = verify(as_type="grpc", as_headers={"X-Key": "s3cret"})
    assert isinstance(make_appraiser(section, "verify"), TrusteeGrpcAppraiser)


def test_without_an_address_there_is_no_client():
    section = types.SimpleNamespace(as_addr=None, as_headers={}, as_provider="coco", as_type="grpc")
    assert make_appraiser(section, "verify") is None


@pytest.mark.parametrize(
    ("section", "where"),
    [
        (verify(as_type="grpc", as_addr="http://h/as"), "verify.as_addr"),
        (verify(as_type="grpc", as_headers={"x-bin": "a"}), "verify.as_headers"),
    ],
)
def test_what_grpc_cannot_say_is_an_error_at_start(section, where):
    with pytest.raises(ConfigError, match=where):
        make_appraiser(section, "verify")


def test_a_service_that_nobody_knows_is_refused():
    section = types.SimpleNamespace(
        as_addr="http://h", as_headers={}, as_provider="else", as_type="restful"
    )
    with pytest.raises(ConfigError, match="expected as_provider coco"):
        make_appraiser(section, "attest")


def test_the_builtin_service_comes_with_its_anchor():
    section = Verify.model_validate({"as_type": "builtin"})
    appraiser, anchor = make_builtin(section, FixedClock(1_800_000_000))
    assert "default" in repr(appraiser)
    assert "builtin AS CA" in anchor.subject.rfc4514_string()


def test_a_policy_that_cannot_be_read_is_named(tmp_path):
    policy = {"type": "path", "path": str(tmp_path / "gone.rego")}
    section = Verify.model_validate({"as_type": "builtin", "attestation_policy": policy})
    with pytest.raises(ConfigError, match="attestation_policy"):
        make_builtin(section, FixedClock(0))
