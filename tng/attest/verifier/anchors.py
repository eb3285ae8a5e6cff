"""The certificates that a token's signer must lead to.

Either pinned by the operator (`trusted_certs_paths`: the first certificate of each file), or
published by the attestation service and fetched when first needed.  A service may change its
signer while we run: anchors are looked up again when a token leads to none of them, but not more
often than `REFETCH_INTERVAL_S`, because a hostile peer can send such tokens at will.

Invariant: pinned anchors never change, and fetched ones are replaced as a whole.
"""

from __future__ import annotations

import logging
import pathlib
from typing import TYPE_CHECKING, Final

import trio
from cryptography import x509

from tng.errors import AppraiserError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tng.attest.appraiser.base import Appraiser

REFETCH_INTERVAL_S: Final = 30.0
"""Seconds between two looks for newer anchors."""

FAILURE_MEMORY_S: Final = 0.5
"""Seconds for which a failed fetch answers everybody, so that many waiting peers do not each
wait for a connection in turn."""

MAX_FILE: Final = 256 * 1024
"""Octets of a file with a pinned certificate."""

log = logging.getLogger(__name__)


class PinnedAnchors:
    """Anchors that the operator chose."""

    def __init__(self, certificates: Sequence[x509.Certificate]) -> None:
        self._certificates = tuple(certificates)

    async def get(self) -> tuple[x509.Certificate, ...]:
        """The anchors."""
        return self._certificates

    async def newer_than(self, seen: tuple[x509.Certificate, ...]) -> None:
        """There never are newer ones."""


class FetchedAnchors:
    """Anchors that the attestation service publishes.

    Args:
        appraiser: whom to ask.
    """

    def __init__(self, appraiser: Appraiser) -> None:
        self._appraiser = appraiser
        self._lock = trio.Lock()
        self._certificates: tuple[x509.Certificate, ...] = ()
        self._refetched_at = -REFETCH_INTERVAL_S
        self._failure: AppraiserError | None = None
        self._failed_at = 0.0

    async def get(self) -> tuple[x509.Certificate, ...]:
        """The anchors, fetched now if there are none yet.

        Raises:
            AppraiserError: they could not be fetched.
        """
        if self._certificates:
            return self._certificates
        async with self._lock:
            if self._certificates:
                return self._certificates
            failure, age = self._failure, trio.current_time() - self._failed_at
            if failure is not None and age < FAILURE_MEMORY_S:
                raise AppraiserError(str(failure), code=failure.code)
            return await self._fetch()

    async def newer_than(
        self, seen: tuple[x509.Certificate, ...]
    ) -> tuple[x509.Certificate, ...] | None:
        """Other anchors than those seen; None if there are none, or it is too early to ask."""
        async with self._lock:
            if self._certificates != seen:
                return self._certificates
            if trio.current_time() - self._refetched_at < REFETCH_INTERVAL_S:
                return None
            self._refetched_at = trio.current_time()
            try:
                found = await self._fetch()
            except AppraiserError as exc:
                log.warning("newer signer certificates not fetched error=%s", exc)
                return None
            return found if found != seen else None

    async def _fetch(self) -> tuple[x509.Certificate, ...]:
        try:
            certificates = await self._appraiser.fetch_certificates()
        except AppraiserError as exc:
            self._failure, self._failed_at = exc, trio.current_time()
            raise
        self._certificates, self._failure = tuple(certificates), None
        log.info("signer certificates fetched count=%d", len(self._certificates))
        return self._certificates


def load_pinned(paths: Sequence[str]) -> PinnedAnchors:
    """The anchors in the operator's files.

    Raises:
        ConfigError: files that cannot be read or do not begin with a certificate; all of them
            are named.
    """
    certificates: list[x509.Certificate] = []
    problems: list[str] = []
    for path in paths:
        try:
            certificates.append(_first_certificate(path))
        except (OSError, ValueError, x509.InvalidVersion) as exc:
            problems.append(f"trusted_certs_paths: expected a PEM certificate in {path!r}: {exc}")
    if problems:
        raise ConfigError(problems)
    return PinnedAnchors(certificates)


def _first_certificate(path: str) -> x509.Certificate:
    with pathlib.Path(path).open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise ValueError(f"it is larger than {MAX_FILE} octets")
    return x509.load_pem_x509_certificates(data)[0]
