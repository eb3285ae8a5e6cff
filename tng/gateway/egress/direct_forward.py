"""Which plain requests an egress passes on without a tunnel: `direct_forward`.

In: a request head.  Out: whether the operator exempted it.  Source: spec of the OHTTP transport,
section 4.4.  A pattern is searched in the path, without the query.

Invariants: a request of TNG's own is never taken for a plain one; nor is one whose path has dot
segments, which a service may resolve into a path that no pattern was asked about.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence
from typing import Final

import re2

from tng.tunnel.ohttp.outer import API_FIELD
from tng.wire.http1_head import RequestHead

_DOT_SEGMENT: Final = re.compile(r"(?:^|[/\\])\.\.?(?:[/\\;]|$)")


class DirectForward:
    """Decides about single requests.

    Args:
        patterns: regular expressions (RE2), searched in the path.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [re2.compile(pattern) for pattern in patterns]

    def takes(self, head: RequestHead) -> bool:
        """Whether the request goes to the service as it is."""
        if not head.target.startswith(b"/") or any(name == API_FIELD for name, _ in head.fields):
            return False
        path = head.target.partition(b"?")[0].decode("latin-1")
        if _DOT_SEGMENT.search(urllib.parse.unquote(path)) is not None:
            return False
        return any(pattern.search(path) is not None for pattern in self._patterns)
