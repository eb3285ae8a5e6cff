"""A signer in a public log: the real token, one of our own, and all that may be wrong with it."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import pathlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.jws import parse_token
from tng.attest.signer_transparency import (
    CLAIM,
    MEDIA_TYPE,
    PAYLOAD_SCHEMA,
    SCHEMA,
    check_signer_transparency,
    encode_dsse,
    payload_spellings,
)
from tng.attest.strict_json import parse_object
from tng.attest.token import check_token
from tng.attest.transparency_log import KNOWN_LOGS, key_id, prove_entry, read_checkpoint, root_of
from tng.attest.x5c import parse_x5c
from tng.errors import ErrorCode, UntrustedPeerError

ORIGIN = "log.example"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def tree(leaves: list[bytes]) -> bytes:
    """The root hash by its definition (RFC 9162 section 2.1.1)."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node(tree(leaves[:split]), tree(leaves[split:]))


def path(index: int, leaves: list[bytes]) -> list[bytes]:
    """The inclusion proof by its definition (RFC 9162 section 2.1.3.1)."""
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*path(index, leaves[:split]), tree(leaves[split:])]
    return [*path(index - split, leaves[split:]), tree(leaves[:split])]


class Log:
    """A transparency log with nine entries before and after ours."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()

    @property
    def keys(self):
        return {ORIGIN: self.key.public_key()}

    def add(self, body: bytes) -> dict:
        leaves = [hashlib.sha256(b"\0%d" % number).digest() for number in range(19)]
        leaves[9] = hashlib.sha256(b"\0" + body).digest()
        root = tree(leaves)
        text = f"{ORIGIN}\n19\n{b64(root)}\n".encode()
        name = key_id(ORIGIN, self.key.public_key())
        signature = b64(name[:4] + self.key.sign(text))
        return {
            "canonicalizedBody": b64(body),
            "logId": {"keyId": b64(name)},
            "logIndex": "9",
            "inclusionProof": {
                "checkpoint": {"envelope": f"{text.decode()}\n\u2014 {ORIGIN} {signature}\n"},
                "hashes": [b64(item) for item in path(9, leaves)],
                "logIndex": "9",
                "rootHash": b64(root),
                "treeSize": "19",
            },
        }


LOG = Log()


def payload_for(certificate) -> dict:
    name = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    return {
        "schema_version": PAYLOAD_SCHEMA,
        "generated_at": "2026-04-27T07:24:56Z",
        "signer_certificate": {"path": "/x", "pem": "", "der_sha256": name, "not_after": "y"},
        "evidence_binding": {
            "report_data": name,
            "evidence": {"report_data": b64(name.encode()), "svn": "1"},
        },
    }


def body_for(payload: bytes, key) -> dict:
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signature = key.sign(encode_dsse(payload), ec.ECDSA(hashes.SHA256()))
    return {
        "apiVersion": "0.0.2",
        "kind": "dsse",
        "spec": {
            "dsseV002": {
                "payloadHash": {
                    "algorithm": "SHA2_256",
                    "digest": b64(hashlib.sha256(payload).digest()),
                },
                "signatures": [
                    {"content": b64(signature), "verifier": {"publicKey": {"rawBytes": b64(spki)}}}
                ],
            }
        },
    }


def claim_for(signer, change=lambda _payload: None, change_body=lambda _body: None) -> dict:
    payload = payload_for(signer.leaf)
    change(payload)
    octets = (json.dumps(payload, indent=2) + "\n").encode()
    body = body_for(octets, signer.key)
    change_body(body)
    entry = LOG.add(json.dumps(body).encode())
    return {
        "schema_version": SCHEMA,
        "payload": json.loads(json.dumps(payload, sort_keys=True)),
        "rekor": {"rekorEntryV2": entry},
    }


def test_the_real_token_is_proved_without_a_network(shared: pathlib.Path) -> None:
    text = (shared / "vectors/attestation/tokens/tng_real_signer_transparency.jwt").read_text()
    token = parse_token(text.strip())
    token.verify_signature()
    claims = parse_object(token.payload)
    signer = parse_x5c(token.x5c)[0]
    seen = check_signer_transparency(claims[CLAIM], signer, KNOWN_LOGS)
    assert "3905237" in seen
    claims[CLAIM]["payload"]["generated_at"] = "2026-04-27T07:24:57Z"
    with pytest.raises(ValueError, match="another payload"):
        check_signer_transparency(claims[CLAIM], signer, KNOWN_LOGS)


def test_a_signer_in_the_log_is_found_there(signer) -> None:
    assert "'9'" in check_signer_transparency(claim_for(signer), signer.leaf, LOG.keys)


def test_an_empty_table_of_logs_proves_nothing(signer) -> None:
    with pytest.raises(ValueError, match="known logs"):
        check_signer_transparency(claim_for(signer), signer.leaf, {})


def test_another_certificate_is_not_the_one_in_the_log(signer, make_signer) -> None:
    with pytest.raises(ValueError, match="der_sha256"):
        check_signer_transparency(claim_for(signer), make_signer("other").leaf, LOG.keys)


def test_a_quote_names_the_certificate_in_its_report_data(signer) -> None:
    def quote(at: int) -> Callable[[dict], None]:
        def change(payload: dict) -> None:
            name = payload["signer_certificate"]["der_sha256"].encode()
            octets = bytes(at) + name + bytes(8)
            payload["evidence_binding"]["evidence"] = {"quote": b64(octets)}

        return change

    check_signer_transparency(claim_for(signer, quote(568)), signer.leaf, LOG.keys)
    with pytest.raises(ValueError, match="something else"):
        check_signer_transparency(claim_for(signer, quote(567)), signer.leaf, LOG.keys)


def put(*keys: str, value: object) -> Callable[[dict], None]:
    def change(members: dict) -> None:
        for key in keys[:-1]:
            members = members[key]
        members[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (put("schema_version", value="v2"), "schema_version"),
        (put("signer_certificate", "der_sha256", value=1), "der_sha256"),
        (put("signer_certificate", value=None), "signer_certificate"),
        (put("evidence_binding", "report_data", value="00"), "report_data"),
        (put("evidence_binding", "evidence", "report_data", value="AAAA"), "something else"),
        (put("evidence_binding", "evidence", value={}), "neither"),
    ],
)
def test_a_payload_about_something_else_is_refused(signer, change, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        check_signer_transparency(claim_for(signer, change), signer.leaf, LOG.keys)


DSSE = ("spec", "dsseV002")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (put("kind", value="hashedrekord"), "kind"),
        (put("apiVersion", value="0.0.1"), "kind"),
        (put(*DSSE, "payloadHash", "algorithm", value="SHA1"), "SHA2_256"),
        (put(*DSSE, "payloadHash", "digest", value=b64(bytes(32))), "another payload"),
        (put(*DSSE, "signatures", value=[]), "signatures"),
        (put(*DSSE, "signatures", value=[1, {}, {"verifier": {}}]), "no signature by"),
        (lambda body: body["spec"]["dsseV002"]["signatures"][0].update(content=1), "no signature"),
        (
            lambda body: body["spec"]["dsseV002"]["signatures"][0].update(content=b64(bytes(70))),
            "does not verify",
        ),
    ],
)
def test_an_entry_about_something_else_is_refused(signer, change, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        check_signer_transparency(claim_for(signer, change_body=change), signer.leaf, LOG.keys)


PROOF = ("rekor", "rekorEntryV2", "inclusionProof")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (put("schema_version", value=None), "schema_version"),
        (put("payload", value=[]), "payload"),
        (put("rekor", value=None), "rekor"),
        (put("rekor", "rekorEntryV2", value=None), "rekorEntryV2"),
        (put("rekor", "rekorEntryV2", "canonicalizedBody", value=b64(b"{}")), "root"),
        (put("rekor", "rekorEntryV2", "canonicalizedBody", value=None), "canonicalizedBody"),
        (put("rekor", "rekorEntryV2", "logId", "keyId", value=b64(bytes(32))), "logId"),
        (put(*PROOF, value=None), "inclusionProof"),
        (put(*PROOF, "treeSize", value="20"), "treeSize"),
        (put(*PROOF, "rootHash", value=b64(bytes(32))), "rootHash"),
        (put(*PROOF, "logIndex", value="8"), "root"),
        (put(*PROOF, "logIndex", value="19"), "outside"),
        (put(*PROOF, "logIndex", value=9), "logIndex"),
        (put(*PROOF, "logIndex", value="-1"), "logIndex"),
        (put(*PROOF, "hashes", value="x"), "hashes"),
        (put(*PROOF, "hashes", value=["AAAA"]), "hash"),
        (put(*PROOF, "hashes", value=[]), "short"),
        (put(*PROOF, "hashes", value=[b64(bytes(32))] * 64), "long"),
        (put(*PROOF, "hashes", value=[b64(bytes(32))] * 65), "at most"),
        (put(*PROOF, "checkpoint", "envelope", value=None), "checkpoint"),
        (put(*PROOF, "checkpoint", "envelope", value="x" * 20_000), "checkpoint"),
        (put(*PROOF, "checkpoint", "envelope", value="x"), "signed note"),
        (put(*PROOF, "checkpoint", "envelope", value="other\n1\nx\n\n"), "known logs"),
        (put(*PROOF, "checkpoint", "envelope", value=f"{ORIGIN}\n1\nx\n\n"), "signature"),
    ],
)
def test_a_record_that_proves_nothing_is_refused(signer, change, word: str) -> None:
    claim = copy.deepcopy(claim_for(signer))
    change(claim)
    with pytest.raises(ValueError, match=word):
        check_signer_transparency(claim, signer.leaf, LOG.keys)


def test_a_claim_that_is_absent_is_refused(signer) -> None:
    with pytest.raises(ValueError, match=CLAIM):
        check_signer_transparency(None, signer.leaf, LOG.keys)


def test_a_key_of_another_kind_is_refused(signer, rsa_key) -> None:
    other = signer.with_key(rsa_key)
    payload = json.dumps(payload_for(other.leaf), indent=2).encode()
    claim = claim_for(signer)
    claim["payload"] = payload_for(other.leaf)
    entry = LOG.add(json.dumps(body_for(payload, signer.key)).encode())
    claim["rekor"]["rekorEntryV2"] = entry
    with pytest.raises(ValueError, match="P-256"):
        check_signer_transparency(claim, other.leaf, LOG.keys)


@pytest.mark.parametrize(
    "signatures",
    [
        "",
        f"\u2014 {ORIGIN} !!\n",
        f"{ORIGIN} AAAA\n",
        "\u2014 other AAAA\n",
        f"\u2014 {ORIGIN} {b64(bytes(68))}\n",
    ],
)
def test_a_checkpoint_that_the_log_did_not_sign_is_refused(signatures: str) -> None:
    with pytest.raises(ValueError, match="no valid signature"):
        read_checkpoint(f"{ORIGIN}\n1\n{b64(bytes(32))}\n\n{signatures}", LOG.keys)


def sign(text: str) -> str:
    name = key_id(ORIGIN, LOG.key.public_key())
    signature = b64(name[:4] + LOG.key.sign(text.encode()))
    return f"{text}\n\u2014 {ORIGIN} {b64(name[:4] + bytes(64))}\n\u2014 {ORIGIN} {signature}\n"


def test_one_valid_signature_is_enough_and_the_size_is_a_number() -> None:
    root = b64(bytes(32))
    assert read_checkpoint(sign(f"{ORIGIN}\n7\n{root}\n"), LOG.keys) == (ORIGIN, 7, bytes(32))
    for size in ("0", "x", "9" * 19, "9" * 30):
        with pytest.raises(ValueError, match=r"tree|number"):
            read_checkpoint(sign(f"{ORIGIN}\n{size}\n{root}\n"), LOG.keys)


@given(st.integers(1, 40), st.data())
def test_every_entry_of_every_tree_is_proved(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = [hashlib.sha256(b"%d" % number).digest() for number in range(size)]
    assert root_of(leaves[index], index, size, path(index, leaves)) == tree(leaves)
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        try:
            root = root_of(leaves[other], index, size, path(index, leaves))
        except ValueError:
            return
        assert root != tree(leaves)


@given(
    st.recursive(
        st.none() | st.text(max_size=8),
        lambda inner: st.dictionaries(
            st.sampled_from(["payload", "rekor", "rekorEntryV2", "inclusionProof", "hashes"]), inner
        ),
    )
)
def test_garbage_proves_nothing(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        prove_entry(value, LOG.keys)


def test_spellings_keep_what_newer_services_add() -> None:
    spelled = [json.loads(octets) for octets in payload_spellings({"new": 1, "generated_at": "x"})]
    assert spelled == [{"new": 1, "generated_at": "x"}] * 6
    assert MEDIA_TYPE.encode() in encode_dsse(b"")


def test_a_token_needs_the_claim_only_where_it_is_asked_for(signer) -> None:
    settings = {
        "anchors": signer.anchors,
        "expected_claims": {},
        "policy_ids": [],
        "now": signer.now,
        "allow_simulated": False,
    }
    plain = signer.sign(signer.claims())
    check_token(plain, **settings)
    with pytest.raises(UntrustedPeerError) as refused:
        check_token(plain, transparency_logs=LOG.keys, **settings)
    assert refused.value.code is ErrorCode.AS_BAD_TOKEN
    assert refused.value.verdict.checks[-1].number == 14
    token = signer.sign({**signer.claims(), CLAIM: claim_for(signer)})
    verdict = check_token(token, transparency_logs=LOG.keys, **settings)
    assert [check.number for check in verdict.checks] == [*range(5, 15)]
