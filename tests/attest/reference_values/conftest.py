"""Signed envelopes, made here."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
"""The key that tests trust."""

STRANGER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
"""A key that they do not."""

Seal = Callable[..., dict[str, object]]


def seal_with(sign: Callable[[bytes], bytes], kind: str, payload: object) -> dict[str, object]:
    """A DSSE envelope."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signed = f"DSSEv1 {len(kind)} {kind} {len(data)} ".encode() + data
    return {
        "payloadType": kind,
        "payload": base64.b64encode(data).decode(),
        "signatures": [{"keyid": "any", "sig": base64.b64encode(sign(signed)).decode()}],
    }


@pytest.fixture
def seal() -> Seal:
    """Makes an envelope that the trusted key has signed."""
    return lambda kind, payload: seal_with(KEY.sign, kind, payload)


@pytest.fixture
def seal_by_stranger() -> Seal:
    """Makes an envelope that another key has signed."""
    return lambda kind, payload: seal_with(STRANGER.sign, kind, payload)


@pytest.fixture
def seal_by() -> Callable[..., dict[str, object]]:
    """Makes an envelope with any signing function."""
    return seal_with


@pytest.fixture
def trusted() -> ed25519.Ed25519PublicKey:
    """The public key of `seal`."""
    return KEY.public_key()
