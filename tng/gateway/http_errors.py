"""Errors as answers within an HTTP connection, at both ends of an OHTTP tunnel.

In: an error, and the writer of the response that it ends.  Out: octets.  The body has the shape
that OpenAI clients read, and beside it `code` and `message` as the reference has them.
"""

from __future__ import annotations

import json

from tng.dataplane.http_server import ResponseWriter
from tng.errors import TngError
from tng.gateway.replies import error_body, error_fields
from tng.tunnel.ohttp.problems import OhttpError


def error_answer(writer: ResponseWriter, error: TngError, *, title: str) -> bytes:
    """A whole response, after which the connection closes.

    Args:
        writer: makes its octets; has not started.
        error: what is the matter.
        title: `code` of the body where the error has no name in the reference's table.
    """
    if isinstance(error, OhttpError):
        title = error.problem.title
    body = json.dumps(
        {"code": title, "message": str(error), **json.loads(error_body(error))}
    ).encode()
    fields = [(name.lower(), value) for name, value in error_fields(error, body)]
    return writer.start(error.http_status, fields) + writer.data(body) + writer.end([])
