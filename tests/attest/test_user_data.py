"""tng.attest.user_data: claims that name one HPKE key, hashed as the reference hashes them."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.binding import canonical_json, report_data
from tng.attest.user_data import (
    MAX_KEY_CONFIG_LIST,
    ClientUserData,
    ServerUserData,
    claims_of,
    parse_key_config,
    parse_user_data,
    read_user_data,
    with_challenge,
)
from tng.errors import ErrorCode, RemoteProtocolError
from tng.wire.dice import CocoEvidence

LIST = base64.b64encode(b"a list of key configurations").decode()
SERVER = ServerUserData(LIST, 1_900_000_000, "c.h.s")
CLIENT = ClientUserData(bytes(range(32)), "c.h.s")


def refused(value: object, reading: object = parse_user_data) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        reading(value)  # type: ignore[operator]
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED
    return str(caught.value)


def test_a_server_claims_its_key_configuration_with_the_expiry() -> None:
    assert claims_of(SERVER) == {
        "challenge_token": "c.h.s",
        "hpke_key_config": {"encoded_key_config_list": LIST, "expire_timestamp": 1_900_000_000},
    }
    assert SERVER.key_claims == {"hpke_key_config": SERVER.key_config}


def test_a_client_claims_its_public_key() -> None:
    pk_s = base64.b64encode(bytes(range(32))).decode()
    assert claims_of(CLIENT) == {"challenge_token": "c.h.s", "pk_s": pk_s}
    assert CLIENT.key_claims == {"pk_s": pk_s}


def test_a_challenge_is_added_to_the_same_key() -> None:
    bare = dataclasses.replace(SERVER, challenge_token=None)
    assert claims_of(bare) == SERVER.key_claims
    assert with_challenge(bare, "c.h.s") == SERVER
    for challenge in ("", "a\n", "é", "x" * 8193):
        with pytest.raises(RemoteProtocolError):
            with_challenge(bare, challenge)


def test_the_digest_of_a_key_does_not_depend_on_the_challenge() -> None:
    assert CLIENT.key_digest == hashlib.sha256(bytes(range(32))).hexdigest()
    assert SERVER.key_digest == hashlib.sha256(b"a list of key configurations").hexdigest()
    assert with_challenge(CLIENT, "another").key_digest == CLIENT.key_digest


@pytest.mark.parametrize("user_data", [SERVER, CLIENT])
def test_claims_are_read_back_whatever_stands_beside_them(
    user_data: ServerUserData | ClientUserData,
) -> None:
    assert parse_user_data(claims_of(user_data)) == user_data
    assert parse_user_data({**claims_of(user_data), "more": [1]}) == user_data
    bare = dataclasses.replace(user_data, challenge_token=None)
    assert parse_user_data(user_data.key_claims) == bare
    text = canonical_json(claims_of(user_data)).decode()
    assert read_user_data(CocoEvidence("tdx", b"{}", None, text)) == user_data


def test_runtime_data_without_one_key_is_refused() -> None:
    assert "neither" in refused({"challenge_token": "c.h.s"})
    assert "both" in refused({**claims_of(SERVER), **claims_of(CLIENT)})


@pytest.mark.parametrize(
    "claims",
    [
        {"pk_s": None},
        {"pk_s": 1},
        {"pk_s": base64.b64encode(bytes(31)).decode()},
        {"pk_s": base64.b64encode(bytes(33)).decode()},
        {"pk_s": base64.b64encode(bytes(3200)).decode()},
        {"pk_s": base64.b64encode(bytes(32)).decode().rstrip("=")},
        {"pk_s": base64.b64encode(bytes(32)).decode()[:-2] + "B="},
        {"pk_s": base64.urlsafe_b64encode(b"\xff" * 32).decode()},
        {**CLIENT.key_claims, "challenge_token": 1},
        {**CLIENT.key_claims, "challenge_token": ""},
        {**CLIENT.key_claims, "challenge_token": "x" * 8193},
    ],
)
def test_a_clients_claims_of_another_form_are_refused(claims: dict[str, object]) -> None:
    refused(claims)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoded_key_config_list": None},
        {"encoded_key_config_list": 5},
        {"encoded_key_config_list": ""},
        {"encoded_key_config_list": "A" * (MAX_KEY_CONFIG_LIST + 4)},
        {"encoded_key_config_list": "AAA"},
        {"encoded_key_config_list": "ä"},
        {"expire_timestamp": None},
        {"expire_timestamp": True},
        {"expire_timestamp": 1.0},
        {"expire_timestamp": "1900000000"},
        {"expire_timestamp": -1},
        {"expire_timestamp": 1 << 64},
    ],
)
def test_a_key_configuration_of_another_form_is_refused(changes: dict[str, object]) -> None:
    refused({**SERVER.key_config, **changes}, parse_key_config)


def test_a_key_configuration_is_an_object_and_may_have_more_members() -> None:
    bare = dataclasses.replace(SERVER, challenge_token=None)
    assert parse_key_config({**SERVER.key_config, "suites": []}) == bare
    for value in (None, [], "text"):
        refused(value, parse_key_config)


@pytest.mark.parametrize("text", ["", "[]", '{"pk_s":1,"pk_s":1}', "\ud800"])
def test_runtime_data_that_is_no_object_is_refused(text: str) -> None:
    refused(CocoEvidence("tdx", b"{}", None, text), read_user_data)


@pytest.mark.parametrize("side", ["server", "client"])
def test_the_references_runtime_data_and_its_hash_come_out_octet_for_octet(
    shared: pathlib.Path, side: str
) -> None:
    path = shared / "vectors/ohttp/15-runtime-data-hashes.json"
    vector = json.loads(path.read_text())[side]
    user_data = parse_user_data(json.loads(vector["aa_runtime_data"]))
    runtime_data = canonical_json(claims_of(user_data))
    assert runtime_data.decode() == vector["aa_runtime_data"]
    assert report_data(runtime_data).hex() == vector["sha384"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
NAMES = ["pk_s", "hpke_key_config", "challenge_token"]


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_garbage_gives_user_data_or_a_refusal(claims: dict[str, object]) -> None:
    try:
        user_data = parse_user_data(claims)  # type: ignore[arg-type]
    except RemoteProtocolError:
        return
    assert parse_user_data(claims_of(user_data)) == user_data


@given(JSON, JSON)
def test_garbage_gives_a_key_configuration_or_a_refusal(encoded: object, expiry: object) -> None:
    value = {"encoded_key_config_list": encoded, "expire_timestamp": expiry}
    with contextlib.suppress(RemoteProtocolError):
        assert parse_key_config(value).key_config == value  # type: ignore[arg-type]
