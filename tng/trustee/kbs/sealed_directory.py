"""Secrets in a directory, sealed at rest: one file each, AES-256-GCM under one key.

    REPOSITORY,TYPE,TAG.sealed     version (1 octet), nonce (12), ciphertext with tag

The name is authenticated with the content, so that a file that was given another's name does not
open.  Files are written and read by the rules of `private_files`.

Invariants: plain octets of a secret are in no file; a file that opens was written under this name
with this key; after a crash a name has its old secret or its new one.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tng.attest.kbs.resource_id import ResourceId, make_resource_id
from tng.errors import StartError
from tng.trustee.private_files import read_private, remove_private, replace_private
from tng.trustee.problems import ProblemCode, TrusteeRequestError

if TYPE_CHECKING:
    from pathlib import Path

MAX_RESOURCES: Final = 10_000
"""Secrets in one directory; bounds the list of names and the disk."""

_VERSION: Final = b"\x01"
_NONCE: Final = 12  # octets; random, safe for far more seals than the disk can hold
_SUFFIX: Final = ".sealed"
_SEPARATOR: Final = ","  # in no segment's alphabet


class SealedDirectory:
    """A `ResourceStore` in a directory.

    Args:
        path: exists, and belongs to us alone.
        key: 32 octets.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self._cipher = AESGCM(key)
        self._changing = asyncio.Lock()

    async def get(self, resource: ResourceId) -> bytes | None:
        """See `ResourceStore`."""
        return await asyncio.to_thread(self._read, resource)

    async def put(self, resource: ResourceId, secret: bytes) -> None:
        """See `ResourceStore`."""
        async with self._changing:
            await asyncio.to_thread(self._write, resource, secret)

    async def delete(self, resource: ResourceId) -> bool:
        """See `ResourceStore`."""
        async with self._changing:
            return await asyncio.to_thread(self._remove, resource)

    async def names(self) -> list[ResourceId]:
        """See `ResourceStore`."""
        return await asyncio.to_thread(self._names)

    def _read(self, resource: ResourceId) -> bytes | None:
        path = self._file(resource)
        data = read_private(path)
        if data is None:
            return None
        nonce, sealed = data[1 : 1 + _NONCE], data[1 + _NONCE :]
        try:
            secret = self._cipher.decrypt(nonce, sealed, _context(resource, data[:1]))
        except (InvalidTag, ValueError):
            raise StartError(
                f"{path}: does not open with the resource key: it was changed, or the key was"
            ) from None
        return secret

    def _write(self, resource: ResourceId, secret: bytes) -> None:
        path = self._file(resource)
        if not path.exists() and len(self._names()) >= MAX_RESOURCES:
            raise TrusteeRequestError(
                f"there are {MAX_RESOURCES} resources already", ProblemCode.INVALID_ARGUMENT
            )
        nonce = secrets.token_bytes(_NONCE)
        sealed = self._cipher.encrypt(nonce, secret, _context(resource, _VERSION))
        replace_private(path, _VERSION + nonce + sealed)

    def _remove(self, resource: ResourceId) -> bool:
        path = self._file(resource)
        existed = path.exists()
        remove_private(path)
        return existed

    def _names(self) -> list[ResourceId]:
        found = []
        for path in self._path.glob(f"*{_SUFFIX}"):
            segments = path.name.removesuffix(_SUFFIX).split(_SEPARATOR)
            if len(segments) == 3 and not path.name.startswith("."):  # else a draft of a crash
                found.append(make_resource_id(*segments))
        return sorted(found)

    def _file(self, resource: ResourceId) -> Path:
        segments = (resource.repository, resource.kind, resource.tag)
        return self._path / (_SEPARATOR.join(segments) + _SUFFIX)


def _context(resource: ResourceId, version: bytes) -> bytes:
    return version + str(resource).encode("ascii")
