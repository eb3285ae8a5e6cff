"""The OHTTP codecs against exchanges that were recorded from other implementations."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tng.wire.hkdf import hkdf_extract
from tng.wire.ohttp_keys import KeyConfig
from tng.wire.ohttp_metadata import AttestedKey, Metadata, dump_metadata, frame_metadata
from tng.wire.ohttp_request import RequestSealer
from tng.wire.ohttp_request_reader import RequestReader
from tng.wire.ohttp_response import ResponseOpener, ResponseSealer

Exchange = dict[str, Any]
NAMES = [
    "01-get-post-cookies-2.12",
    "02-chat-json-2.12",
    "03-sse-2.12",
    "04-post-40k-2.12",
    "05-trailers-2.12",
    "06-http2-downstream-2.12",
    "07-multi-set-cookie-2.12",
    "10-server-attest-background-check",
    "11-server-attest-passport",
    "12-client-attest-background-check-hpke-auth",
    "13-client-attest-passport-hpke-auth",
    "14-mutual",
    "20-ingress-2.6.0",
    "21-cohere-tng-1.2.0-to-python-egress",
    "30-deterministic-python-client-real-egress",
    "31-deterministic-auth-mode-local",
]
EVERY = pytest.mark.parametrize("name", NAMES)
ANSWERED = pytest.mark.parametrize("name", NAMES[:-1])
DETERMINISTIC = pytest.mark.parametrize("name", NAMES[-2:])


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def private(text: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(unhex(text))


def exchanges(shared: pathlib.Path, name: str) -> Iterator[tuple[Exchange, X25519PrivateKey]]:
    vectors = json.loads((shared / "vectors/ohttp" / f"{name}.json").read_text())
    found = [exchange for exchange in vectors["exchanges"] if "encapsulated" in exchange]
    assert found
    for exchange in found:
        yield exchange, private(vectors["egress_private_key_raw"])


def opened(exchange: Exchange, key: X25519PrivateKey, feeds: list[bytes]) -> RequestReader:
    reader = RequestReader()
    for octets in feeds:
        reader.feed(octets)
    assert reader.header is not None
    assert reader.metadata is not None
    config = KeyConfig(reader.header.key_id, key.public_key().public_bytes_raw())
    client = reader.metadata.client
    reader.open(key, config, client and client.public_key)
    return reader


def plaintexts(chunks: list[dict[str, str]]) -> list[bytes]:
    return [unhex(chunk["plaintext"]) for chunk in chunks if chunk["plaintext"]]


@EVERY
def test_every_request_opens_chunk_by_chunk(shared: pathlib.Path, name: str) -> None:
    for exchange, key in exchanges(shared, name):
        body = unhex(exchange["outer_request"]["body"])
        for feeds in ([body], [body[at : at + 1] for at in range(len(body))]):
            reader = opened(exchange, key, feeds)
            read = reader.read()
            reader.finish()
            assert reader.is_final
            assert read == plaintexts(exchange["encapsulated"]["chunks"])
            assert b"".join(read) == unhex(exchange["bhttp_request"])


@EVERY
def test_every_metadata_is_read_and_written_back(shared: pathlib.Path, name: str) -> None:
    for exchange, key in exchanges(shared, name):
        fields = exchange["metadata"]
        metadata = opened(exchange, key, [unhex(exchange["outer_request"]["body"])]).metadata
        assert metadata is not None
        assert metadata.key_hint == unhex(fields["key_config_hint"])
        assert metadata.is_anonymous == (fields["client_auth"] == "no_auth")
        if metadata.client is None:
            assert "pk_s" not in fields
        else:
            assert metadata.client.public_key == unhex(fields["pk_s"])
            assert metadata.client.token == fields["attestation_result"]
            assert metadata.client.provider == (fields["as_provider"] or "coco")
        assert dump_metadata(metadata).hex() == fields["protobuf"]


@ANSWERED
def test_every_response_opens_and_is_sealed_to_equal_octets(
    shared: pathlib.Path, name: str
) -> None:
    for exchange, key in exchanges(shared, name):
        body = unhex(exchange["outer_response"]["body"])
        response = exchange["response"]
        header = opened(exchange, key, [unhex(exchange["outer_request"]["body"])]).header
        assert header is not None
        opener = ResponseOpener(unhex(response["secret"]), header.enc, header.suite)
        read = [part for octet in body for part in opener.feed(bytes([octet]))]
        opener.finish()
        assert read == plaintexts(response["chunks"])
        assert b"".join(read) == unhex(exchange["bhttp_response"])
        assert opener.is_final
        sealer = ResponseSealer(
            unhex(response["secret"]), header.enc, header.suite, unhex(response["response_nonce"])
        )
        sealed = [sealer.prefix, *map(sealer.seal, read), sealer.finish()]
        assert b"".join(sealed) == body


@ANSWERED
def test_every_egress_derives_the_same_secrets(shared: pathlib.Path, name: str) -> None:
    for exchange, key in exchanges(shared, name):
        response = exchange["response"]
        reader = opened(exchange, key, [unhex(exchange["outer_request"]["body"])])
        read = [unhex(chunk["plaintext"]) for chunk in response["chunks"]]
        sealer = reader.response_sealer(unhex(response["response_nonce"]))
        sealed = [sealer.prefix, *map(sealer.seal, read), sealer.finish()]
        assert b"".join(sealed) == unhex(exchange["outer_response"]["body"])
        salt, secret = unhex(response["salt"]), unhex(response["secret"])
        assert hkdf_extract(salt, secret).hex() == response["prk"]


@DETERMINISTIC
def test_a_request_with_a_known_ephemeral_key_is_sealed_to_equal_octets(
    shared: pathlib.Path, name: str
) -> None:
    for exchange, key in exchanges(shared, name):
        encapsulated = exchange["encapsulated"]
        reader = opened(exchange, key, [unhex(exchange["outer_request"]["body"])])
        assert reader.header is not None
        sender = exchange.get("client_private_key")
        sealer = RequestSealer(
            KeyConfig(reader.header.key_id, key.public_key().public_bytes_raw()),
            reader.header.suite,
            private(exchange["ephemeral_private_key"]),
            sender and private(sender),
        )
        fields = exchange["metadata"]
        hint = unhex(fields["key_config_hint"])
        metadata = Metadata(hint, is_anonymous=True)
        if sender:
            client = AttestedKey(fields["attestation_result"], unhex(fields["pk_s"]))
            metadata = Metadata(hint, client)
        sealed = map(sealer.seal, plaintexts(encapsulated["chunks"]))
        body = [frame_metadata(metadata), sealer.header, *sealed, sealer.finish()]
        assert b"".join(body).hex() == exchange["outer_request"]["body"]
        if "response" in exchange:
            opener = sealer.response_opener()
            read = opener.feed(unhex(exchange["outer_response"]["body"]))
            opener.finish()
            assert b"".join(read) == unhex(exchange["bhttp_response"])
