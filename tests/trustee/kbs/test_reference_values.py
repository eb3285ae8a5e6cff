"""Signed reference values: what a key that the operator named has signed, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from tng.trustee.kbs.database import Database
from tng.trustee.kbs.reference_values import ReferenceValues
from tng.trustee.problems import TrusteeRequestError

NOW = 1_795_000_000.0
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
STRANGER = ed25519.Ed25519PrivateKey.from_private_bytes(b"s" * 32)
IN_TOTO = "application/vnd.in-toto+json"
RELEASE = "application/vnd.trustee.rv.release+json"


def envelope(kind, payload, key=KEY):
    data = json.dumps(payload).encode()
    signature = key.sign(f"DSSEv1 {len(kind)} {kind} {len(data)} ".encode() + data)
    return {
        "payloadType": kind,
        "payload": base64.b64encode(data).decode(),
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }


def manifest(digit="a", key=KEY):
    measured = {"kernel": {"algorithm": "sha384", "value": digit * 96}}
    return envelope(RELEASE, {"schemaVersion": 1, "measurements": measured}, key)


def provenance(digit="b", key=KEY):
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [{"name": "image", "digest": {"sha256": digit * 64}}],
    }
    return {"dsseEnvelope": envelope(IN_TOTO, statement, key)}


def item(uri, kind="rv-release-manifest", operation="add", **changes):
    return {
        "id": "image",
        "version": "1",
        "type": "container",
        "provenance_info": {"type": kind},
        "provenance_source": {"protocol": "file", "uri": uri},
        "operation_type": operation,
        **changes,
    }


def message(items, files, kind="release_manifest"):
    payload = base64.b64encode(json.dumps({"rv_list": items, "files": files}).encode())
    return {"version": "0.1.0", "type": kind, "payload": payload.decode()}


@pytest.fixture
def store(tmp_path):
    with Database.open(tmp_path / "db") as database:
        yield ReferenceValues(database, [KEY.public_key()])


def register(store, body):
    return asyncio.run(store.register(json.dumps(body).encode(), NOW))


def query(store):
    return asyncio.run(store.query(NOW))


def test_signed_values_are_taken_added_and_refreshed(store):
    both = [item("m"), item("file://p", "slsa-intoto-statements")]
    files = {"m": manifest("a"), "p": provenance("b")}
    names = register(store, message(both, files))
    assert names == ["image", "kernel", "measurement.container.image"]
    assert query(store)["kernel"] == ["a" * 96]
    assert query(store)["measurement.container.image"] == ["b" * 64]
    register(store, message([item("m")], {"m": manifest("c")}, "slsa"))
    assert query(store)["kernel"] == ["a" * 96, "c" * 96]
    twice = [item("m", operation="refresh"), item("n")]
    register(store, message(twice, {"m": manifest("d"), "n": manifest("e")}))
    assert query(store)["kernel"] == ["d" * 96, "e" * 96]


@pytest.mark.parametrize(
    ("items", "files", "says"),
    [
        ([item("m")], {"m": manifest(key=STRANGER)}, "none of 1 signatures"),
        ([item("m")], {"m": {**manifest(), "payload": "e30="}}, "none of 1 signatures"),
        ([item("m")], {}, "files has no 'm'"),
        ([item("m"), item("/etc/passwd")], {"m": manifest()}, "item 1 of rv_list"),
        ([item("m", operation="drop")], {"m": manifest()}, "operation_type"),
        ([item("m", provenance_source={"protocol": "oci", "uri": "m"})], {}, "nothing is fetched"),
        ([item("m", "slsa-intoto-statements")], {"m": manifest()}, "payloadType"),
        ([item("m", rv_name="x" * 257)], {"m": manifest()}, "names of 1 to 256"),
        ([1], {}, "expected an object"),
        ([], {}, "1 to 256 items"),
        ([item("m")], [], "files, an object"),
    ],
)
def test_a_list_with_one_fault_is_refused_whole(store, items, files, says):
    with pytest.raises(TrusteeRequestError, match=says) as caught:
        register(store, message(items, files))
    assert caught.value.http_status == 400
    assert query(store) == {}


def test_another_member_beside_the_list_is_refused(store):
    body = message([item("m")], {"m": manifest()})
    payload = {"rv_list": [], "files": {}, "keys": []}
    body["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    with pytest.raises(TrusteeRequestError, match="keys"):
        register(store, body)


@pytest.mark.parametrize("kind", ["slsa", "release_manifest"])
def test_without_a_trusted_key_signed_values_are_not_taken(tmp_path, kind):
    with Database.open(tmp_path / "db") as database:
        store = ReferenceValues(database)
        with pytest.raises(TrusteeRequestError, match="--reference-key") as caught:
            register(store, message([item("m")], {"m": manifest()}, kind))
        assert caught.value.http_status == 501
        assert query(store) == {}


def test_signed_values_are_not_taken_as_plain_ones_by_another_name(store):
    with pytest.raises(TrusteeRequestError) as caught:
        register(store, message([item("m")], {"m": manifest()}, "Sample"))
    assert caught.value.http_status == 501


def plain(values):
    payload = base64.b64encode(json.dumps(values).encode()).decode()
    return {"version": "0.1.0", "type": "sample", "payload": payload}


def test_what_grows_too_large_by_merging_is_refused(store):
    register(store, plain({"a": ["x" * 40_000]}))
    with pytest.raises(TrusteeRequestError, match="more than 65536 characters"):
        register(store, plain({"a": ["y" * 40_000]}))
    assert query(store) == {"a": ["x" * 40_000]}


def test_the_number_of_names_is_bounded_over_all_messages(store):
    register(store, plain({f"a{n}": 1 for n in range(10_000)}))
    with pytest.raises(TrusteeRequestError, match="more than 10000"):
        register(store, plain({"b": 1}))
    register(store, plain({"a0": 2}))
    assert len(query(store)) == 10_000
