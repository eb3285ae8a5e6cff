"""Numbers sent by gRPC to OpenTelemetry collectors (OTLP/gRPC).

In: snapshots.  Out: one call each.  A refusal is told by the name of its status alone, because its
words are the other side's.  The library (grpcio) is an extra; the factory asks whether it is there.

Invariant: an error names no header's value.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tng.attest.appraiser.grpc_exchange import GrpcExchange
from tng.errors import AppraiserError, NetError
from tng.gateway.exporters.over_http import ATTEMPT_S, MAX_ANSWER
from tng.observe.otlp import METHOD, dump_protobuf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tng.observe.snapshot import Snapshot

log = logging.getLogger(__name__)

_PORTS: Final = {"http": 80, "https": 443}

_HINTS: Final = {
    "UNAVAILABLE": "; is the address right, and does the collector run?",
    "DEADLINE_EXCEEDED": f"; no answer within {ATTEMPT_S:g} s",
    "UNAUTHENTICATED": "; check the headers",
    "PERMISSION_DENIED": "; check the headers",
    "UNIMPLEMENTED": "; is this the gRPC port of a collector?",
}


class GrpcExporter:
    """Calls `Export` of one collector.  TLS certificates are checked against the system's roots.

    Args:
        url: where it is; gRPC has no use for a path.
        metadata: sent with every call; the values are secrets and never shown.
        user_agent: what we call ourselves.
    """

    attempts: Final = 1
    """See `Exporter.attempts`: the next snapshot says everything that a lost one said."""

    def __init__(self, url: str, metadata: Sequence[tuple[str, str]], *, user_agent: str) -> None:
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        self._target = f"{host}:{parts.port or _PORTS[scheme]}"
        self.where = f"{scheme}://{self._target}"
        self._has_path = parts.path not in {"", "/"} or bool(parts.query)
        self._is_secure = scheme == "https"
        self._metadata = tuple(metadata)
        self._user_agent = user_agent
        self._exchange: GrpcExchange | None = None

    async def send(self, snapshot: Snapshot) -> None:
        """See `Exporter.send`."""
        try:
            answer = await self._open().call(
                METHOD, dump_protobuf(snapshot), timeout_s=ATTEMPT_S, problem_key=""
            )
        except AppraiserError as exc:
            raise NetError(str(exc)) from exc
        if answer.status != "OK":
            raise NetError(f"answered {answer.status}{_HINTS.get(answer.status, '')}")

    async def aclose(self) -> None:
        """See `Exporter.aclose`; never waits."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()

    def _open(self) -> GrpcExchange:
        if self._exchange is None:
            if self._has_path:
                log.warning(
                    "gRPC has no paths: that of the endpoint is left out where=%s", self.where
                )
            self._exchange = GrpcExchange(
                self._target,
                self._metadata,
                is_secure=self._is_secure,
                user_agent=self._user_agent,
                max_answer=MAX_ANSWER,
            )
        return self._exchange
