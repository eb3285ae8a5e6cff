"""Frames between processes, and what they carry."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from stage.certificates import self_signed
from stage.judges import verdict
from tng.attest.credential import Credential
from tng.errors import (
    AppraiserError,
    ErrorCode,
    EvidenceError,
    LocalProtocolError,
    NetError,
    RemoteProtocolError,
    StartError,
    TngError,
    UntrustedPeerError,
)
from tng.gateway.workers import messages
from tng.gateway.workers.frames import MAX_FRAME, FrameReader, dump_frame
from tng.verdict import AttestedPeer


def read(*parts: bytes) -> list[dict[str, object]]:
    reader, found = FrameReader(), []
    for part in parts:
        reader.receive_data(part)
        while (message := reader.next_message()) is not None:
            found.append(message)
    return found


def over_the_wire(fields: dict[str, object]) -> dict[str, object]:
    return json.loads(json.dumps(fields))


TWO = dump_frame({"a": 1}) + dump_frame({"b": "é" * 100})


@given(st.lists(st.integers(0, len(TWO)), max_size=6))
def test_any_split_gives_the_same_messages(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(TWO)]
    parts = [TWO[a:b] for a, b in itertools.pairwise(edges)]
    assert read(*parts) == [{"a": 1}, {"b": "é" * 100}]


@given(st.binary(max_size=64))
def test_garbage_gives_messages_or_a_protocol_error(data: bytes) -> None:
    for prefix in (b"", len(data).to_bytes(4, "big")):
        with contextlib.suppress(RemoteProtocolError):
            read(prefix + data)


def test_a_reader_knows_whether_an_end_cuts_something_off() -> None:
    reader = FrameReader()
    assert reader.is_between_frames
    reader.receive_data(b"\0")
    assert not reader.is_between_frames


def test_a_frame_over_the_limit_is_refused_before_its_body_arrives() -> None:
    with pytest.raises(RemoteProtocolError, match="limit"):
        read((MAX_FRAME + 1).to_bytes(4, "big"))
    assert read(MAX_FRAME.to_bytes(4, "big")) == []


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError, match="limit"):
        dump_frame({"a": "x" * MAX_FRAME})


@pytest.mark.parametrize("body", [b"[]", b"1", b"{", b'{"a":1,"a":2}', b"\xff"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="no object"):
        read(len(body).to_bytes(4, "big") + body)


@pytest.mark.parametrize(
    "error",
    [
        TngError("t"),
        NetError("n"),
        RemoteProtocolError("r"),
        EvidenceError("e"),
        AppraiserError("a", code=ErrorCode.AS_REJECTED),
        UntrustedPeerError("u", code=ErrorCode.POLICY_DENIED, verdict=verdict(accepted=False)),
        UntrustedPeerError("v"),
    ],
)
def test_errors_arrive_as_they_were_raised(error: TngError) -> None:
    arrived = messages.parse_error(over_the_wire(messages.dump_error(error)))
    assert type(arrived) is type(error)
    assert (str(arrived), arrived.code) == (str(error), error.code)
    assert getattr(arrived, "verdict", None) == getattr(error, "verdict", None)


def test_an_error_of_another_kind_arrives_as_its_nearest_base() -> None:
    arrived = messages.parse_error(messages.dump_error(StartError("port in use")))
    assert type(arrived) is TngError
    assert arrived.code is ErrorCode.START_FAILED


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kind": "SystemExit", "message": "m", "code": "internal_error"},
        {"kind": "TngError", "message": "m", "code": "no such code"},
        {"kind": "TngError", "message": 1, "code": "internal_error"},
    ],
)
def test_what_is_no_error_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError):
        messages.parse_error(fields)


def test_an_attested_peer_arrives_whole() -> None:
    peer = AttestedPeer(verdict(accepted=True), "token")
    assert messages.parse_attested(over_the_wire(messages.dump_attested(peer))) == peer


def test_a_refused_peer_never_arrives_as_attested() -> None:
    refused = messages.dump_attested(AttestedPeer(verdict(accepted=False), "token"))
    with pytest.raises(RemoteProtocolError, match="refused"):
        messages.parse_attested(refused)
    half = dataclasses.replace(verdict(accepted=True), code=ErrorCode.STALE)
    with pytest.raises(RemoteProtocolError, match="refused"):
        messages.parse_attested(messages.dump_attested(AttestedPeer(half, "token")))


GOOD = messages.dump_attested(AttestedPeer(verdict(accepted=True), "token"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accepted", 1),
        ("code", "unheard of"),
        ("checks", [1]),
        ("checks", [{"number": True, "name": "n", "outcome": "pass", "detail": ""}]),
        ("checks", [{"number": 1, "name": "n", "outcome": "maybe", "detail": ""}]),
        ("policy_ids", [1]),
        ("judged_at", "now"),
        ("valid_until", True),
        ("valid_until", 10**400),
        ("tee", None),
    ],
)
def test_a_verdict_with_a_wrong_member_is_refused(name: str, value: object) -> None:
    fields = {**GOOD, "verdict": {**GOOD["verdict"], name: value}}
    with pytest.raises(RemoteProtocolError):
        messages.parse_attested(fields)


def made_credential() -> Credential:
    key, certificate = self_signed()
    return Credential(key, certificate, 4e9, "tdx")


def test_a_credential_arrives_with_its_key() -> None:
    sent = made_credential()
    got = messages.parse_credential(over_the_wire(messages.dump_credential(sent)))
    assert got.key.private_numbers() == sent.key.private_numbers()
    assert (got.certificate, got.not_after, got.tee) == (sent.certificate, 4e9, "tdx")


def test_a_certificate_for_another_key_is_refused() -> None:
    fields = messages.dump_credential(made_credential())
    fields["key"] = messages.dump_credential(made_credential())["key"]
    with pytest.raises(RemoteProtocolError, match="another key"):
        messages.parse_credential(fields)


@pytest.mark.parametrize("value", ["", "AAAA", "not base64", 1, None])
@pytest.mark.parametrize("name", ["key", "certificate"])
def test_a_credential_that_cannot_be_read_is_refused_without_showing_it(
    name: str, value: object
) -> None:
    fields = {**messages.dump_credential(made_credential()), name: value}
    with pytest.raises(RemoteProtocolError) as caught:
        messages.parse_credential(fields)
    assert "AAAA" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_that_is_not_on_a_curve_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    other = dataclasses.replace(made_credential(), key=key)
    with pytest.raises(RemoteProtocolError, match="curve"):
        messages.parse_credential(messages.dump_credential(other))
    assert not isinstance(key, ec.EllipticCurvePrivateKey)
