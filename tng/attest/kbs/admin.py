"""Administration of a key broker: the signed token that shows who asks, and the calls.

A key pair (Ed25519, PEM) and the time go in, a JSON Web Token comes out (RFC 7519, `alg` EdDSA of
RFC 8037), valid for minutes.  Source: admin tokens of the key broker.

Invariant: a token's life is at most `TOKEN_LIFETIME_S`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tng.errors import AppraiserError, ConfigError, ErrorCode

if TYPE_CHECKING:
    from tng.attest.kbs.client import KbsConnection
    from tng.attest.kbs.resource_id import ResourceId

TOKEN_LIFETIME_S: Final = 300
"""Seconds: enough for one command, and for clocks that differ a little."""

MAX_LIST: Final = 1024 * 1024
"""Octets of the list of resources."""


def make_admin_key() -> tuple[bytes, bytes]:
    """A new key pair as PEM: the private half (PKCS #8, not encrypted), then the public one."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private, public


def make_admin_token(private_pem: bytes, now: float, where: str) -> str:
    """A token for the next minutes.

    Args:
        private_pem: PKCS #8.
        now: Unix time, seconds.
        where: name of the file, for messages.

    Raises:
        ConfigError: no Ed25519 private key.
    """
    try:
        key = serialization.load_pem_private_key(private_pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ConfigError([f"{where}: expected a private key in PEM, not encrypted"]) from exc
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError([f"{where}: expected an Ed25519 private key"])
    claims = {"iat": int(now), "exp": int(now) + TOKEN_LIFETIME_S}
    return jwt.encode(claims, key, algorithm="EdDSA")


async def put_resource(connection: KbsConnection, resource: ResourceId, secret: bytes) -> None:
    """Store a secret under a name, in place of what had it.

    Raises:
        AppraiserError: the broker cannot be asked, or refuses.
    """
    await connection.call("POST", f"/resource/{resource.path}", secret)


async def delete_resource(connection: KbsConnection, resource: ResourceId) -> None:
    """Forget a secret.

    Raises:
        AppraiserError: the broker cannot be asked, or has none of that name.
    """
    await connection.call("DELETE", f"/resource/{resource.path}")


async def list_resources(connection: KbsConnection) -> list[str]:
    """Names of all secrets, as `kbs:///...`.

    Raises:
        AppraiserError: the broker cannot be asked, or its answer is no list of names.
    """
    body = await connection.call("GET", "/resources", limit=MAX_LIST)
    try:
        names = json.loads(body)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AppraiserError(
            "the key broker's list of resources is no list of names", code=ErrorCode.AS_REJECTED
        )
    return names
