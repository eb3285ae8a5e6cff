"""A client of Trustee's REST interface.

In: evidence.  Out: the service's token, unchecked; or whose fault it is that there is none:
`UntrustedPeerError` when the service looked at the evidence and refused it (400, 422 and other
client errors about the request, 401 about its challenge, 500 with a text from older services),
`AppraiserError` when the service could not be asked (no connection, too slow, 429, 502, 503, 504)
or when the address is not that of such a service (redirects, 401, 403, 404, 405, answers that are
no token).  Also out: a challenge that evidence has to answer, and the signer's certificates.

Source: Trustee's REST interface as TNG 2.12.0 uses it.  Different on purpose: an overall time
limit, limits on every answer, no redirects, no compressed answers, and the dialect of an old
service is remembered, which saves a round trip per call.

Invariant: no answer of a service is read beyond its limit, and no call outlasts `total_s`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from tng.attest.appraiser.trustee_messages import (
    CHALLENGE_BODY,
    WANTS_FLAT,
    WANTS_LIST,
    attestation_body,
    excerpt,
    flat_body,
    parse_certificates_answer,
    parse_challenge_answer,
    parse_refusal,
    parse_token_answer,
)
from tng.attest.checks import Findings, Step
from tng.attest.jws import MAX_TOKEN
from tng.errors import AppraiserError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography import x509

    from tng.attest.appraiser.exchange import HttpExchange
    from tng.errors import AttestationError
    from tng.wire.dice import CocoEvidence

CONNECT_TIMEOUT_S: Final = 5.0
"""Seconds until a connection must stand; the reference's value."""

TOTAL_TIMEOUT_S: Final = 10.0
"""Seconds for one call from its start to the last octet of the answer; a judgement takes under
one second, and somebody is waiting for it."""

MAX_CHALLENGE_BODY: Final = 16 * 1024
"""Octets of an answer to POST /challenge: the challenge itself, and a nonce."""

MAX_CERTIFICATES_BODY: Final = 256 * 1024
"""Octets of an answer to GET /certificate."""

_ABSENT: Final = frozenset({429, 502, 503, 504})
"""Statuses by which a service, or a proxy in front of it, says: not now."""

_NOT_A_VERDICT: Final = frozenset({401, 403, 404, 405, 407, 411, 413})
"""Statuses about the call itself, which say nothing about the evidence."""

_NO_VERDICT_CODES: Final = frozenset({ErrorCode.AS_UNREACHABLE, ErrorCode.COLLATERAL_UNAVAILABLE})
"""Codes by which our own service says that it could not judge."""

_HINTS: Final = {
    401: "; check as_headers",
    403: "; check as_headers",
    404: "; check as_addr: is the path before /attestation and /certificate right? a service "
    "without a signing certificate needs trusted_certs_paths",
}

log = logging.getLogger(__name__)


class TrusteeRestAppraiser:
    """Asks one attestation service over HTTP.

    Args:
        as_addr: base URL; one slash at its end is ignored.
        headers: added to every request; the values are secrets and never shown.
        user_agent: what we call ourselves.
        connect_s: seconds until a connection must stand.
        total_s: seconds that one call may take.
    """

    def __init__(
        self,
        as_addr: str,
        headers: Mapping[str, str],
        *,
        user_agent: str,
        connect_s: float = CONNECT_TIMEOUT_S,
        total_s: float = TOTAL_TIMEOUT_S,
    ) -> None:
        self._base = as_addr.removesuffix("/")
        self._shown = _without_password(self._base)
        self._headers = {**headers, "user-agent": user_agent}
        self._connect_s = connect_s
        self._total_s = total_s
        self._exchange: HttpExchange | None = None
        self._is_flat = False

    def __repr__(self) -> str:
        return f"TrusteeRestAppraiser({self._shown!r})"

    async def appraise(self, evidence: CocoEvidence, policy_ids: Sequence[str]) -> str:
        """See `Appraiser.appraise`."""
        status, body = await self._attest(evidence, policy_ids)
        if status == 200:
            try:
                return parse_token_answer(body)
            except AppraiserError as exc:
                raise AppraiserError(f"{self._shown}/attestation: {exc}", code=exc.code) from exc
        raise self._refusal("/attestation", status, body)

    async def challenge(self) -> str:
        """See `Appraiser.challenge`."""
        status, body = await self._call("POST", "/challenge", CHALLENGE_BODY, MAX_CHALLENGE_BODY)
        if status == 200:
            try:
                return parse_challenge_answer(body)
            except AppraiserError as exc:
                raise AppraiserError(f"{self._shown}/challenge: {exc}", code=exc.code) from exc
        raise self._no_answer("/challenge", status, body)

    async def fetch_certificates(self) -> list[x509.Certificate]:
        """See `Appraiser.fetch_certificates`."""
        status, body = await self._call("GET", "/certificate", None, MAX_CERTIFICATES_BODY)
        if status == 200:
            try:
                return parse_certificates_answer(body)
            except AppraiserError as exc:
                raise AppraiserError(f"{self._shown}/certificate: {exc}", code=exc.code) from exc
        raise self._no_answer("/certificate", status, body)

    async def probe(self) -> None:
        """See `Appraiser.probe`; a service without certificate (404) counts as there."""
        status, body = await self._call("GET", "/certificate", None, MAX_CERTIFICATES_BODY)
        if status >= 500 or status in _ABSENT:
            raise self._no_answer("/certificate", status, body)

    async def aclose(self) -> None:
        """See `Appraiser.aclose`."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.aclose()

    async def _attest(self, evidence: CocoEvidence, policy_ids: Sequence[str]) -> tuple[int, bytes]:
        """Post in the dialect that was right last time, and in the other if it is not today."""
        status, body = await self._post(evidence, policy_ids)
        wanted = WANTS_LIST if self._is_flat else WANTS_FLAT
        if status != 200 and wanted.encode() in body:
            self._is_flat = not self._is_flat
            log.info("attestation service speaks another dialect url=%s", self._shown)
            status, body = await self._post(evidence, policy_ids)
        return status, body

    async def _post(self, evidence: CocoEvidence, policy_ids: Sequence[str]) -> tuple[int, bytes]:
        make = flat_body if self._is_flat else attestation_body
        return await self._call("POST", "/attestation", make(evidence, policy_ids), MAX_TOKEN)

    async def _call(
        self, method: str, path: str, content: bytes | None, limit: int
    ) -> tuple[int, bytes]:
        """Status and body of one exchange, with the service's address in every error."""
        try:
            with trio.fail_after(self._total_s):
                return await self._open().call(method, path, content, limit)
        except trio.TooSlowError as exc:
            raise AppraiserError(
                f"attestation service {self._shown}{path} did not answer within {self._total_s:g} s"
            ) from exc
        except AppraiserError as exc:
            hint = ""
            if exc.code is ErrorCode.AS_UNREACHABLE:
                hint = "; is as_addr right, and does the service run?"
            raise AppraiserError(
                f"attestation service {self._shown}{path} gave no answer: {exc}{hint}",
                code=exc.code,
            ) from exc

    def _open(self) -> HttpExchange:
        """The connections, made at the first call."""
        if self._exchange is None:
            from tng.attest.appraiser.exchange import HttpExchange

            self._exchange = HttpExchange(self._base, self._headers, self._connect_s)
        return self._exchange

    def _refusal(self, path: str, status: int, body: bytes) -> AttestationError:
        """The error for an answer to evidence that is no token."""
        code, words, checks = parse_refusal(body)
        named = code is not ErrorCode.AS_REJECTED
        if not named and (status in _ABSENT or status in _NOT_A_VERDICT or not status >= 400):
            return self._no_answer(path, status, body)
        if named and code in _NO_VERDICT_CODES:
            return AppraiserError(f"attestation service {self._shown}{path}: {words}", code=code)
        findings = Findings(0)
        findings.failed(Step.APPRAISAL, f"the service answered {status}: {words}")
        findings.report(checks)
        return findings.refused(
            code,
            f"attestation service {self._shown}{path} refused the evidence ({status}): {words}",
        )

    def _no_answer(self, path: str, status: int, body: bytes) -> AppraiserError:
        """The error for an answer that says nothing about the evidence."""
        code = ErrorCode.AS_UNREACHABLE if status in _ABSENT else ErrorCode.AS_REJECTED
        return AppraiserError(
            f"attestation service {self._shown}{path} answered {status}: {excerpt(body)}"
            f"{_HINTS.get(status, '')}",
            code=code,
        )


def _without_password(url: str) -> str:
    """The URL for messages: without user, password and query."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(an as_addr that is no URL)"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{port}{parts.path}"
