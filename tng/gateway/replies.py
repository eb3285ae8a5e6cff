"""The words a client hears when a request cannot be served.

Errors go out in the shape that OpenAI clients read, with the code repeated in a field of its own:

    HTTP/1.1 502 Bad Gateway
    x-tng-error: policy_denied

    {"error": {"message": "...", "type": "tng_error", "code": "policy_denied", "param": null, ...}}

No reply carries anything of the request: no prompt, no key, no path.
"""

from __future__ import annotations

import http
import json
from typing import Final

from tng import __version__
from tng.attest.verifier.explain import lines
from tng.errors import TngError, UntrustedPeerError

CONNECTED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
"""Answer to CONNECT once the tunnel stands; it has no fields and no body (RFC 9110 9.3.6)."""

_RETRY_AFTER_S: Final = 1
"""Seconds proposed to clients whose request may succeed later."""


def error_body(error: TngError) -> bytes:
    """The JSON body for `error`, with every check where a verdict was reached."""
    problem: dict[str, object] = {
        "message": str(error),
        "type": "tng_error",
        "code": str(error.code),
        "param": None,
        "retryable": error.retryable,
    }
    if isinstance(error, UntrustedPeerError) and error.verdict is not None:
        problem["checks"] = lines(error.verdict)
    return json.dumps({"error": problem}).encode()


def error_fields(error: TngError, body: bytes) -> list[tuple[bytes, bytes]]:
    """Header fields that go with `error_body`."""
    fields = [
        (b"Server", f"tng/{__version__}".encode()),
        (b"Content-Type", b"application/json"),
        (b"Content-Length", str(len(body)).encode()),
        (b"X-Tng-Error", str(error.code).encode()),
    ]
    if error.retryable:
        fields.append((b"Retry-After", str(_RETRY_AFTER_S).encode()))
    return fields


def error_response(error: TngError) -> bytes:
    """A whole HTTP/1.1 response for `error`, after which the connection closes."""
    body = error_body(error)
    status = error.http_status
    head = [f"HTTP/1.1 {status} {reason(status)}".encode()]
    head += [b": ".join(field) for field in error_fields(error, body)]
    head += [b"Connection: close", b"", body]
    return b"\r\n".join(head)


def reason(status: int) -> str:
    """The usual reason phrase of an HTTP status."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"
