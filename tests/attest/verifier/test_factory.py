"""From a `verify` section to its judge."""

from __future__ import annotations

import types

import pytest

from tng.attest.verifier.any_of import AnyOfVerifier
from tng.attest.verifier.factory import make_any_verifier, make_verifier
from tng.attest.verifier.trustee import TrusteeVerifier
from tng.clock import FixedClock
from tng.config.model import Verify
from tng.errors import ConfigError


def verify(**members):
    members = {"as_addr": "http://127.0.0.1:1", "policy_ids": ["default"], **members}
    return Verify.model_validate({k: v for k, v in members.items() if v is not None})


def test_a_background_check_waits_for_its_service():
    verifier = make_verifier(verify(as_headers={"x-key": "s3cret"}), FixedClock(0))
    assert verifier.not_ready is not None


def test_a_pinned_passport_is_ready_at_once_even_beside_an_address(signer, tmp_path):
    path = tmp_path / "ca.pem"
    path.write_bytes(signer.chain_pem)
    for address in ("http://127.0.0.1:1", None):
        section = verify(model="passport", as_addr=address, trusted_certs_paths=[str(path)])
        assert make_verifier(section, FixedClock(0)).not_ready is None


def test_a_passport_with_an_address_alone_waits_for_anchors():
    assert make_verifier(verify(model="passport"), FixedClock(0)).not_ready is not None


def test_any_signer_needs_the_operators_word():
    section = verify(model="passport", as_addr=None, skip_as_token_cert_verify=True)
    assert make_verifier(section, FixedClock(0)).not_ready is None


def test_a_pinned_file_that_is_gone_is_named(tmp_path):
    section = verify(trusted_certs_paths=[str(tmp_path / "gone.pem")])
    with pytest.raises(ConfigError, match=r"gone\.pem"):
        make_verifier(section, FixedClock(0))


@pytest.mark.parametrize(
    "changes",
    [
        {"as_type": "grpc"},
        {"as_addr": None},
        {"as_addr": None, "model": "passport"},
        {"as_addr": None, "trusted_certs_paths": []},
    ],
)
def test_sections_without_a_judge_are_refused(changes):
    section = types.SimpleNamespace(
        **{
            "model": "background_check",
            "as_provider": "coco",
            "as_type": "restful",
            "as_addr": "http://127.0.0.1:1",
            "as_headers": {},
            "policy_ids": [],
            "trusted_certs_paths": [],
            "skip_as_token_cert_verify": False,
            "verify_signer_transparency": False,
            "allow_simulated": False,
            **changes,
        }
    )
    with pytest.raises(ConfigError):
        make_verifier(section, FixedClock(0))


def test_a_background_check_without_an_address_is_refused():
    section = types.SimpleNamespace(
        model="background_check",
        as_provider="coco",
        as_type="restful",
        as_addr=None,
        as_headers={},
        policy_ids=[],
        trusted_certs_paths=[],
        skip_as_token_cert_verify=True,
        verify_signer_transparency=False,
        allow_simulated=False,
    )
    with pytest.raises(ConfigError, match="as_addr"):
        make_verifier(section, FixedClock(0))


def test_one_section_is_its_own_verifier_and_several_are_any_of_them():
    clock = FixedClock(0)
    assert isinstance(make_any_verifier((verify(),), clock), TrusteeVerifier)
    several = make_any_verifier((verify(), verify(model="passport")), clock)
    assert isinstance(several, AnyOfVerifier)
    assert several.models == ("background_check", "passport")


def test_every_section_that_cannot_be_served_is_named(tmp_path):
    gone = verify(trusted_certs_paths=[str(tmp_path / "gone.pem")])
    with pytest.raises(ConfigError) as caught:
        make_any_verifier((gone, verify(), gone), FixedClock(0))
    assert [problem[:10] for problem in caught.value.problems] == ["verify[0]:", "verify[2]:"]
    with pytest.raises(ConfigError, match="at least one"):
        make_any_verifier((), FixedClock(0))


def test_a_service_over_grpc_needs_its_signer_in_a_file(signer, tmp_path):
    path = tmp_path / "ca.pem"
    path.write_bytes(signer.chain_pem)
    for model in ("background_check", "passport"):
        pinned = verify(model=model, as_type="grpc", trusted_certs_paths=[str(path)])
        assert isinstance(make_verifier(pinned, FixedClock(0)), TrusteeVerifier)
        with pytest.raises(ConfigError, match="trusted_certs_paths: required key is missing"):
            make_verifier(verify(model=model, as_type="grpc"), FixedClock(0))
    skipped = verify(as_type="grpc", skip_as_token_cert_verify=True)
    assert isinstance(make_verifier(skipped, FixedClock(0)), TrusteeVerifier)


def test_the_builtin_service_needs_nobody(tmp_path):
    section = Verify.model_validate({"as_type": "builtin"})
    verifier = make_verifier(section, FixedClock(1_800_000_000))
    assert verifier.models == ("background_check",)
    passport = section.model_copy(update={"model": "passport"})
    with pytest.raises(ConfigError, match="passports"):
        make_verifier(passport, FixedClock(0))
    values = [{"type": "sample", "payload": {"type": "path", "path": str(tmp_path / "gone")}}]
    section = Verify.model_validate({"as_type": "builtin", "reference_values": values})
    with pytest.raises(ConfigError, match="reference_values"):
        make_verifier(section, FixedClock(0))
