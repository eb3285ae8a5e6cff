"""The keys that Intel Trust Authority signs tokens with, as its portal publishes them.

In: the portal's address and a `kid`.  Out: the RSA key under it.  Keys are fetched over HTTPS when
first needed, again when a token names an unknown one, but not more often than
`REFETCH_INTERVAL_S` (a hostile peer can send such tokens at will), and again when they are older
than `MAX_AGE_S`, so that a key that was withdrawn is forgotten.

Source: RFC 7517; `GET {ita_jwks_addr}/certs`.

Invariant: a key that is returned was published by the portal at most `MAX_AGE_S` ago.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from tng.attest.ita_token import ALGORITHM
from tng.attest.jws import MAX_KEY_ID, parse_rsa_jwk
from tng.attest.strict_json import parse_object
from tng.errors import AppraiserError, ConfigError, ErrorCode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from tng.attest.appraiser.exchange import HttpExchange
    from tng.attest.strict_json import Json

DEFAULT_PORTAL: Final = "https://portal.trustauthority.intel.com"
"""Where the keys are, unless `ita_jwks_addr` says otherwise."""

KEYS_PATH: Final = "/certs"
"""Path of the key set."""

MAX_BODY: Final = 256 * 1024
"""Octets of a key set; one with three keys and their chains has about 30,000."""

MAX_KEYS: Final = 32
"""Keys of one set; the service publishes three or four."""

MAX_AGE_S: Final = 3600.0
"""Seconds for which a key set is used."""

REFETCH_INTERVAL_S: Final = 30.0
"""Seconds between two looks for an unknown key."""

FAILURE_MEMORY_S: Final = 0.5
"""Seconds for which a failed fetch answers everybody, as in `verifier.anchors`."""

CONNECT_TIMEOUT_S: Final = 5.0
"""Seconds until a connection must stand."""

TOTAL_TIMEOUT_S: Final = 10.0
"""Seconds for one fetch; somebody is waiting for it."""

log = logging.getLogger(__name__)


class ItaKeys:
    """Published keys, kept for a while.  Used in the trio thread.

    Args:
        portal: base URL, https; one slash at its end is ignored.
        user_agent: what we call ourselves.

    Raises:
        ConfigError: another scheme: keys that came over it would authenticate nothing.
    """

    def __init__(self, portal: str, *, user_agent: str) -> None:
        if not portal.lower().startswith("https://"):
            raise ConfigError(
                [f"verify.ita_jwks_addr: expected an https URL, got {portal.partition(':')[0]!r}"]
            )
        self._base = portal.removesuffix("/")
        self._headers = {"user-agent": user_agent}
        self._exchange: HttpExchange | None = None
        self._lock = trio.Lock()
        self._keys: dict[str, RSAPublicKey] = {}
        self._fetched_at = 0.0
        self._asked_at = -REFETCH_INTERVAL_S
        self._failure: AppraiserError | None = None

    @property
    def portal(self) -> str:
        """Where the keys come from."""
        return self._base

    async def get(self) -> None:
        """Return if there are keys that are young enough; fetch them if there are none.

        Raises:
            AppraiserError: they could not be fetched.
        """
        async with self._lock:
            await self._refresh()

    async def find(self, key_id: str) -> RSAPublicKey | None:
        """The key under that `kid`; None if the portal publishes none.

        Raises:
            AppraiserError: the keys could not be fetched.
        """
        async with self._lock:
            await self._refresh()
            found = self._keys.get(key_id)
            if found is None and trio.current_time() - self._asked_at >= REFETCH_INTERVAL_S:
                await self._fetch()
                found = self._keys.get(key_id)
            return found

    async def aclose(self) -> None:
        """Close the connection to the portal."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.aclose()

    async def _refresh(self) -> None:
        now = trio.current_time()
        if self._keys and now - self._fetched_at < MAX_AGE_S:
            return
        self._keys = {}
        if self._failure is not None and now - self._asked_at < FAILURE_MEMORY_S:
            raise AppraiserError(str(self._failure), code=self._failure.code)
        await self._fetch()

    async def _fetch(self) -> None:
        self._asked_at = trio.current_time()
        try:
            keys = await self._download()
        except AppraiserError as exc:
            self._failure = exc
            raise
        self._keys, self._fetched_at, self._failure = keys, trio.current_time(), None
        log.info("token keys fetched count=%d portal=%s", len(keys), self._base)

    async def _download(self) -> dict[str, RSAPublicKey]:
        where = f"keys of Intel Trust Authority at {self._base}{KEYS_PATH}"
        if self._exchange is None:
            from tng.attest.appraiser.exchange import HttpExchange

            self._exchange = HttpExchange(self._base, self._headers, CONNECT_TIMEOUT_S)
        try:
            with trio.fail_after(TOTAL_TIMEOUT_S):
                status, body = await self._exchange.call("GET", KEYS_PATH, None, MAX_BODY)
        except trio.TooSlowError as exc:
            raise AppraiserError(f"{where}: no answer within {TOTAL_TIMEOUT_S:g} s") from exc
        except AppraiserError as exc:
            raise AppraiserError(f"{where}: {exc}; is ita_jwks_addr right?", code=exc.code) from exc
        if status != 200:
            code = ErrorCode.AS_UNREACHABLE if status >= 500 else ErrorCode.AS_REJECTED
            raise AppraiserError(f"{where}: answered {status}, expected 200", code=code)
        try:
            return parse_jwks(body)
        except ValueError as exc:
            raise AppraiserError(f"{where}: {exc}", code=ErrorCode.AS_REJECTED) from exc


def parse_jwks(body: bytes) -> dict[str, RSAPublicKey]:
    """The keys that sign with PS384, by their `kid`; keys for anything else are passed over.

    Raises:
        ValueError: no key set, too many keys, two under one `kid`, a malformed one, or none.
    """
    listed = parse_object(body).get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"expected a list of at most {MAX_KEYS} in the member keys")
    keys: dict[str, RSAPublicKey] = {}
    for jwk in listed:
        if not isinstance(jwk, dict) or not _is_for_tokens(jwk):
            continue
        key_id = jwk.get("kid")
        if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
            raise ValueError(f"a key has no kid of 1 to {MAX_KEY_ID} characters")
        if key_id in keys:
            raise ValueError(f"two keys have the kid {key_id!r:.80}")
        keys[key_id] = parse_rsa_jwk(jwk)
    if not keys:
        raise ValueError(f"there is no key for {ALGORITHM} among {len(listed)}")
    return keys


def _is_for_tokens(jwk: dict[str, Json]) -> bool:
    """RFC 7517 sections 4.1 to 4.4: absent means any."""
    return (
        jwk.get("kty") == "RSA"
        and jwk.get("alg", ALGORITHM) == ALGORITHM
        and jwk.get("use", "sig") == "sig"
    )
