"""The api-server-rest of Confidential Containers as a source of evidence (`coco_asr`, `ita_asr`).

Report data goes to its HTTP interface, evidence comes back: GET /info once for the name of the
TEE, then GET /aa/evidence and GET /aa/additional-evidence.

Invariant: no answer larger than `MAX_BODY` is kept, no redirect is followed, no proxy of the
environment is used, and every call ends within `DEADLINE`.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from tng.attest.attester.base import DEADLINE, TeeEvidence, make_evidence
from tng.attest.base64_text import dump_base64url
from tng.errors import EvidenceError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    import httpx

_T = TypeVar("_T")

log = logging.getLogger(__name__)

MAX_BODY: Final = 16 << 20
"""Octets of an answer; the evidence of eight GPUs takes about one million."""
CONNECT_TIMEOUT: Final = 5.0
"""Seconds for connecting; the service is on the same machine."""

_EXCERPT: Final = 512  # octets of an error body that are worth repeating


class AsrAttester:
    """Asks an api-server-rest.

    Args:
        base_url: `http://host:port`, with or without a slash behind it.
        deadline: seconds that all requests together may take.
        connect_timeout: seconds that connecting may take.
    """

    def __init__(
        self,
        base_url: str,
        *,
        deadline: float = DEADLINE,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        self._base = base_url.removesuffix("/")
        self._source = f"api-server-rest at {self._base}"
        self._deadline = deadline
        self._connect_timeout = connect_timeout
        self._tls: ssl.SSLContext | None = None
        self._tee: str | None = None
        self._warned = False

    async def get_evidence(self, report_data: bytes) -> TeeEvidence:
        """Ask the service to vouch for `report_data` (see `Attester`)."""

        async def ask(client: httpx.AsyncClient) -> TeeEvidence:
            primary = await self._primary(client, report_data)
            # Over the same data, so that a GPU's nonce answers for them (TNG 2.12 sends none).
            additional = await self._additional(client, report_data)
            return make_evidence(self._source, primary.tee, primary.evidence, additional)

        return await self._within_deadline(ask)

    async def get_primary(self, report_data: bytes) -> TeeEvidence:
        """The same without further devices (see `ita.DeviceAttester`)."""
        return await self._within_deadline(lambda client: self._primary(client, report_data))

    async def get_additional(self, runtime_data: bytes) -> bytes:
        """Evidence of further devices over `runtime_data` (see `ita.DeviceAttester`)."""
        return await self._within_deadline(lambda client: self._additional(client, runtime_data))

    async def _within_deadline(self, ask: Callable[[httpx.AsyncClient], Awaitable[_T]]) -> _T:
        import httpx  # here, so that only those who use it pay for it

        if self._tls is None:  # once: loading the root certificates takes longer than asking
            self._tls = httpx.create_ssl_context(trust_env=False)
        timeout = httpx.Timeout(None, connect=self._connect_timeout)
        # trust_env: what the environment says about proxies is for the command line to read.
        client = httpx.AsyncClient(
            verify=self._tls, timeout=timeout, follow_redirects=False, trust_env=False
        )
        try:
            with trio.fail_after(self._deadline):
                async with client:
                    return await ask(client)
        except trio.TooSlowError as exc:
            raise EvidenceError(
                f"{self._source} gave no evidence within {self._deadline:g} s; "
                "check the service and the agent behind it"
            ) from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise EvidenceError(
                f"{self._source} cannot be asked: {str(exc) or type(exc).__name__}; "
                "start the service, or correct attest.asr_addr"
            ) from exc

    async def _primary(self, client: httpx.AsyncClient, report_data: bytes) -> TeeEvidence:
        if self._tee is None:
            self._tee = self._parse_info(await self._get_ok(client, "/info", None))
        evidence = await self._get_ok(client, "/aa/evidence", report_data)
        return make_evidence(self._source, self._tee, evidence, b"")

    async def _additional(self, client: httpx.AsyncClient, runtime_data: bytes) -> bytes:
        status, additional = await self._get(client, "/aa/additional-evidence", runtime_data)
        if status != 200:
            if not self._warned:  # services without further devices answer so every time
                self._warned = True
                log.warning("no additional evidence source=%s status=%d", self._source, status)
            return b""
        return additional

    async def _get_ok(
        self, client: httpx.AsyncClient, path: str, runtime_data: bytes | None
    ) -> bytes:
        status, body = await self._get(client, path, runtime_data)
        if status != 200:
            excerpt = body[:_EXCERPT].decode(errors="replace")
            raise EvidenceError(
                f"{self._source} answered GET {path} with status {status}, expected 200: "
                f"{excerpt!r}"
            )
        return body

    async def _get(
        self, client: httpx.AsyncClient, path: str, runtime_data: bytes | None
    ) -> tuple[int, bytes]:
        query = {}
        if runtime_data is not None:
            query = {"runtime_data": dump_base64url(runtime_data), "encoding": "base64"}
        # No compression: the limit is then on what is received, and loopback is fast enough.
        headers = {"accept-encoding": "identity"}
        body = bytearray()
        async with client.stream("GET", self._base + path, params=query, headers=headers) as answer:
            if "content-encoding" in answer.headers:
                raise EvidenceError(f"{self._source} compressed its answer though asked not to")
            with trio.CancelScope() as reading:
                async for chunk in answer.aiter_raw():
                    body += chunk
                    if len(body) > MAX_BODY:
                        # Not raise: the generators below would be left to the garbage collector.
                        reading.cancel()
            if len(body) > MAX_BODY:
                raise EvidenceError(
                    f"{self._source} answered GET {path} with more than {MAX_BODY} octets"
                )
            return answer.status_code, bytes(body)

    def _parse_info(self, body: bytes) -> str:
        try:
            info: object = json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise EvidenceError(f"{self._source} answered GET /info with no JSON") from exc
        tee = info.get("tee") if isinstance(info, dict) else None
        if not isinstance(tee, str):
            raise EvidenceError(f"{self._source} answered GET /info without a text `tee`")
        return tee
