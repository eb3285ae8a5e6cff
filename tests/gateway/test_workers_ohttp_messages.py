"""What crosses between supervisor and workers for OHTTP."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.evidence import CocoToken, ItaToken
from tng.attest.statement import Statement
from tng.attest.statement_source import Passport
from tng.attest.strict_json import Json, parse_object
from tng.attest.user_data import ClientUserData, ServerUserData
from tng.errors import RemoteProtocolError, TngError
from tng.gateway.workers.frames import FrameReader, dump_frame
from tng.gateway.workers.messages import dump_octets
from tng.gateway.workers.ohttp_messages import (
    dump_evidence,
    dump_keyring,
    dump_passport,
    dump_statement,
    parse_evidence,
    parse_keyring,
    parse_passport,
    parse_statement,
)
from tng.tunnel.ohttp.keyring import MAX_KEYS, Keyring, make_key
from tng.wire.dice import CocoEvidence, HashAlgorithm
from tng.wire.ita_evidence import GpuEvidence, ItaEvidence, ItaNonce

ABOUT = ServerUserData("YWJj", 1_000_000, "challenge")


def evidence(runtime_data: str = "{}", additional: bytes | None = None) -> CocoEvidence:
    return CocoEvidence("tdx", b"\0quote\xff", additional, runtime_data, HashAlgorithm.SHA384)


def across(message: dict[str, Json]) -> dict[str, Json]:
    """The message as the other process gets it."""
    reader = FrameReader()
    reader.receive_data(dump_frame(message))
    arrived = reader.next_message()
    assert arrived is not None
    return arrived


@pytest.mark.parametrize(
    "statement",
    [
        Statement(evidence(), ABOUT),
        Statement(evidence(additional=b""), ClientUserData(bytes(32), "challenge")),
        Statement(evidence(additional=b"\1"), ClientUserData(bytes(32))),
        Statement(CocoToken("a.b.c"), ServerUserData("YWJj", 7)),
        Statement(CocoToken(""), ClientUserData(bytes(32))),
    ],
)
def test_a_statement_arrives_as_it_was(statement: Statement) -> None:
    arrived = parse_statement(across(dump_statement(statement)))
    assert arrived == statement
    assert arrived.fingerprint() == statement.fingerprint()


@given(st.text(st.characters(codec=None)))
def test_whatever_a_peer_writes_its_frame_can_be_read(text: str) -> None:
    for shown in (CocoToken(text), evidence(text)):
        statement = Statement(shown, ABOUT)
        assert parse_statement(across(dump_statement(statement))) == statement


def test_a_lone_surrogate_breaks_no_frame() -> None:
    statement = Statement(CocoToken("\ud800"), ABOUT)
    assert parse_statement(across(dump_statement(statement))) == statement


def test_a_passport_arrives_as_it_was() -> None:
    passport = Passport("a.b.c", 12.5)
    assert parse_passport(across(dump_passport(passport))) == passport


def test_evidence_with_an_unknown_hash_is_refused() -> None:
    fields = dump_evidence(evidence())
    assert parse_evidence(fields) == evidence()
    with pytest.raises(RemoteProtocolError, match="hash algorithm"):
        parse_evidence({**fields, "hash": 2})


def test_keys_arrive_with_their_private_halves_and_times() -> None:
    ring = Keyring(
        make_key(number, X25519PrivateKey.generate(), 10.5 * number, 2) for number in range(3)
    )
    arrived = parse_keyring(across({"keys": dump_keyring(ring)})["keys"])  # type: ignore[arg-type]
    assert list(arrived) == list(ring)
    assert [key.private.private_bytes_raw() for key in arrived] == [
        key.private.private_bytes_raw() for key in ring
    ]
    assert parse_keyring([]).unexpired(0) == []


def a_key() -> dict[str, Json]:
    [key] = dump_keyring(Keyring([make_key(1, X25519PrivateKey.generate(), 0, 5)]))
    assert isinstance(key, dict)
    return key


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", 256),
        ("id", -1),
        ("id", True),
        ("private", "AAAA"),
        ("private", "not base64"),
        ("private", None),
        ("stale_at", "soon"),
        ("expire_at", None),
    ],
)
def test_a_key_that_is_none_is_refused_without_being_shown(name: str, value: Json) -> None:
    key = {**a_key(), name: value}
    with pytest.raises(RemoteProtocolError) as caught:
        parse_keyring([key])
    assert str(a_key()["private"]) not in str(caught.value)
    assert caught.value.__cause__ is None


def test_more_keys_than_a_ring_holds_are_refused() -> None:
    assert len(parse_keyring([a_key() for _ in range(MAX_KEYS)])) == MAX_KEYS
    with pytest.raises(RemoteProtocolError, match="255"):
        parse_keyring([a_key()] * (MAX_KEYS + 1))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from(
    ["about", "token", "evidence", "tee", "hash", "runtime_data", "pk_s", "id", "private"]
)


@given(st.dictionaries(NAMES, json_values | st.just({"pk_s": "A" * 43 + "="})))
def test_garbage_is_a_defined_error(fields: dict[str, Json]) -> None:
    fields = parse_object(json.dumps(fields).encode("utf-8", "surrogatepass"))
    for parse in (
        parse_statement,
        parse_evidence,
        parse_passport,
        lambda one: parse_keyring([one]),
    ):
        with pytest.raises(TngError):
            parse(fields)


def test_a_token_that_is_no_text_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="no text"):
        parse_passport({"token": "/w==", "expires_at": 1})


@pytest.mark.parametrize(
    "shown",
    [
        ItaToken("a.b.c"),
        ItaEvidence(b"q", b"{}", ItaNonce("VlZW", "MjAyNg==", "U1NT")),
        ItaEvidence(b"q", b"{}", None, GpuEvidence("ZQ==", "Yw==", "HOPPER", bytes(32))),
    ],
)
def test_what_was_made_for_intel_arrives_as_such(shown: ItaToken | ItaEvidence) -> None:
    statement = Statement(shown, ClientUserData(bytes(32)))
    assert parse_statement(dump_statement(statement)) == statement


def test_a_passport_says_whose_it_is() -> None:
    passport = Passport("a.b.c", 12.5, "ita")
    assert parse_passport(dump_passport(passport)) == passport
    for provider in ("other", 1):
        with pytest.raises(RemoteProtocolError, match="provider"):
            parse_passport({**dump_passport(passport), "provider": provider})
    with pytest.raises(RemoteProtocolError, match="JSON"):
        parse_evidence({"ita": dump_octets(b"{")})
