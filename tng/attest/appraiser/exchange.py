"""One bounded HTTP exchange with an attestation service, or another one that the operator names.

In: method, URL, body, and how much may come back.  Out: status and body, or an `AppraiserError`
that says why there is none.  Answers are never longer than asked for, never compressed, and
redirects are not followed.  What an answer means is for the caller.

This is the one module of the room that imports httpx, and it is imported when the first call is
made, because httpx takes a tenth of a second that many commands need not pay.

Invariant: no message repeats a header's value or a password in the URL.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

import httpx
import trio

from tng.errors import AppraiserError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

KEEP_ALIVE_S: Final = 60.0
"""Seconds that an idle connection is kept; Trustee keeps them for 120."""

JSON: Final = "application/json"
"""Media type of what attestation services are sent."""

MAX_ERROR_BODY: Final = 64 * 1024
"""Octets of an error answer that are read; the rest is not waited for."""


class HttpExchange:
    """Connections to one service, kept between calls.

    Args:
        base: URL that every path is appended to.
        headers: added to every request; the values are secrets.
        connect_s: seconds until a connection must stand.
    """

    def __init__(self, base: str, headers: Mapping[str, str], connect_s: float) -> None:
        self._base = base
        secure = base.lower().startswith("https:")
        # Loading the system's root certificates takes time that plain HTTP need not spend.
        context = (
            ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )
        self._client = httpx.AsyncClient(
            verify=context,
            # A compressed answer could be far larger than what was counted.
            headers={**headers, "accept": "*/*", "accept-encoding": "identity"},
            timeout=httpx.Timeout(None, connect=connect_s),
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_S),
            follow_redirects=False,
            trust_env=False,  # only the command line reads the environment
        )

    async def call(
        self, method: str, path: str, content: bytes | None, limit: int, kind: str = JSON
    ) -> tuple[int, bytes]:
        """Status and body of one request; the caller sets the time limit.

        Args:
            method: GET or POST.
            path: begins with a slash.
            content: the body, or None.
            limit: octets of a successful answer.
            kind: media type of the body.

        Raises:
            AppraiserError: no connection, no HTTP, or an answer beyond the limit.
        """
        try:
            return await self._call(self._maker(method, path, content, kind), limit)
        except httpx.LocalProtocolError:
            # The library's words repeat the header's value, which is a secret.
            raise AppraiserError(
                "the request cannot be sent: a name or value in as_headers is not allowed in HTTP"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
            raise AppraiserError(_words(exc)) from exc

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _call(self, make: Callable[[], httpx.Request], limit: int) -> tuple[int, bytes]:
        try:
            response = await self._client.send(make(), stream=True)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            # The service may close a kept connection just as it is used again; asking twice is
            # harmless, because appraising changes nothing there.
            response = await self._client.send(make(), stream=True)
        try:
            if response.is_redirect:
                target = response.headers.get("location", "")
                note = f"redirect to {target!r:.200}, which is not followed"
                return response.status_code, note.encode()
            return response.status_code, await _read(response, limit)
        finally:
            with trio.CancelScope(shield=True):
                await response.aclose()

    def _maker(
        self, method: str, path: str, content: bytes | None, kind: str
    ) -> Callable[[], httpx.Request]:
        """What makes the request: one that was sent cannot be sent again."""
        headers = {}
        if content is not None:
            headers = {"content-type": kind, "content-length": str(len(content))}

        def make() -> httpx.Request:
            request = self._client.build_request(method, self._base + path, headers=headers)
            request.stream = _Body(content or b"")
            return request

        return make


class _Body(httpx.AsyncByteStream):
    """A request body whose iterator needs no clean-up when sending breaks off."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._content)


class _Once:
    def __init__(self, content: bytes) -> None:
        self._rest: bytes | None = content

    def __aiter__(self) -> _Once:
        return self

    async def __anext__(self) -> bytes:
        content, self._rest = self._rest, None
        if content is None:
            raise StopAsyncIteration
        return content


async def _read(response: httpx.Response, limit: int) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _unwanted("a compressed answer, which was not asked for")
    declared = response.headers.get("content-length", "0")
    if response.is_success and declared.isdecimal() and int(declared[:20]) > limit:
        raise _unwanted(f"an answer of {declared:.20} octets, at most {limit} are allowed")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit and response.is_success:
            raise _unwanted(f"an answer of more than {limit} octets")
        if len(body) > MAX_ERROR_BODY and not response.is_success:
            break
    return bytes(body)


def _words(error: Exception) -> str:
    """What went wrong: of TLS its own words, which the library wraps in errors that have none."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    match cause:
        case ssl.SSLCertVerificationError():
            return (
                f"its TLS certificate was not accepted: {cause.verify_message:.200} "
                "(further roots can be named in SSL_CERT_FILE)"
            )
        case ssl.SSLError():
            return f"TLS failed: {cause.reason or cause!s:.200}"
        case _:
            return f"{str(error) or type(error).__name__:.200}"


def _unwanted(what: str) -> AppraiserError:
    return AppraiserError(f"it sent {what}", code=ErrorCode.AS_REJECTED)
