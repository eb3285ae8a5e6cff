"""A client of a key broker: fetches a secret with evidence of our own TEE.

The name of a secret and an attester go in, the secret comes out.  One handshake per secret
(RCAR: request, challenge, attestation, response), with a key that exists for that long; then the
sealed secret is fetched and opened.  Source: the key broker's protocol 0.1.0 to 0.4.0.

Evidence of further devices is not sent: it would have to be bound to the nonce before the first
device's is, which agents offer no way to ask for.

Invariants: no answer is read beyond its limit, no call outlasts `CALL_TIMEOUT_S`; the secret and
the key that opens it are in no message and no log line.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio
from cryptography.hazmat.primitives.asymmetric import ec

from tng.attest.binding import canonical_json, report_data
from tng.attest.kbs.binding import COMPOSITE, bound_claims
from tng.attest.kbs.jwe import MAX_SEALED, open_sealed
from tng.attest.kbs.messages import (
    attest_body,
    auth_body,
    parse_nonce,
    parse_token,
    refusal_words,
)
from tng.attest.kbs.tee_key import ECDH, TeeKey, dump_tee_key
from tng.errors import AppraiserError, ErrorCode, EvidenceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from tng.attest.appraiser.exchange import HttpExchange
    from tng.attest.attester.base import Attester
    from tng.attest.kbs.resource_id import ResourceId
    from tng.attest.strict_json import Json

log = logging.getLogger(__name__)

CALL_TIMEOUT_S: Final = 20.0
"""Seconds for one call; the broker judges evidence in it, and may fetch collateral."""

CONNECT_TIMEOUT_S: Final = 5.0
"""Seconds until a connection must stand."""

_MAX_ANSWER: Final = 2 * 1024 * 1024  # octets: a token with a long event log, in JSON
_ABSENT: Final = frozenset({429, 502, 503, 504})
_CODES: Final = {401: ErrorCode.AS_REJECTED, 403: ErrorCode.POLICY_DENIED}
_HINTS: Final = {
    401: "the evidence or the session was not accepted; see the broker's log",
    403: "the broker's resource policy does not give it to this machine",
    404: "there is no such resource, or the address is not that of a key broker",
}


class KbsConnection:
    """Calls to one broker.  Use as `async with`; closes what it opened.

    Args:
        url: address of the broker, without `/kbs/v0`; one slash at its end is ignored.
        headers: added to every request; the values are secrets.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self._url = url.removesuffix("/") + "/kbs/v0"
        self._headers = dict(headers or {})
        self._exchange: HttpExchange | None = None

    def __repr__(self) -> str:
        return f"KbsConnection(headers={len(self._headers)})"

    async def __aenter__(self) -> KbsConnection:
        from tng.attest.appraiser.exchange import HttpExchange  # httpx takes a while to import

        self._exchange = HttpExchange(self._url, self._headers, CONNECT_TIMEOUT_S)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._exchange is not None  # __aenter__ made it
        await self._exchange.aclose()

    async def call(
        self, method: str, path: str, content: bytes | None = None, limit: int = _MAX_ANSWER
    ) -> bytes:
        """Body of a successful answer.

        Args:
            method: of HTTP.
            path: begins with a slash; follows `/kbs/v0`.
            content: JSON or octets; None for no body.
            limit: octets of the answer.

        Raises:
            AppraiserError: no answer (as_unreachable), or a refusal (as_rejected, or
                policy_denied for 403).
        """
        assert self._exchange is not None
        try:
            with trio.fail_after(CALL_TIMEOUT_S):
                status, body = await self._exchange.call(method, path, content, limit)
        except trio.TooSlowError as exc:
            raise AppraiserError(
                f"key broker did not answer {method} {path} within {CALL_TIMEOUT_S:g} s"
            ) from exc
        except AppraiserError as exc:
            raise AppraiserError(
                f"key broker gave no answer to {method} {path}: {exc}", code=exc.code
            ) from exc
        if 200 <= status < 300:
            return body
        default = ErrorCode.AS_UNREACHABLE if status in _ABSENT else ErrorCode.AS_REJECTED
        hint = f"; {_HINTS[status]}" if status in _HINTS else ""
        raise AppraiserError(
            f"key broker answered {method} {path} with {status}: {refusal_words(body)}{hint}",
            code=_CODES.get(status, default),
        )


async def fetch_resource(
    connection: KbsConnection,
    resource: ResourceId,
    attester: Attester,
    *,
    tee: str = "tdx",
    version: str = COMPOSITE,
) -> bytes:
    """The secret of that name.

    Args:
        connection: open.
        resource: its name.
        attester: vouches for this machine.
        tee: name of the TEE that the attester speaks for.
        version: of the handshake; one of `binding.VERSIONS`.

    Raises:
        AppraiserError: the broker cannot be asked, or gives nothing to this machine.
        EvidenceError: this machine has no evidence, or it is of another TEE.
    """
    private_key = ec.generate_private_key(ec.SECP256R1())
    tee_key = dump_tee_key(TeeKey(ECDH, private_key.public_key()))
    answer = await connection.call("POST", "/auth", auth_body(version, tee))
    try:
        nonce = parse_nonce(answer)
    except ValueError as exc:
        raise _bad_answer("/auth", exc) from exc
    evidence = await _evidence(attester, tee, version, nonce, tee_key)
    try:
        body = attest_body(version, nonce, tee_key, evidence)
    except ValueError as exc:
        raise EvidenceError(f"the evidence is no JSON object, as the broker wants: {exc}") from exc
    try:
        parse_token(await connection.call("POST", "/attest", body))
        # The session's cookie stands for the token from here on.
        sealed = await connection.call("GET", f"/resource/{resource.path}", limit=MAX_SEALED)
        secret = open_sealed(sealed, private_key)
    except ValueError as exc:
        raise _bad_answer(f"/attest or /resource/{resource.path}", exc) from exc
    log.info("resource received resource=%s octets=%d", resource, len(secret))
    return secret


async def _evidence(
    attester: Attester, tee: str, version: str, nonce: str, tee_key: dict[str, Json]
) -> bytes:
    claims = bound_claims(nonce, tee_key, "" if version == COMPOSITE else None)
    evidence = await attester.get_evidence(report_data(canonical_json(claims)))
    if evidence.tee != tee:
        raise EvidenceError(
            f"the evidence is of the TEE {evidence.tee!r}, and the handshake began for {tee!r};"
            " name the right one"
        )
    return evidence.evidence


def _bad_answer(path: str, error: ValueError) -> AppraiserError:
    return AppraiserError(
        f"the key broker's answer to {path} is not as expected: {error}",
        code=ErrorCode.AS_REJECTED,
    )
