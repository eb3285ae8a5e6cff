"""Reading a request's body within its limits.

An `aiohttp` request goes in, its octets come out.  The caller's deadline bounds the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tng.trustee.problems import ProblemCode, TrusteeRequestError

if TYPE_CHECKING:
    from aiohttp import web

MAX_ATTESTATION_BODY: Final = 16 * 1024 * 1024
"""Octets: evidence of several devices, each with an event log; an agent gives 4 MiB at most."""

MAX_POLICY_BODY: Final = 1024 * 1024
"""Octets: the longest policy in base64, and some."""

MAX_SMALL_BODY: Final = 64 * 1024
"""Octets of everything else."""


async def read_json_body(request: web.Request, limit: int) -> bytes:
    """The body of a request that must be JSON.

    Args:
        request: not yet read.
        limit: octets, at most.

    Raises:
        TrusteeRequestError: another media type or an encoding (415), or too long (413).
    """
    # Also what keeps a web page from posting here from a browser without asking first.
    if request.content_type != "application/json":
        raise TrusteeRequestError(
            f"expected content type application/json, got {request.content_type[:80]!r}",
            ProblemCode.MEDIA_TYPE,
        )
    return await read_body(request, limit)


async def read_body(request: web.Request, limit: int) -> bytes:
    """The body of a request, whatever it is called.

    Args:
        request: not yet read.
        limit: octets, at most.

    Raises:
        TrusteeRequestError: an encoding (415), or too long (413).
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise TrusteeRequestError(
            "expected a body without content encoding", ProblemCode.MEDIA_TYPE
        )
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> TrusteeRequestError:
    return TrusteeRequestError(f"expected a body of at most {limit} octets", ProblemCode.TOO_LARGE)
