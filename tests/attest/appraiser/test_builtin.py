"""The service inside the gateway, behind the same verifier as every other service."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tng.attest.appraiser.builtin import BuiltinAppraiser
from tng.attest.appraiser.devices import SampleJudge, TdxJudge
from tng.attest.appraiser.ear_issuer import EarIssuer
from tng.attest.binding import canonical_json, report_data, runtime_data_for
from tng.attest.certificate import make_certificate
from tng.attest.evidence import dump_evidence
from tng.attest.policy.factory import make_policy
from tng.attest.tdx.collateral_settings import CollateralSettings
from tng.attest.tdx.pccs import PccsCollateral
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.attest.verifier.anchors import PinnedAnchors
from tng.attest.verifier.trustee import TrusteeRules, TrusteeVerifier
from tng.clock import FixedClock
from tng.config.verify import AttestationPolicy
from tng.errors import ErrorCode, UntrustedPeerError
from tng.wire.dice import CocoEvidence, HashAlgorithm

NOW = 1_800_000_000


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    return SimulatedPlatform.create(tmp_path_factory.mktemp("p") / "platform", now=NOW)


def sample(data: bytes) -> bytes:
    text = base64.b64encode(data).decode()
    return json.dumps({"svn": "1", "report_data": text, "measure_register": "00" * 32}).encode()


class Stage:
    """A builtin service, and the verifier in front of it."""

    def __init__(self, policy="trust_all", platform=None, allow_simulated=True, now=NOW):
        self.clock = FixedClock(now)
        self.issuer = EarIssuer(now)
        collateral = PccsCollateral(CollateralSettings(("http://127.0.0.1:1",)), self.clock)
        judges = {
            "sample": SampleJudge(),
            "tdx": TdxJudge(collateral, self.clock, platform=platform),
        }
        chosen = make_policy(AttestationPolicy(type=policy))
        self.appraiser = BuiltinAppraiser(judges, chosen, {}, self.issuer, self.clock, collateral)
        rules = TrusteeRules("background_check", ("default",), allow_simulated)
        anchors = PinnedAnchors([self.issuer.ca_certificate])
        self.verifier = TrusteeVerifier(rules, self.appraiser, anchors, self.clock)

    async def judge(self, tee, make, *, about=None, further=None):
        """Judge a certificate whose evidence `make` makes for some report data."""
        key = ec.generate_private_key(ec.SECP256R1())
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        text = runtime_data_for(spki)
        said = make(report_data((about or text).encode()))
        evidence = CocoEvidence(tee, said, further, text, HashAlgorithm.SHA384)
        certificate = make_certificate(key, dump_evidence(evidence), NOW)
        return await self.verifier.judge(certificate.public_bytes(Encoding.DER), "a peer")


def evidence(claims: dict, tee="sample", make=sample, further=None):
    text = canonical_json(claims).decode()
    said = make(report_data(text.encode()))
    return CocoEvidence(tee, said, further, text, HashAlgorithm.SHA384)


async def test_the_verifier_makes_and_shows_its_usual_checks():
    stage = Stage()
    peer = await stage.judge("sample", sample)
    assert [check.number for check in peer.verdict.checks] == list(range(1, 14))
    assert peer.verdict.policy_ids == ("default",)
    assert peer.verdict.tee == "sample"
    assert peer.verdict.simulated
    assert peer.verdict.valid_until == NOW + 300
    assert stage.verifier.verdicts()["a peer"].accepted


@pytest.mark.parametrize("policy", ["default", "hardware_only"])
async def test_the_policy_decides_about_sample_evidence(policy):
    with pytest.raises(UntrustedPeerError) as caught:
        await Stage(policy).judge("sample", sample)
    assert caught.value.code is ErrorCode.POLICY_DENIED
    assert caught.value.verdict.checks[-1].number == 12


async def test_tdx_evidence_passes_under_the_policy_for_hardware(platform):
    peer = await Stage("hardware_only", platform).judge("tdx", platform.evidence)
    assert peer.verdict.tee == "tdx"
    assert peer.verdict.simulated
    assert "SIMULATED" in peer.verdict.checks[10].detail


async def test_a_platform_in_software_needs_the_operators_word_twice(platform):
    for stage in (Stage("trust_all", None), Stage("trust_all", platform, allow_simulated=False)):
        with pytest.raises(UntrustedPeerError) as caught:
            await stage.judge("tdx", platform.evidence)
        assert caught.value.code is ErrorCode.SIMULATED_EVIDENCE


async def test_a_refusal_lists_what_was_checked(platform):
    with pytest.raises(UntrustedPeerError) as caught:
        await Stage("trust_all", platform).judge("tdx", platform.evidence, about="{}")
    assert caught.value.code is ErrorCode.BINDING_MISMATCH
    names = [check.name for check in caught.value.verdict.checks]
    assert names[:5] == [
        "certificate",
        "evidence format",
        "key claim",
        "appraisal",
        "service: evidence format",
    ]
    assert len(names) == 14


async def test_the_policy_in_the_configuration_must_have_its_name():
    stage = Stage()
    stage.verifier._rules = TrusteeRules("background_check", ("strict",), True)
    with pytest.raises(UntrustedPeerError) as caught:
        await stage.judge("sample", sample)
    assert caught.value.verdict.checks[-1].number == 13


@pytest.mark.parametrize(
    ("further", "code"),
    [
        (b'{"else":{}}', ErrorCode.EVIDENCE_MALFORMED),
        (b'{"nvidia":{}}', ErrorCode.EVIDENCE_MALFORMED),
        (b"[]", ErrorCode.EVIDENCE_MALFORMED),
        (b'{"sampledevice":{"report_data":"","svn":"2"}}', ErrorCode.BINDING_MISMATCH),
    ],
)
async def test_no_device_goes_unjudged_or_unbound(further, code):
    with pytest.raises(UntrustedPeerError) as caught:
        await Stage().judge("sample", sample, further=further)
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("policy", "of_device"), [("trust_all", "affirming"), ("hardware_only", "contraindicated")]
)
async def test_further_devices_are_put_before_the_policy_under_names_of_their_own(
    platform, policy, of_device
):
    text = canonical_json({"a": 1}).decode()
    bound = base64.b64encode(report_data(text.encode())).decode()
    further = json.dumps({"sampledevice": {"report_data": bound, "svn": "2"}}).encode()
    shown = evidence({"a": 1}, "tdx", platform.evidence, further)
    token = await Stage(policy, platform).appraiser.appraise(shown, [])
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "==="))
    statuses = {name: module["ear.status"] for name, module in claims["submods"].items()}
    assert statuses == {"cpu0": "affirming", "gpu0": of_device}


async def test_a_tee_that_it_does_not_know_is_refused():
    with pytest.raises(UntrustedPeerError, match="it knows sample, tdx") as caught:
        await Stage().judge("snp", sample)
    assert caught.value.code is ErrorCode.AS_REJECTED


async def test_a_challenge_in_the_claims_must_be_its_own_and_fresh():
    stage = Stage()
    good = evidence({"challenge_token": await stage.appraiser.challenge()})
    assert (await stage.appraiser.appraise(good, [])).count(".") == 2
    later = Stage(now=NOW + 300)
    for appraiser, challenge, code in (
        (stage.appraiser, await later.appraiser.challenge(), ErrorCode.STALE),
        (stage.appraiser, "dummy nonce", ErrorCode.STALE),
        (stage.appraiser, 5, ErrorCode.EVIDENCE_MALFORMED),
    ):
        with pytest.raises(UntrustedPeerError) as caught:
            await appraiser.appraise(evidence({"challenge_token": challenge}), [])
        assert caught.value.code is code


async def test_claims_without_one_spelling_are_refused():
    text = '{"n":12345678901234567890123}'
    shown = CocoEvidence("sample", sample(b""), None, text, HashAlgorithm.SHA384)
    with pytest.raises(UntrustedPeerError) as caught:
        await Stage().appraiser.appraise(shown, [])
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


async def test_it_is_always_there_and_publishes_its_anchor():
    stage = Stage()
    await stage.appraiser.probe()
    assert await stage.appraiser.fetch_certificates() == [stage.issuer.ca_certificate]
    await stage.appraiser.aclose()
    assert "BuiltinAppraiser" in repr(stage.appraiser)
