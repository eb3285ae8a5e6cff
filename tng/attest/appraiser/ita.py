"""A client of Intel Trust Authority.

In: evidence.  Out: the service's token, unchecked; a nonce for evidence to answer.  The two calls
are `GET /appraisal/v2/nonce` and `POST /appraisal/v2/attest`, both with the API key.  Whose fault
it is that there is no token: `UntrustedPeerError` when the service looked at the evidence and
refused it (400, 422 and other client errors about the request), `AppraiserError` when it could not
be asked (no connection, too slow, 429, 5xx) or does not know us (401, 403, 404, redirects).

Source: the service's interface, version 2, as TNG 2.12.0 uses it; what may pass by itself is tried
again as there, 4 times, after 100 ms, doubled up to 1 s.  Different on purpose: an overall time
limit, limits on every answer, no redirects.

Invariant: no answer is read beyond its limit, no call outlasts `total_s`, and no message repeats
the API key.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import trio

from tng.attest.appraiser.trustee_messages import excerpt
from tng.attest.base64_text import dump_standard
from tng.attest.checks import Findings, Step
from tng.attest.ita_json import MAX_NONCE_JSON, dump_nonce_text
from tng.attest.jws import MAX_TOKEN
from tng.attest.strict_json import parse_object
from tng.errors import AppraiserError, AttestationError, ErrorCode, RemoteProtocolError
from tng.wire.ita_evidence import dump_nonce, parse_nonce

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tng.attest.appraiser.exchange import HttpExchange
    from tng.attest.strict_json import Json
    from tng.config.secret import Secret
    from tng.wire.ita_evidence import ItaEvidence

DEFAULT_API: Final = "https://api.trustauthority.intel.com"
"""Where the service is, unless `as_addr` says otherwise."""

ATTEST_PATH: Final = "/appraisal/v2/attest"
"""Path of the call that appraises."""
NONCE_PATH: Final = "/appraisal/v2/nonce"
"""Path of the call for a nonce."""

CONNECT_TIMEOUT_S: Final = 5.0
"""Seconds until a connection must stand."""

TOTAL_TIMEOUT_S: Final = 20.0
"""Seconds for one question, all tries included; GPU evidence takes the service some of them."""

RETRIES: Final = 4
"""Tries after the first; the reference's value."""

FIRST_PAUSE_S: Final = 0.1
"""Seconds before the second try; the reference's value, as is the factor up to 1 s."""

_GPU_REFUSAL: Final = b"Failed to verify GPU evidence"  # passes by itself at times, says Intel
_NOT_A_VERDICT: Final = frozenset({401, 403, 404, 405, 407, 411, 413, 429})
_HINTS: Final = {
    401: "; check api_key",
    403: "; check api_key",
    404: "; check as_addr: it is the URL without /appraisal",
}


class ItaAppraiser:
    """Asks Intel Trust Authority.

    Args:
        as_addr: base URL; one slash at its end is ignored.
        api_key: sent as `x-api-key`; None where the service wants none.
        user_agent: what we call ourselves.
        total_s: seconds that one question may take.
        pause_s: seconds before the second try; doubled up to ten times as many.
    """

    def __init__(
        self,
        as_addr: str,
        api_key: Secret | None,
        *,
        user_agent: str,
        total_s: float = TOTAL_TIMEOUT_S,
        pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._base = as_addr.removesuffix("/")
        self._headers = {"user-agent": user_agent}
        if api_key is not None:
            self._headers["x-api-key"] = api_key.reveal()
        self._total_s = total_s
        self._pause_s = pause_s
        self._exchange: HttpExchange | None = None

    def __repr__(self) -> str:
        return "ItaAppraiser()"

    async def appraise(self, evidence: ItaEvidence, policy_ids: Sequence[str]) -> str:
        """The service's token for the evidence, unchecked.

        Args:
            evidence: of a TDX guest and perhaps a GPU.
            policy_ids: policies that the evidence must match; empty for none.

        Raises:
            UntrustedPeerError: the service looked at the evidence and refused it.
            AppraiserError: the service could not be asked, or gave no answer to the question.
        """
        body = attest_body(evidence, policy_ids)
        status, answer = await self._ask("POST", ATTEST_PATH, body, MAX_TOKEN)
        if status != 200:
            raise _refusal(status, answer)
        token = _members(answer, ATTEST_PATH).get("token")
        if not isinstance(token, str) or token.count(".") != 2 or not token.isascii():
            raise _unusable(f"{ATTEST_PATH} answered without a JWT in its member token")
        return token

    async def challenge(self) -> str:
        """A new nonce as text, for `challenge_token` in the runtime data of evidence.

        Raises:
            AppraiserError: the service could not be asked, or gives no nonce.
        """
        status, answer = await self._ask("GET", NONCE_PATH, None, MAX_NONCE_JSON)
        if status != 200:
            raise _no_answer(NONCE_PATH, status, answer)
        try:
            nonce = parse_nonce(_members(answer, NONCE_PATH))
        except RemoteProtocolError as exc:
            raise _unusable(f"{NONCE_PATH}: {exc}") from exc
        assert nonce is not None  # an object was given
        return dump_nonce_text(nonce)

    async def probe(self) -> None:
        """Return if the service answers and knows us.

        Raises:
            AppraiserError: it does not.
        """
        await self.challenge()

    async def aclose(self) -> None:
        """Close the connections.  Asking again afterwards opens new ones."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.aclose()

    async def _ask(
        self, method: str, path: str, body: bytes | None, limit: int
    ) -> tuple[int, bytes]:
        """Status and body of the last try."""
        try:
            with trio.fail_after(self._total_s):
                pause = self._pause_s
                for _ in range(RETRIES):
                    status, answer = await self._call(method, path, body, limit)
                    if not _may_pass(status, answer):
                        return status, answer
                    await trio.sleep(pause)
                    pause = min(2 * pause, 10 * self._pause_s)
                return await self._call(method, path, body, limit)
        except trio.TooSlowError as exc:
            raise AppraiserError(
                f"Intel Trust Authority {path} did not answer within {self._total_s:g} s"
            ) from exc

    async def _call(
        self, method: str, path: str, body: bytes | None, limit: int
    ) -> tuple[int, bytes]:
        if self._exchange is None:
            from tng.attest.appraiser.exchange import HttpExchange

            self._exchange = HttpExchange(self._base, self._headers, CONNECT_TIMEOUT_S)
        try:
            return await self._exchange.call(method, path, body, limit)
        except AppraiserError as exc:
            raise AppraiserError(
                f"Intel Trust Authority {path} gave no answer: {exc}; is as_addr right?",
                code=exc.code,
            ) from exc


def attest_body(evidence: ItaEvidence, policy_ids: Sequence[str]) -> bytes:
    """The body of the call that appraises, members in the reference's order."""
    body: dict[str, Json] = {}
    if policy_ids:
        body["policy_ids"] = list(policy_ids)
    body["token_signing_alg"] = "PS384"  # noqa: S105 - not a password
    if policy_ids:
        body["policy_must_match"] = True
    nonce: dict[str, Json] = {}
    if evidence.nonce is not None:
        nonce["verifier_nonce"] = {**dump_nonce(evidence.nonce)}
    body["tdx"] = {
        "quote": dump_standard(evidence.tdx_quote),
        **nonce,
        "runtime_data": dump_standard(evidence.runtime_data),
    }
    if (gpu := evidence.gpu) is not None:
        body["nvgpu"] = {
            "evidence": gpu.evidence,
            **nonce,
            "gpu_nonce": gpu.nonce.hex(),
            "certificate": gpu.certificate,
            "arch": gpu.arch,
        }
    return json.dumps(body).encode()


def _may_pass(status: int, answer: bytes) -> bool:
    return status >= 500 or (status == 400 and _GPU_REFUSAL in answer)


def _members(answer: bytes, path: str) -> dict[str, Json]:
    try:
        return parse_object(answer)
    except ValueError as exc:
        raise _unusable(f"{path} answered with something else than a JSON object: {exc}") from exc


def _unusable(detail: str) -> AppraiserError:
    return AppraiserError(f"Intel Trust Authority {detail}", code=ErrorCode.AS_REJECTED)


def _refusal(status: int, answer: bytes) -> AttestationError:
    """The error for an answer to evidence that is no token."""
    if status < 400 or status >= 500 or status in _NOT_A_VERDICT:
        return _no_answer(ATTEST_PATH, status, answer)
    words = excerpt(answer)
    findings = Findings(0)
    findings.failed(Step.APPRAISAL, f"the service answered {status}: {words}")
    return findings.refused(
        ErrorCode.AS_REJECTED,
        f"Intel Trust Authority refused the evidence ({status}): {words}",
    )


def _no_answer(path: str, status: int, answer: bytes) -> AppraiserError:
    is_absent = status == 429 or status >= 500
    return AppraiserError(
        f"Intel Trust Authority {path} answered {status}: {excerpt(answer)}"
        f"{_HINTS.get(status, '')}",
        code=ErrorCode.AS_UNREACHABLE if is_absent else ErrorCode.AS_REJECTED,
    )
