"""From a section of the configuration to the client that it names."""

from __future__ import annotations

import types

import pytest

from tng.attest.appraiser.builtin_factory import make_builtin
from tng.attest.appraiser.factory import make_appraiser, make_ita_appraiser
from tng.attest.appraiser.trustee_grpc import TrusteeGrpcAppraiser
from tng.attest.appraiser.trustee_rest import TrusteeRestAppraiser
from tng.attest.passport import make_issuer
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.attest.verifier.factory import make_verifier
from tng.clock import FixedClock
from tng.config.model import Attest, Verify
from tng.config.secret import Secret
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


@pytest.mark.parametrize(
    "address",
    [None, "https://api.trustauthority.intel.com/", "https://api.EU.trustauthority.intel.com."],
)
def test_a_key_that_is_certainly_needed_is_missed_at_start(address):
    words = {"as_provider": "ita", "as_addr": address}
    section = Verify.model_validate({name: word for name, word in words.items() if word})
    passport = Attest.model_construct(model="passport", **words)
    with pytest.raises(ConfigError, match=r"^verify\.api_key: .*ITA_API_KEY"):
        make_verifier(section, FixedClock(0))
    with pytest.raises(ConfigError, match=r"^attest\.api_key: .*ITA_API_KEY"):
        make_issuer(passport)
    assert make_ita_appraiser(section.model_copy(update={"api_key": Secret("k")}), "verify")


@pytest.mark.parametrize(
    "members",
    [
        {"as_addr": "http://127.0.0.1:1"},
        {"as_addr": "https://nottrustauthority.intel.com"},
        {"model": "passport"},
    ],
)
def test_no_key_is_missed_where_none_may_be_needed(members):
    section = Verify.model_validate({"as_provider": "ita", **members})
    assert make_verifier(section, FixedClock(0))


def test_a_simulated_platform_that_cannot_be_had_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    platform = str(tmp_path / "file" / "platform")
    section = Verify.model_validate({"as_type": "builtin", "simulated_platform": platform})
    with pytest.raises(ConfigError, match=r"^verify\.simulated_platform: "):
        make_builtin(section, FixedClock(1_800_000_000))


def test_a_simulated_platform_is_made_where_there_is_none_and_said_aloud(tmp_path, caplog):
    platform = tmp_path / "platform"
    section = Verify.model_validate({"as_type": "builtin", "simulated_platform": str(platform)})
    make_builtin(section, FixedClock(1_800_000_000))
    assert SimulatedPlatform.load(platform).spoil is None
    assert "SIMULATED" in caplog.text
