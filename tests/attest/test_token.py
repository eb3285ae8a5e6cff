"""Tokens of both kinds: what passes, and next to it what must not."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.checks import Findings
from tng.attest.token import check_token
from tng.errors import ErrorCode, UntrustedPeerError
from tng.verdict import Outcome

BAD, STALE, DENIED = ErrorCode.AS_BAD_TOKEN, ErrorCode.STALE, ErrorCode.POLICY_DENIED
BINDING, SIMULATED = ErrorCode.BINDING_MISMATCH, ErrorCode.SIMULATED_EVIDENCE
EVIDENCE = "ear.veraison.annotated-evidence"


def judge(signer, text, **changes):
    options = {
        "anchors": signer.anchors,
        "expected_claims": {"pubkey-hash": "abc"},
        "policy_ids": ["default"],
        "now": signer.now,
        "allow_simulated": False,
        **changes,
    }
    return check_token(text, **options)


def refusal(signer, text, **changes):
    with pytest.raises(UntrustedPeerError) as caught:
        judge(signer, text, **changes)
    verdict = caught.value.verdict
    assert verdict is not None
    assert not verdict.accepted
    assert verdict.code is caught.value.code
    assert verdict.checks[-1].outcome is Outcome.FAIL
    assert all(check.outcome is not Outcome.FAIL for check in verdict.checks[:-1])
    return caught.value


# -- what passes ---------------------------------------------------------------


def test_an_affirming_ear_passes_with_every_check_numbered(signer):
    verdict = judge(signer, signer.sign(signer.claims()))
    assert verdict.tee == "tdx"
    assert verdict.policy_ids == ("default",)
    assert verdict.expires_at == signer.now + 300
    assert not verdict.simulated
    assert [check.number for check in verdict.checks] == list(range(5, 14))
    assert {check.outcome for check in verdict.checks} == {Outcome.PASS}


def test_a_simple_token_passes(signer):
    verdict = judge(signer, signer.sign(signer.simple_claims()))
    assert (verdict.tee, verdict.policy_ids) == ("tdx", ("default",))


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_rsa_algorithms_pass(signer, rsa_key, algorithm):
    twin = signer.with_key(rsa_key)
    judge(twin, twin.sign(twin.claims(), twin.header(algorithm)))


def test_p384_with_es384_passes(signer):
    twin = signer.with_key(ec.generate_private_key(ec.SECP384R1()))
    judge(twin, twin.sign(twin.claims()))


def test_header_needs_neither_typ_nor_kid(signer):
    header = signer.header()
    del header["typ"]
    judge(signer, signer.sign(signer.claims(), header))


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padded", [True, False])
def test_x5c_may_be_base64_of_either_alphabet_padded_or_not(signer, encode, padded):
    header = signer.header()
    texts = [encode(c.public_bytes(Encoding.DER)).decode() for c in (signer.leaf, signer.ca)]
    header["jwk"]["x5c"] = texts if padded else [text.rstrip("=") for text in texts]
    judge(signer, signer.sign(signer.claims(), header))


def test_coordinates_without_leading_zeros_pass(signer):
    while True:  # about one key in 128 has such a coordinate
        key = ec.generate_private_key(ec.SECP256R1())
        numbers = key.public_key().public_numbers()
        if min(numbers.x, numbers.y) < 1 << 248:
            break
    twin = signer.with_key(key)
    header = twin.header()
    for member, value in (("x", numbers.x), ("y", numbers.y)):
        octets = value.to_bytes((value.bit_length() + 7) // 8, "big")
        header["jwk"][member] = base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
    judge(twin, twin.sign(twin.claims(), header))


def test_a_leaf_with_the_client_auth_purpose_passes(signer):
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    twin = signer.with_key(signer.key, extensions=((usage, False),))
    judge(twin, twin.sign(twin.claims()))


def test_an_intermediate_ca_leads_to_the_anchor(signer):
    key = ec.generate_private_key(ec.SECP256R1())
    middle = signer.certificate("middle", key, ca=True, path_length=0)
    leaf = signer.certificate("leaf", signer.key, issuer="middle", issuer_key=key)
    twin = signer.with_leaf(leaf)
    header = twin.header()
    header["jwk"]["x5c"].insert(1, base64.b64encode(middle.public_bytes(Encoding.DER)).decode())
    judge(twin, twin.sign(twin.claims(), header))


def test_no_configured_policy_accepts_any(signer):
    verdict = judge(signer, signer.sign(signer.claims()), policy_ids=[])
    assert verdict.checks[-1].outcome is Outcome.SKIP


def test_times_have_a_minute_of_leeway(signer):
    claims = {**signer.claims(), "exp": signer.now - 60, "nbf": signer.now + 60}
    judge(signer, signer.sign(claims))


DAY = 86400.0


def aged(signer, is_ear=True, **dates):
    """A token with just these dates."""
    claims = signer.claims() if is_ear else signer.simple_claims()
    claims = {key: value for key, value in claims.items() if key not in ("iat", "nbf", "exp")}
    return signer.sign({**claims, **dates})


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_a_token_of_the_greatest_age_passes_and_ends_with_it(signer, name):
    far = signer.now + 10**8
    young = judge(signer, aged(signer, exp=far, **{name: signer.now}), max_age_s=DAY)
    assert young.expires_at == signer.now + DAY
    old = aged(signer, exp=far, **{name: signer.now - DAY - 60})
    assert judge(signer, old, max_age_s=DAY).expires_at == signer.now - 60
    assert judge(signer, aged(signer, exp=signer.now + 5, iat=signer.now)).expires_at == (
        signer.now + 5
    )


def test_a_token_older_than_that_is_refused_and_says_so(signer):
    text = aged(signer, exp=signer.now + 10**8, iat=signer.now - DAY - 61)
    assert judge(signer, text)
    error = refusal(signer, text, max_age_s=DAY)
    assert (error.code, error.verdict.checks[-1].number) == (STALE, 8)
    assert "issued 86461 s ago" in str(error)
    # What it was issued at counts, not from when on it may be used.
    text = aged(signer, exp=signer.now + 10**8, iat=signer.now - DAY - 61, nbf=signer.now)
    assert refusal(signer, text, max_age_s=DAY).code is STALE


def test_a_token_from_the_future_gains_no_age_by_it(signer):
    judge(signer, aged(signer, exp=signer.now + DAY, iat=signer.now + 60), max_age_s=DAY)
    text = aged(signer, exp=signer.now + DAY, iat=signer.now + 61)
    assert refusal(signer, text, max_age_s=DAY).code is STALE


def test_without_any_date_of_issue_the_rest_of_its_life_must_fit(signer):
    text = aged(signer, is_ear=False, exp=signer.now + DAY + 60)
    assert judge(signer, text, max_age_s=DAY).expires_at == signer.now + DAY + 60
    text = aged(signer, is_ear=False, exp=signer.now + DAY + 61)
    error = refusal(signer, text, max_age_s=DAY)
    assert error.code is STALE
    assert "longer than 86400 s" in str(error)


@pytest.mark.parametrize("iat", ["now", None, True, -1, 1e300])
def test_a_date_of_issue_that_is_none_is_refused(signer, iat):
    text = aged(signer, exp=signer.now + 300, iat=iat)
    assert refusal(signer, text, max_age_s=DAY).code is BAD


def test_iat_is_ignored_and_fractions_of_seconds_are_fine(signer):
    claims = {**signer.claims(), "iat": signer.now + 10_000, "exp": signer.now + 0.5}
    assert judge(signer, signer.sign(claims)).expires_at == signer.now + 0.5


def test_further_runtime_data_and_unknown_claims_pass(signer):
    claims = signer.claims({"pubkey-hash": "abc", "other": [1]})
    judge(signer, signer.sign({**claims, "new": True}))


def test_skipping_the_chain_still_needs_the_signature(signer):
    header = signer.header()
    del header["jwk"]["x5c"]
    text = signer.sign(signer.claims(), header)
    verdict = judge(signer, text, anchors=None)
    assert [c.outcome for c in verdict.checks if c.number == 6] == [Outcome.SKIP]
    assert refusal(signer, text[:-4] + "AAAA", anchors=None).verdict.checks[-1].number == 7


def test_no_expected_claims_is_a_skip_and_no_pass(signer):
    verdict = judge(signer, signer.sign(signer.claims()), expected_claims={})
    assert [c.outcome for c in verdict.checks if c.number == 10] == [Outcome.SKIP]


def test_a_second_device_that_affirms_passes(signer):
    claims = signer.claims()
    claims["submods"]["gpu0"] = {
        k: v for k, v in claims["submods"]["cpu0"].items() if k != EVIDENCE
    }
    judge(signer, signer.sign(claims))


def test_sample_evidence_is_left_to_the_policy_but_shown(signer):
    claims = signer.claims()
    evidence = claims["submods"]["cpu0"][EVIDENCE]
    evidence["sample"] = evidence.pop("tdx")
    verdict = judge(signer, signer.sign(claims))
    assert verdict.simulated
    assert [c.outcome for c in verdict.checks if c.number == 11] == [Outcome.SKIP]


def test_a_record_that_was_begun_is_continued(signer):
    record = Findings(signer.now, "peer")
    verdict = judge(signer, signer.sign(signer.claims()), findings=record)
    assert record.checks == verdict.checks


# -- header, chain, signature ----------------------------------------------------


def _header(**changes):
    return lambda header: header.update(changes)


def _jwk(**changes):
    def change(header):
        for name, value in changes.items():
            if value is None:
                del header["jwk"][name]
            else:
                header["jwk"][name] = value

    return change


HEADERS = {
    "alg none": (_header(alg="none"), 5),
    "alg HS256": (_header(alg="HS256"), 5),
    "alg ES512": (_header(alg="ES512"), 5),
    "alg EdDSA": (_header(alg="EdDSA"), 5),
    "alg is no text": (_header(alg=7), 5),
    "alg of another key": (_header(alg="RS256"), 5),
    "no jwk": (_header(jwk=None), 5),
    "crit": (_header(crit=["exp"]), 5),
    "b64": (_header(b64=False), 5),
    "jwk without alg": (_jwk(alg=None), 5),
    "jwk with another alg": (_jwk(alg="ES384"), 5),
    "jwk kty": (_jwk(kty="RSA"), 5),
    "jwk crv": (_jwk(crv="P-384"), 5),
    "jwk without x": (_jwk(x=None), 5),
    "jwk x empty": (_jwk(x=""), 5),
    "jwk x too long": (_jwk(x="AAAA" * 20), 5),
    "jwk x no number": (_jwk(x=5), 5),
    "jwk not on the curve": (_jwk(x="AQ", y="AQ"), 5),
    "jwk no base64": (_jwk(x="A~"), 5),
    "no x5c": (_jwk(x5c=None), 6),
    "x5c empty": (_jwk(x5c=[]), 6),
    "x5c text": (_jwk(x5c="AAAA"), 6),
    "x5c of numbers": (_jwk(x5c=[1]), 6),
    "x5c no certificate": (_jwk(x5c=["AAAA"]), 6),
    "x5c mixed alphabets": (_jwk(x5c=["-_+/"]), 6),
    "x5c too many": (_jwk(x5c=["AAAA"] * 9), 6),
    "x5c entry too large": (_jwk(x5c=["A" * 30_000]), 6),
}


@pytest.mark.parametrize(("change", "number"), HEADERS.values(), ids=HEADERS)
def test_a_header_that_is_not_the_services_is_refused(signer, change, number):
    header = signer.header()
    change(header)
    error = refusal(signer, signer.sign(signer.claims(), header))
    assert (error.code, error.verdict.checks[-1].number) == (BAD, number)


def test_rsa_jwk_with_a_weak_or_absurd_key_is_refused(signer, rsa_key):
    twin = signer.with_key(rsa_key)
    for member, value in (("n", "AQAB"), ("e", "AQAB" * 4), ("n", "A" * 1500), ("e", "Ag")):
        header = twin.header()
        header["jwk"][member] = value
        assert refusal(twin, twin.sign(twin.claims(), header)).verdict.checks[-1].number == 5
    header = twin.header()
    header["jwk"]["kty"] = "EC"
    assert refusal(twin, twin.sign(twin.claims(), header)).code is BAD


def test_a_jwk_that_is_not_the_leafs_key_is_refused(signer, rsa_key):
    for key in (ec.generate_private_key(ec.SECP256R1()), rsa_key):
        twin = signer.with_key(key).with_leaf(signer.leaf)
        error = refusal(twin, twin.sign(twin.claims()))
        assert "x5c[0]" in str(error)
    twin = signer.with_key(rsa_key)
    assert "x5c[0]" in str(
        refusal(
            twin,
            signer.sign(
                signer.claims(),
                {
                    **signer.header(),
                    "jwk": {**signer.header()["jwk"], "x5c": twin.header()["jwk"]["x5c"]},
                },
            ),
        )
    )


def test_a_leaf_with_a_key_of_no_use_here_is_refused(signer):
    twin = signer.with_leaf(signer.certificate("ed", ed25519.Ed25519PrivateKey.generate()))
    assert refusal(twin, twin.sign(twin.claims())).code is BAD


def _leaf(**options):
    return lambda signer: signer.with_key(signer.key, **options)


def _issued_by(**options):
    def make(signer):
        key = ec.generate_private_key(ec.SECP256R1())
        signing_key = options.pop("signing_key", key)
        middle = signer.certificate("middle", key, **options)
        leaf = signer.certificate("leaf", signer.key, issuer="middle", issuer_key=signing_key)
        twin = signer.with_leaf(leaf)
        twin.ca = middle
        return twin

    return make


USAGES = [
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
]


def _usage(**wanted):
    return (x509.KeyUsage(**{name: wanted.get(name, False) for name in USAGES}), True)


SERVER_ONLY = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
UNKNOWN = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x"), True)
NAMES = (x509.NameConstraints([x509.DNSName("example")], None), True)
CHAINS = {
    "leaf expired": (_leaf(begins=-200, ends=-100), "expired"),
    "leaf not yet valid": (_leaf(begins=100), "not valid before"),
    "leaf is a CA": (_leaf(ca=True), "is a CA"),
    "leaf for servers only": (_leaf(extensions=(SERVER_ONLY,)), "clientAuth"),
    "leaf may not sign": (_leaf(extensions=(_usage(key_agreement=True),)), "digitalSignature"),
    "leaf with unknown critical": (_leaf(extensions=(UNKNOWN,)), "1.2.3.4"),
    "leaf signed by a stranger": (
        _leaf(issuer_key=ec.generate_private_key(ec.SECP256R1())),
        "signature on",
    ),
    "leaf of an unknown issuer": (_leaf(issuer="stranger"), "no path"),
    "leaf issued itself": (_leaf(issuer="test AS"), "no path"),
    "issuer is no CA": (_issued_by(ca=False), "not a CA"),
    "issuer without basic constraints": (_issued_by(ca=None), "not a CA"),
    "issuer expired": (_issued_by(ca=True, begins=-200, ends=-100), "expired"),
    "issuer may not sign certificates": (
        _issued_by(ca=True, extensions=(_usage(digital_signature=True),)),
        "keyCertSign",
    ),
    "issuer with name constraints": (_issued_by(ca=True, extensions=(NAMES,)), "name constraints"),
    "issuer's name stolen": (
        _issued_by(ca=True, signing_key=ec.generate_private_key(ec.SECP256R1())),
        "signature on",
    ),
}


@pytest.mark.parametrize(("make", "words"), CHAINS.values(), ids=CHAINS)
def test_a_chain_that_breaks_a_rule_is_refused(signer, make, words):
    twin = make(signer)
    error = refusal(twin, twin.sign(twin.claims()))
    assert (error.code, error.verdict.checks[-1].number) == (BAD, 6)
    assert words in str(error)


def test_an_issuer_with_a_key_of_no_use_here_is_refused(signer):
    key = ed25519.Ed25519PrivateKey.generate()
    middle = signer.certificate("middle", key, ca=True)
    leaf = signer.certificate("leaf", signer.key, issuer="middle")
    twin = signer.with_leaf(leaf)
    twin.ca = middle
    assert "NIST curve" in str(refusal(twin, twin.sign(twin.claims())))


def test_a_changed_octet_in_the_signers_certificate_is_refused(signer):
    der = signer.leaf.public_bytes(Encoding.DER)
    text = signer.sign(signer.claims())
    rest = text.partition(".")[2]
    for at in range(len(der)):
        spoiled = bytearray(der)
        spoiled[at] ^= 0x41
        fields = signer.header()
        fields["jwk"]["x5c"][0] = base64.b64encode(spoiled).decode()
        header = base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()
        assert refusal(signer, f"{header}.{rest}").code is BAD


def test_a_path_longer_than_an_issuer_allows_is_refused(signer):
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    upper = signer.certificate("upper", keys[0], ca=True, path_length=0)
    lower = signer.certificate("lower", keys[1], ca=True, issuer="upper", issuer_key=keys[0])
    leaf = signer.certificate("leaf", signer.key, issuer="lower", issuer_key=keys[1])
    twin = signer.with_leaf(leaf)
    header = twin.header()
    header["jwk"]["x5c"] = [
        base64.b64encode(item.public_bytes(Encoding.DER)).decode() for item in (leaf, lower, upper)
    ]
    assert "CAs below" in str(refusal(twin, twin.sign(twin.claims(), header)))


def test_the_leaf_itself_as_the_anchor_is_no_path(signer):
    assert refusal(signer, signer.sign(signer.claims()), anchors=[signer.leaf]).code is BAD


def test_another_services_anchor_is_no_path(signer, make_signer):
    other = make_signer("other AS")
    assert "no path" in str(refusal(signer, signer.sign(signer.claims()), anchors=other.anchors))


def test_an_expired_anchor_is_refused(signer):
    old = signer.certificate("test AS CA", signer.ca_key, ca=True, begins=-200, ends=-100)
    assert "expired" in str(refusal(signer, signer.sign(signer.claims()), anchors=[old]))


def test_a_certificate_signed_with_an_unlisted_hash_is_refused(signer):
    leaf = signer.certificate("weak", signer.key, hash_=hashes.SHA3_256())
    twin = signer.with_leaf(leaf)
    assert "SHA-256" in str(refusal(twin, twin.sign(twin.claims())))


def test_look_alike_issuers_do_not_buy_endless_work(signer):
    chain = [signer.certificate("x", signer.key, issuer="x", issuer_key=signer.key)]
    chain += [
        signer.certificate("x", signer.key, ca=True, issuer="x", issuer_key=signer.key)
        for _ in range(7)
    ]
    header = signer.header()
    header["jwk"]["x5c"] = [base64.b64encode(c.public_bytes(Encoding.DER)).decode() for c in chain]
    assert refusal(signer, signer.sign(signer.claims(), header)).code is BAD


def test_a_changed_octet_anywhere_is_refused(signer):
    text = signer.sign(signer.claims())
    for at in range(0, len(text), 97):
        spoiled = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        assert refusal(signer, spoiled).code is BAD


def test_a_signature_of_another_length_or_key_is_refused(signer):
    head = signer.sign(signer.claims()).rpartition(".")[0]
    other = signer.with_key(ec.generate_private_key(ec.SECP256R1()))
    foreign = other.sign(signer.claims(), signer.header()).rpartition(".")[2]
    for signature in ("", "AAAA", foreign):
        error = refusal(signer, f"{head}.{signature}")
        assert (error.code, error.verdict.checks[-1].number) == (BAD, 7)


@pytest.mark.parametrize(
    "text",
    ["", "a.b", "a.b.c.d", "é.b.c", "a=.b.c", "e30.e30.AA", "W10.e30.AA", "<html>", "A" * 1048577],
)
def test_what_is_no_token_is_refused(signer, text):
    error = refusal(signer, text)
    assert (error.code, error.verdict.checks[-1].number) == (BAD, 5)


def test_a_header_beyond_its_limit_is_refused(signer):
    header = {**signer.header(), "note": "x" * 70_000}
    assert "65536" in str(refusal(signer, signer.sign(signer.claims(), header)))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"exp":1,"exp":2}',
        b'{"exp":NaN}',
        b"[" * 100_000,
        b'{"a":' * 70 + b"1" + b"}" * 70,
    ],
)
def test_a_signed_payload_that_is_not_one_clear_object_is_refused(signer, payload):
    error = refusal(signer, signer.sign(payload))
    assert (error.code, error.verdict.checks[-1].number) == (BAD, 7)


# -- claims ------------------------------------------------------------------------


def _set(path, value):
    def change(claims):
        *way, last = path.split("/")
        for name in way:
            claims = claims[int(name) if name.isdigit() else name]
        if value is None:
            del claims[last]
        else:
            claims[last] = value

    return change


CLAIMS = {
    "no exp": (_set("exp", None), BAD, 8),
    "exp as text": (_set("exp", "1800000300"), BAD, 8),
    "exp true": (_set("exp", True), BAD, 8),
    "exp negative": (_set("exp", -1), BAD, 8),
    "exp beyond the year 9999": (_set("exp", 10**15), BAD, 8),
    "exp infinite": (_set("exp", 1e308 * 10), BAD, 7),
    "expired": (_set("exp", 1_800_000_000 - 61), STALE, 8),
    "nbf in the future": (_set("nbf", 1_800_000_000 + 61), STALE, 8),
    "nbf null": (_set("nbf", "x"), BAD, 8),
    "other profile": (_set("eat_profile", "tag:other"), BAD, 9),
    "profile no text": (_set("eat_profile", 1), BAD, 9),
    "no submods": (_set("submods", None), BAD, 9),
    "empty submods": (_set("submods", {}), BAD, 9),
    "submods a list": (_set("submods", [1]), BAD, 9),
    "submod no object": (_set("submods/gpu0", 1), BAD, 9),
    "too many submods": (_set("submods", {str(n): {} for n in range(65)}), BAD, 9),
    "no status": (_set("submods/cpu0/ear.status", None), BAD, 9),
    "status a number": (_set("submods/cpu0/ear.status", 2), BAD, 9),
    "no vector": (_set("submods/cpu0/ear.trustworthiness-vector", None), BAD, 9),
    "no policy id": (_set("submods/cpu0/ear.appraisal-policy-id", None), BAD, 9),
    "no annotated evidence": (_set(f"submods/cpu0/{EVIDENCE}", None), BAD, 9),
    "no runtime data": (_set(f"submods/cpu0/{EVIDENCE}/runtime_data_claims", None), BAD, 9),
    "runtime data empty": (_set(f"submods/cpu0/{EVIDENCE}/runtime_data_claims", {}), BINDING, 10),
    "another key": (
        _set(f"submods/cpu0/{EVIDENCE}/runtime_data_claims/pubkey-hash", "abd"),
        BINDING,
        10,
    ),
    "simulated": (_set(f"submods/cpu0/{EVIDENCE}/tdx/simulated_platform", True), SIMULATED, 11),
    "simulated deeper": (
        _set(f"submods/cpu0/{EVIDENCE}/tdx/quote/list", [{"simulated_platform": 1}]),
        SIMULATED,
        11,
    ),
    "status none": (_set("submods/cpu0/ear.status", "none"), DENIED, 12),
    "status warning": (_set("submods/cpu0/ear.status", "warning"), DENIED, 12),
    "status contraindicated": (_set("submods/cpu0/ear.status", "contraindicated"), DENIED, 12),
    "status capitalised": (_set("submods/cpu0/ear.status", "Affirming"), DENIED, 12),
    "another policy": (_set("submods/cpu0/ear.appraisal-policy-id", "mine"), DENIED, 13),
}


@pytest.mark.parametrize(("change", "code", "number"), CLAIMS.values(), ids=CLAIMS)
def test_ear_claims_that_do_not_say_yes_are_refused(signer, change, code, number):
    claims = signer.claims()
    change(claims)
    error = refusal(signer, signer.sign(claims))
    assert (error.code, error.verdict.checks[-1].number) == (code, number)


def test_every_submod_must_affirm_under_one_policy(signer):
    claims = signer.claims()
    claims["submods"]["gpu0"] = {**claims["submods"]["cpu0"], "ear.status": "warning"}
    error = refusal(signer, signer.sign(claims))
    assert error.code is DENIED
    assert "'gpu0' has status 'warning'" in str(error)
    claims["submods"]["gpu0"] = {**claims["submods"]["cpu0"], "ear.appraisal-policy-id": "gpu"}
    assert "different policies" in str(refusal(signer, signer.sign(claims)))
    claims["submods"] = {"gpu0": claims["submods"]["cpu0"]}
    assert "cpu0" in str(refusal(signer, signer.sign(claims)))


def test_the_message_names_submod_status_vector_member_and_policy(signer):
    claims = signer.claims(
        **{
            "ear.status": "contraindicated",
            "ear.trustworthiness-vector": {"hardware": 97, "configuration": 2},
        }
    )
    words = str(refusal(signer, signer.sign(claims)))
    assert (
        "submod 'cpu0' has status 'contraindicated' (hardware 97), "
        "policy 'default' wants 'affirming'" in words
    )


def test_two_configured_policies_need_both(signer):
    text = signer.sign(signer.claims())
    assert refusal(signer, text, policy_ids=["default", "second"]).code is DENIED
    claims = signer.simple_claims()
    claims["evaluation-reports"].append({"policy-id": "second"})
    judge(signer, signer.sign(claims), policy_ids=["default", "second"])


def test_true_does_not_pass_for_one(signer):
    text = signer.sign(signer.claims({"flag": True}))
    assert refusal(signer, text, expected_claims={"flag": 1}).code is BINDING
    judge(signer, text, expected_claims={"flag": True})


def test_simulated_evidence_passes_only_when_allowed_and_says_so(signer):
    claims = signer.claims()
    _set(f"submods/cpu0/{EVIDENCE}/tdx/simulated_platform", True)(claims)
    verdict = judge(signer, signer.sign(claims), allow_simulated=True)
    assert verdict.simulated
    assert [c.outcome for c in verdict.checks if c.number == 11] == [Outcome.SKIP]
    _set(f"submods/cpu0/{EVIDENCE}/tdx/simulated_platform", False)(claims)
    assert not judge(signer, signer.sign(claims)).simulated


def test_what_the_attester_wrote_itself_is_no_mark_of_simulation(signer):
    text = signer.sign(signer.claims({"pubkey-hash": "abc", "simulated_platform": True}))
    assert not judge(signer, text).simulated


SIMPLE = {
    "no customized claims": (_set("customized_claims", None), BAD, 9),
    "runtime data a text": (_set("customized_claims/runtime_data", "x"), BAD, 9),
    "another key": (_set("customized_claims/runtime_data/pubkey-hash", "x"), BINDING, 10),
    "reports no list": (_set("evaluation-reports", {}), BAD, 9),
    "report no object": (_set("evaluation-reports", ["default"]), BAD, 9),
    "too many reports": (_set("evaluation-reports", [{"policy-id": "p"}] * 65), BAD, 9),
    "report without policy": (_set("evaluation-reports/0/policy-id", None), BAD, 9),
    "no reports": (_set("evaluation-reports", None), DENIED, 13),
    "another policy": (_set("evaluation-reports/0/policy-id", "other"), DENIED, 13),
    "says not allowed": (
        _set("evaluation-reports/0/evaluation-result", {"allow": False}),
        DENIED,
        12,
    ),
    "says null": (_set("evaluation-reports/0/evaluation-result", {"allow": "no"}), DENIED, 12),
    "says false": (_set("evaluation-reports/0/evaluation_result", False), DENIED, 12),
    "says so in a text": (
        _set("evaluation-reports/0/evaluation-result", '{"allow": false}'),
        DENIED,
        12,
    ),
    "says so beside": (_set("evaluation-reports/0/allow", False), DENIED, 12),
    "tcb-status no JSON": (_set("tcb-status", "{"), BAD, 9),
    "simulated": (_set("tcb-status", '{"tdx.simulated_platform":true}'), SIMULATED, 11),
    "simulated nested": (_set("tcb-status", {"tdx": {"simulated_platform": True}}), SIMULATED, 11),
}


@pytest.mark.parametrize(("change", "code", "number"), SIMPLE.values(), ids=SIMPLE)
def test_simple_claims_that_do_not_say_yes_are_refused(signer, change, code, number):
    claims = signer.simple_claims()
    change(claims)
    error = refusal(signer, signer.sign(claims))
    assert (error.code, error.verdict.checks[-1].number) == (code, number)


@pytest.mark.parametrize("result", [True, {"allow": True}, '{"allow":true}', "ok", {"score": 1}])
def test_a_report_that_does_not_deny_passes(signer, result):
    claims = signer.simple_claims()
    claims["evaluation-reports"][0]["evaluation-result"] = result
    claims["tee"] = 7
    assert judge(signer, signer.sign(claims)).tee == ""


# -- real tokens, and garbage ---------------------------------------------------------

GOLDEN = {
    "ear": (1768895707, "tdx"),
    "ear_with_additional_device": (1770207283, "tdx"),
    "simple": (1768806067, "tdx"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_real_tokens_pass_at_their_time_and_are_stale_today(shared, name):
    folder = shared / "vectors/attestation/tokens"
    text = (folder / f"{name}.jwt").read_text().strip()
    anchors = x509.load_pem_x509_certificates((folder / f"{name}.as-ca.pem").read_bytes())
    options = {"anchors": anchors, "policy_ids": ["default"], "allow_simulated": False}
    issued, tee = GOLDEN[name]
    assert check_token(text, expected_claims={}, now=issued, **options).tee == tee
    with pytest.raises(UntrustedPeerError) as caught:
        check_token(text, expected_claims={}, now=issued + 400, **options)
    assert caught.value.code is STALE
    with pytest.raises(UntrustedPeerError) as caught:
        check_token(text, expected_claims={"pubkey-hash": "x"}, now=issued, **options)
    assert caught.value.code is BINDING


@pytest.mark.parametrize(("name", "folder"), [("pp_ear", "as"), ("pp_simple", "as-simple")])
def test_tokens_of_the_reference_passports_pass(shared, name, folder):
    ratls = shared / "vectors/ratls"
    facts = json.loads((ratls / f"{name}.json").read_text())["evidence"]
    anchors = x509.load_pem_x509_certificates((ratls / folder / "as-ca.pem").read_bytes())
    extension = x509.load_der_x509_certificate((ratls / f"{name}.der").read_bytes()).extensions
    raw = extension.get_extension_for_oid(x509.ObjectIdentifier("2.23.133.5.4.9")).value.value
    text = raw[raw.index(b"ey") : -1].decode()
    now = anchors[0].not_valid_before_utc.timestamp() + 86_400
    options = {"anchors": anchors, "policy_ids": ["default"], "allow_simulated": False, "now": now}
    check_token(text, expected_claims=facts["expected_claims"], **options)
    with pytest.raises(UntrustedPeerError):
        check_token(text, expected_claims={"pubkey-hash": "x"}, **options)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_garbage_gives_a_refusal(signer, text):
    refusal(signer, text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
members = ["exp", "nbf", "eat_profile", "submods", "customized_claims", "evaluation-reports"]


@given(st.dictionaries(st.sampled_from(members), json_values), st.booleans())
def test_signed_garbage_gives_a_refusal(signer, changes, is_ear):
    claims = signer.claims() if is_ear else signer.simple_claims()
    claims.update({**changes, "exp": signer.now + 300} if is_ear else changes)
    claims["submods" if is_ear else "customized_claims"] = changes
    assert refusal(signer, signer.sign(claims)).code in set(ErrorCode)


@given(st.dictionaries(st.sampled_from(["kty", "crv", "alg", "x", "y", "x5c"]), json_values))
def test_a_garbled_key_gives_a_refusal(signer, changes):
    header = signer.header()
    header["jwk"].update(changes or {"x": "A"})
    assert refusal(signer, signer.sign(signer.claims(), header)).code is BAD
