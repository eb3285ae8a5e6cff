"""Where the key broker's secrets are: the seam to stores, and the choice of one by name.

A `ResourceStore` keeps what administrators hand over.  A `SecretService` is a key management
service elsewhere, which is asked for a secret by the last segment of its name: mounted at
("default", "aliyun"), it answers `kbs:///default/aliyun/NAME`.

Invariant: a name has one home; what a service is mounted over is never looked up in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from tng.trustee.problems import ProblemCode, TrusteeRequestError

if TYPE_CHECKING:
    from tng.attest.kbs.resource_id import ResourceId

MAX_RESOURCE: Final = 512 * 1024
"""Octets of one secret: keys have dozens, credentials and certificates some thousands."""


class ResourceStore(Protocol):
    """Keeps secrets.  Calls may come at the same time."""

    async def get(self, resource: ResourceId) -> bytes | None:
        """The secret; None if there is none of that name.

        Raises:
            StartError: what is stored cannot be read, or was changed.
        """
        ...

    async def put(self, resource: ResourceId, secret: bytes) -> None:
        """Keep a secret in place of what had its name; it is durable when this returns.

        Raises:
            TrusteeRequestError: there is no room (400).
            StartError: it cannot be stored.
        """
        ...

    async def delete(self, resource: ResourceId) -> bool:
        """Forget a secret; whether there was one.

        Raises:
            StartError: the file system says no.
        """
        ...

    async def names(self) -> list[ResourceId]:
        """Names of all secrets, sorted."""
        ...


class SecretService(Protocol):
    """A key management service: a cloud's, or a vault."""

    async def fetch(self, name: str) -> bytes | None:
        """The secret of that name; None if there is none.

        Args:
            name: last segment of a resource's name.

        Raises:
            AppraiserError: the service cannot be asked.
        """
        ...


class Resources:
    """All secrets, whatever their home.

    Args:
        store: for names that no service is mounted over.
        services: by repository and type.
    """

    def __init__(
        self,
        store: ResourceStore,
        services: Mapping[tuple[str, str], SecretService] | None = None,
    ) -> None:
        self._store = store
        self._services = dict(services or {})

    async def get(self, resource: ResourceId) -> bytes:
        """The secret of that name.

        Raises:
            TrusteeRequestError: there is none (404).
            StartError, AppraiserError: its home cannot be read.
        """
        service = self._service(resource)
        if service is None:
            secret = await self._store.get(resource)
        else:
            secret = await service.fetch(resource.tag)
        if secret is None:
            raise _unknown(resource)
        return secret

    async def put(self, resource: ResourceId, secret: bytes) -> None:
        """Store a secret.

        Raises:
            TrusteeRequestError: it is empty, too large, or a service is mounted there (400).
            StartError: it cannot be stored.
        """
        self._refuse_mounted(resource)
        if not 1 <= len(secret) <= MAX_RESOURCE:
            raise TrusteeRequestError(
                f"expected a resource of 1 to {MAX_RESOURCE} octets, got {len(secret)}",
                ProblemCode.INVALID_ARGUMENT,
            )
        await self._store.put(resource, secret)

    async def delete(self, resource: ResourceId) -> None:
        """Forget a secret.

        Raises:
            TrusteeRequestError: there is none (404), or a service is mounted there (400).
        """
        self._refuse_mounted(resource)
        if not await self._store.delete(resource):
            raise _unknown(resource)

    async def names(self) -> list[ResourceId]:
        """Names of what is in the store; services are not asked for theirs."""
        return await self._store.names()

    def _service(self, resource: ResourceId) -> SecretService | None:
        return self._services.get((resource.repository, resource.kind))

    def _refuse_mounted(self, resource: ResourceId) -> None:
        if self._service(resource) is not None:
            raise TrusteeRequestError(
                f"{resource} belongs to a key management service, change it there",
                ProblemCode.INVALID_ARGUMENT,
            )


def _unknown(resource: ResourceId) -> TrusteeRequestError:
    return TrusteeRequestError(f"there is no resource {resource}", ProblemCode.KBS_RESOURCE)
