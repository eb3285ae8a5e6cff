"""The table of tokens: 79 hand-made ones, what the reference says of each, and what we say.

Every row is a passport in a certificate of ours, judged as in production under a pinned anchor, so
that the row's own fault is the only one.  `reference` is the outcome of `tng tools rats-tls verify`
of 2.12.0; the last test asks it again where it is installed.  Rows where both differ are listed in
docs/TESTING.md.
"""

from __future__ import annotations

import base64
import copy
import json
import pathlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from stage.attested import REFERENCE
from tng.attest.binding import pubkey_claims
from tng.attest.certificate import make_certificate
from tng.attest.evidence import CocoToken, dump_evidence
from tng.attest.verifier.factory import make_verifier
from tng.clock import FixedClock, SystemClock
from tng.config.model import Verify
from tng.errors import ErrorCode, UntrustedPeerError

KEY = ec.derive_private_key(6001, ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
BAD, STALE = ErrorCode.AS_BAD_TOKEN, ErrorCode.STALE
DENIED, BINDING = ErrorCode.POLICY_DENIED, ErrorCode.BINDING_MISMATCH
EVIDENCE = "ear.veraison.annotated-evidence"
P521 = ec.derive_private_key(6002, ec.SECP521R1())
P384 = ec.derive_private_key(6003, ec.SECP384R1())
MIDDLE = ec.derive_private_key(6004, ec.SECP256R1())
ODD = ec.derive_private_key(6298, ec.SECP256R1())
"""A key whose first coordinate begins with a zero octet."""


@dataclass(frozen=True)
class Row:
    """One token of the table.

    Attributes:
        title: what is special about it.
        make: the token, given the signer and an RSA key.
        reference: whether the reference accepts it.
        code: how we refuse it; None if we accept it.
        policy_ids: configured.
        trust: which certificate is pinned: "ca", "leaf", "other", or "" for skipping the chain.
    """

    title: str
    make: Callable[[Any, Any], str]
    reference: bool
    code: ErrorCode | None
    policy_ids: tuple[str, ...] = ("default",)
    trust: str = "ca"


def ear(signer: Any) -> dict[str, Any]:
    return signer.claims(pubkey_claims(SPKI))


def simple(signer: Any) -> dict[str, Any]:
    return signer.simple_claims(pubkey_claims(SPKI))


def claims(change: Callable[[dict[str, Any], float], object] | None = None, of: Any = ear) -> Any:
    """A signed token whose claims `change` has changed; given the time, too."""

    def make(signer: Any, _: Any) -> str:
        members = copy.deepcopy(of(signer))
        if change is not None:
            change(members, signer.now)
        return signer.sign(members)

    return make


def cpu(change: Callable[[dict[str, Any]], object]) -> Any:
    return claims(lambda members, _: change(members["submods"]["cpu0"]))


def simply(change: Callable[[dict[str, Any]], object]) -> Any:
    return claims(lambda members, _: change(members), of=simple)


def header(change: Callable[[dict[str, Any]], object]) -> Any:
    def make(signer: Any, _: Any) -> str:
        fields = signer.header()
        change(fields)
        return signer.sign(ear(signer), fields)

    return make


def jwk(**changes: object) -> Any:
    def change(fields: dict[str, Any]) -> None:
        for name, value in changes.items():
            if value is None:
                del fields["jwk"][name]
            else:
                fields["jwk"][name] = value

    return header(change)


def signed_by(key: Any, algorithm: str | None = None) -> Any:
    """`key` None stands for the RSA key."""

    def make(signer: Any, rsa_key: Any) -> str:
        twin = signer.with_key(rsa_key if key is None else key)
        return twin.sign(ear(twin), twin.header(algorithm))

    return make


def named(algorithm: str) -> Any:
    """Signed as ever, with another algorithm's name in both places."""

    def change(fields: dict[str, Any]) -> None:
        fields["alg"] = fields["jwk"]["alg"] = algorithm

    return header(change)


def leaf(**options: Any) -> Any:
    def make(signer: Any, _: Any) -> str:
        twin = signer.with_key(signer.key, **options)
        return twin.sign(ear(twin))

    return make


def purpose(*purposes: x509.ObjectIdentifier) -> Any:
    return leaf(extensions=((x509.ExtendedKeyUsage(purposes), False),))


def chained(*, shown: bool = True, **options: Any) -> Any:
    """Through an intermediate authority, which is shown or not."""

    def make(signer: Any, _: Any) -> str:
        middle = signer.certificate("middle", MIDDLE, ca=True, **options)
        end = signer.certificate("leaf", signer.key, issuer="middle", issuer_key=MIDDLE)
        twin = signer.with_leaf(end)
        fields = twin.header()
        between = [encoded(middle)] if shown else []
        fields["jwk"]["x5c"] = [encoded(end), *between, encoded(signer.ca)]
        return twin.sign(ear(twin), fields)

    return make


def encoded(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()


def written(encode: Callable[[bytes], bytes], *, padded: bool) -> Any:
    def make(signer: Any, _: Any) -> str:
        fields = signer.header()
        texts = [encode(c.public_bytes(Encoding.DER)).decode() for c in (signer.leaf, signer.ca)]
        fields["jwk"]["x5c"] = texts if padded else [text.rstrip("=") for text in texts]
        return signer.sign(ear(signer), fields)

    return make


def short_coordinate(signer: Any, _: Any) -> str:
    twin = signer.with_key(ODD)
    fields = twin.header()
    x = ODD.public_key().public_numbers().x
    octets = x.to_bytes((x.bit_length() + 7) // 8, "big")
    assert len(octets) < 32
    fields["jwk"]["x"] = base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
    return twin.sign(ear(twin), fields)


def foreign_jwk(signer: Any, _: Any) -> str:
    twin = signer.with_key(MIDDLE).with_leaf(signer.leaf)
    return twin.sign(ear(twin))


def tampered(part: int) -> Any:
    def make(signer: Any, _: Any) -> str:
        parts = signer.sign(ear(signer)).split(".")
        at = len(parts[part]) // 2
        parts[part] = (
            parts[part][:at] + ("A" if parts[part][at] != "A" else "B") + parts[part][at + 1 :]
        )
        return ".".join(parts)

    return make


def second(status: str = "affirming", policy: str = "default") -> Any:
    def change(members: dict[str, Any], _: float) -> None:
        gpu = dict(members["submods"]["cpu0"])
        members["submods"]["gpu0"] = gpu | {
            "ear.status": status,
            "ear.appraisal-policy-id": policy,
        }

    return claims(change)


def report(**members: object) -> Any:
    return simply(lambda claims: claims["evaluation-reports"][0].update(members))


def at(**offsets: float | None) -> Any:
    """Dates so many seconds from now; None for none."""

    def change(members: dict[str, Any], now: float) -> None:
        for name, offset in offsets.items():
            if offset is None:
                members.pop(name, None)
            else:
                members[name] = int(now + offset)

    return claims(change)


def runtime(value: object) -> Any:
    return cpu(lambda members: members[EVIDENCE].update(runtime_data_claims=value))


OTHER = {"pubkey-hash": "ggFYI" + "A" * 43}
MORE = pubkey_claims(SPKI) | {"more": [1, {"a": None}]}
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE

ROWS = [
    # -- algorithms and header
    Row("ES256", claims(), True, None),
    Row("ES384", signed_by(P384), True, None),
    Row("RS256", signed_by(None, "RS256"), True, None),
    Row("RS384", signed_by(None, "RS384"), True, None),
    Row("RS512", signed_by(None, "RS512"), True, None),
    Row("PS256", signed_by(None, "PS256"), True, None),
    Row("ES512", signed_by(P521, "ES512"), False, BAD),
    Row("EdDSA", named("EdDSA"), False, BAD),
    Row("none", named("none"), False, BAD),
    Row("HS256", named("HS256"), False, BAD),
    Row("no typ", header(lambda fields: fields.pop("typ")), True, None),
    Row("a kid", header(lambda fields: fields.update(kid="1")), True, None),
    Row("no jwk", header(lambda fields: fields.pop("jwk")), False, BAD),
    Row("jwk without alg", jwk(alg=None), False, BAD),
    Row("jwk of another alg", jwk(alg="ES384"), False, BAD),
    Row("jwk without x5c", jwk(x5c=None), False, BAD),
    Row("x5c empty", jwk(x5c=[]), False, BAD),
    Row("x5c no certificate", jwk(x5c=["AAAA"]), False, BAD),
    Row("x5c of another key", foreign_jwk, False, BAD),
    # Wider here, in the spelling of what was signed and nothing else: see WIDER.
    Row("coordinate without its leading zero", short_coordinate, False, None),
    Row("x5c in base64url", written(base64.urlsafe_b64encode, padded=False), True, None),
    Row("x5c in base64url, padded", written(base64.urlsafe_b64encode, padded=True), False, None),
    Row("x5c in base64", written(base64.b64encode, padded=True), True, None),
    Row("x5c in base64, not padded", written(base64.b64encode, padded=False), False, None),
    # -- the signer's chain
    Row("through an intermediate authority", chained(), True, None),
    Row("intermediate authority not shown", chained(shown=False), False, BAD),
    Row("intermediate authority expired", chained(begins=-200, ends=-100), False, BAD),
    Row("for clients", purpose(CLIENT), True, None),
    Row("for clients and servers", purpose(SERVER, CLIENT), True, None),
    Row("for servers", purpose(SERVER), False, BAD),
    Row("leaf is an authority", leaf(ca=True), False, BAD),
    Row("leaf expired", leaf(begins=-200, ends=-100), False, BAD),
    Row("leaf not yet valid", leaf(begins=3600), False, BAD),
    Row("leaf signed by another key", leaf(issuer_key=MIDDLE), False, BAD),
    Row("leaf is the anchor", claims(), False, BAD, trust="leaf"),
    Row("another anchor", claims(), False, BAD, trust="other"),
    Row("chain not looked at", claims(), True, None, trust=""),
    Row("chain not looked at, signature wrong", tampered(2), False, BAD, trust=""),
    # -- form and signature
    Row("signature changed", tampered(2), False, BAD),
    Row("claims changed", tampered(1), False, BAD),
    Row("no token at all", lambda *_: "no token at all", False, BAD),
    Row("two parts", lambda s, _: s.sign(ear(s)).rpartition(".")[0], False, BAD),
    Row("claims no object", lambda s, _: s.sign([1]), False, BAD),
    # -- dates
    Row("no exp", at(exp=None), False, BAD),
    Row("exp a text", claims(lambda m, now: m.update(exp=str(int(now) + 300))), False, BAD),
    Row("expired half a minute ago", at(exp=-30), True, None),
    Row("expired two minutes ago", at(exp=-120), False, STALE),
    Row("no nbf, no iat", at(nbf=None, iat=None), True, None),
    Row("nbf in half a minute", at(nbf=30), True, None),
    Row("nbf in two minutes", at(nbf=120), False, STALE),
    Row("iat in an hour", at(iat=3600), True, None),
    # -- EAR
    Row("unknown profile", claims(lambda m, _: m.update(eat_profile="tag:other")), False, BAD),
    Row("profile a number", claims(lambda m, _: m.update(eat_profile=1)), False, BAD),
    Row("no submods", claims(lambda m, _: m.pop("submods")), False, BAD),
    Row("no submod cpu0", claims(lambda m, _: m.update(submods={})), False, BAD),
    Row("no annotated evidence", cpu(lambda m: m.pop(EVIDENCE)), False, BAD),
    Row("no runtime data", cpu(lambda m: m[EVIDENCE].pop("runtime_data_claims")), False, BAD),
    Row("runtime data of another key", runtime(OTHER), False, BINDING),
    Row("further runtime data", runtime(MORE), True, None),
    Row("no status", cpu(lambda m: m.pop("ear.status")), False, BAD),
    Row("status warning", cpu(lambda m: m.update({"ear.status": "warning"})), False, DENIED),
    Row("status none", cpu(lambda m: m.update({"ear.status": "none"})), False, DENIED),
    Row(
        "status contraindicated",
        cpu(lambda m: m.update({"ear.status": "contraindicated"})),
        False,
        DENIED,
    ),
    Row("no vector", cpu(lambda m: m.pop("ear.trustworthiness-vector")), False, BAD),
    Row(
        "vector of bad news",
        cpu(lambda m: m.update({"ear.trustworthiness-vector": {"hardware": 97}})),
        True,
        None,
    ),
    Row("no policy", cpu(lambda m: m.pop("ear.appraisal-policy-id")), False, BAD),
    Row("another policy", claims(), False, DENIED, policy_ids=("mine",)),
    # Stricter here: a section that would be content with any policy does not start.
    Row("any policy", claims(), True, ErrorCode.CONFIG_INVALID, policy_ids=()),
    Row("two policies wanted", claims(), False, DENIED, policy_ids=("default", "mine")),
    Row("second device affirms", second(), True, None),
    Row("second device does not", second(status="warning"), False, DENIED),
    Row("second device by another policy", second(policy="gpu"), False, BAD),
    # -- the simple kind
    Row("simple", claims(of=simple), True, None),
    Row(
        "simple, of another key",
        simply(lambda m: m["customized_claims"].update(runtime_data=OTHER)),
        False,
        BINDING,
    ),
    Row("simple, without claims", simply(lambda m: m.pop("customized_claims")), False, BAD),
    Row("simple, another policy", report(**{"policy-id": "mine"}), False, DENIED),
    Row(
        "simple, two policies",
        simply(lambda m: m["evaluation-reports"].append({"policy-id": "mine"})),
        True,
        None,
        policy_ids=("default", "mine"),
    ),
    # Stricter here: a report that says no is a no.
    Row("simple, denied", report(**{"evaluation-result": {"allow": False}}), True, DENIED),
    Row("simple, without reports", simply(lambda m: m.pop("evaluation-reports")), False, DENIED),
]
WIDER = {
    "coordinate without its leading zero": "the number is the same, and must be the certificate's",
    "x5c in base64url, padded": "the octets are the same, and the signature is over the text",
    "x5c in base64, not padded": "the octets are the same, and the signature is over the text",
}
"""What is accepted here and not there, with the reason why nothing depends on it."""

NUMBERED = [
    pytest.param(row, id=f"{number} {row.title}") for number, row in enumerate(ROWS, start=1)
]


def pinned(signer: Any, other: Any, trust: str, folder: pathlib.Path) -> dict[str, object]:
    """The `verify` section's members for where trust comes from."""
    if not trust:
        return {"skip_as_token_cert_verify": True}
    certificate = {"ca": signer.ca, "leaf": signer.leaf, "other": other.ca}[trust]
    file = folder / "anchor.pem"
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
    return {"trusted_certs_paths": [str(file)]}


def section(row: Row, signer: Any, other: Any, folder: pathlib.Path) -> dict[str, object]:
    trust = pinned(signer, other, row.trust, folder)
    return {"model": "passport", "policy_ids": list(row.policy_ids), **trust}


def carrying(token: str, now: float) -> x509.Certificate:
    return make_certificate(KEY, dump_evidence(CocoToken(token)), int(now))


@pytest.fixture(scope="module")
def today(make_signer) -> Any:
    """A signer of today: the reference looks at the machine's clock."""
    return make_signer(now=int(SystemClock().now()))


@pytest.fixture(scope="module")
def other(make_signer) -> Any:
    return make_signer("other AS")


def test_the_table_is_whole() -> None:
    assert len(ROWS) == 79
    assert len({row.title for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", NUMBERED)
async def test_every_row_is_judged_as_the_table_says(row, signer, other, rsa_key, tmp_path) -> None:
    try:
        members = Verify.model_validate(section(row, signer, other, tmp_path))
    except pydantic.ValidationError:
        assert row.code is ErrorCode.CONFIG_INVALID
        return
    verifier = make_verifier(members, FixedClock(float(signer.now)))
    der = carrying(row.make(signer, rsa_key), signer.now).public_bytes(Encoding.DER)
    code = None
    try:
        await verifier.judge(der, "peer")
    except UntrustedPeerError as exc:
        code = exc.code
    await verifier.aclose()
    assert code is row.code


@pytest.mark.parametrize("row", NUMBERED)
def test_only_spelling_is_accepted_here_that_the_reference_refuses(row: Row) -> None:
    assert row.reference or row.code is not None or row.title in WIDER


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference is not there: tools/reference")
@pytest.mark.parametrize("row", NUMBERED)
def test_the_reference_says_what_the_table_says(row, today, other, rsa_key, tmp_path) -> None:
    certificate = carrying(row.make(today, rsa_key), today.now)
    file = tmp_path / "peer.pem"
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
    members = section(row, today, other, tmp_path)
    members |= {"as_provider": "coco", "as_type": "restful"}
    words = ["tools", "rats-tls", "verify", "--cert", str(file), "--verify", json.dumps(members)]
    ended = subprocess.run([REFERENCE, *words], capture_output=True, timeout=60, check=False)
    assert (ended.returncode == 0) is row.reference, ended.stdout
