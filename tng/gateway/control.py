"""The control interface: is it alive, is it ready, what does it see.

Source: spec of the RATS-TLS transport, section 10.3; `/status/attestation` and `/metrics` are ours.
Plain HTTP/1.1 on loopback unless configured otherwise, GET and HEAD alone; it changes nothing.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final

import h11
import trio

from tng import __version__
from tng.attest.verifier.explain import as_json
from tng.config.model import ControlInterface as ControlConfig
from tng.dataplane.listener import make_listening_socket
from tng.observe.metrics import CONTENT_TYPE, render_prometheus

if TYPE_CHECKING:
    from tng.gateway.entries import Entry
    from tng.gateway.watched import Watched

log = logging.getLogger(__name__)

_REQUEST_TIMEOUT_S: Final = 10.0
"""Seconds for a request and its answer; nothing here takes long."""

_MAX_CONNECTIONS: Final = 64
"""Probes and people; more than this is neither."""

_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"

Answer = tuple[int, str, bytes]
"""Status, content type, body."""


class ControlInterface:
    """Serves the control interface, if one is configured.

    Args:
        config: where to listen, or None.
        gateway: what to tell about.
    """

    def __init__(self, config: ControlConfig | None, gateway: Watched) -> None:
        self._gateway = gateway
        self._slots = trio.CapacityLimiter(_MAX_CONNECTIONS)
        restful = config.restful if config else None
        self._socket = make_listening_socket(restful.host, restful.port) if restful else None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        task_status.started()
        if self._socket is None:
            return
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._socket))
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            with trio.move_on_after(_REQUEST_TIMEOUT_S):
                async with self._slots:
                    await self._answer_one(stream)
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as exc:
            log.debug("control connection ended: %s", exc)
        except Exception:
            log.exception("unexpected error in the control interface")  # traffic goes on
        finally:
            await trio.aclose_forcefully(stream)

    async def _answer_one(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some())
        if not isinstance(event, h11.Request):
            return
        if event.target != b"/livez":  # being alive waits for nobody
            await self._gateway.refresh()
        status, content_type, body = self._answer(event)
        fields = [
            ("Server", f"tng/{__version__}"),
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        if status == 405:
            fields.append(("Allow", "GET, HEAD"))
        response = h11.Response(status_code=status, headers=fields)
        data = connection.send(response) or b""
        if event.method != b"HEAD":
            data += body
        await stream.send_all(data)
        await stream.send_eof()
        # The answer is out; read what the client still says, or a reset may overtake the answer.
        while await stream.receive_some():
            pass

    def _answer(self, request: h11.Request) -> Answer:
        if request.method not in (b"GET", b"HEAD"):
            return 405, _TEXT, b""
        path = request.target.partition(b"?")[0].decode("latin-1")
        match path.split("/")[1:]:
            case ["livez"]:
                return 200, _TEXT, b"ok"
            case ["readyz"]:
                return self._readyz()
            case ["metrics"]:
                meters = (entry.meter for entry in self._gateway.entries)
                return 200, CONTENT_TYPE, render_prometheus(meters).encode()
            case ["status", *rest] if rest:
                return self._status([part for part in rest if part])
        return 404, _TEXT, b""

    def _readyz(self) -> Answer:
        reasons = self._gateway.not_ready()
        if not reasons:
            return 200, _TEXT, b"ok"
        return 503, _TEXT, "\n".join(["not ok", *reasons]).encode()

    def _status(self, parts: list[str]) -> Answer:
        found = self._look_up(parts)
        if found is None:
            return 404, _JSON, b'{"error":"not found"}'
        return 200, _JSON, json.dumps(found).encode()

    def _look_up(self, parts: list[str]) -> object | None:
        match parts:
            case []:
                return ["egress", "ingress"]
            case ["attestation"]:
                return self._attestation()
            case [("ingress" | "egress") as side]:
                return [str(e.number) for e in self._gateway.entries if e.side == side]
            case [("ingress" | "egress") as side, number, *rest]:
                for entry in self._gateway.entries:
                    if entry.side == side and str(entry.number) == number:
                        return self._of_entry(entry, rest)
        return None

    def _of_entry(self, entry: Entry, parts: list[str]) -> object | None:
        """What is told of one entry below its own path."""
        if entry.datagrams is not None:
            return None  # sessions of UDP come and go by themselves
        keys = self._gateway.keys_status(entry)
        match parts:
            case []:
                return ["rats_tls"] if keys is None else ["ohttp"]
            case ["rats_tls"] if entry.side == "ingress" and keys is None:
                return ["pool"]
            case ["rats_tls", "pool"]:
                return self._gateway.pool_status(entry)
            case ["ohttp"] if keys is not None:
                return ["keys"]
            case ["ohttp", "keys"]:
                return keys
        return None

    def _attestation(self) -> dict[str, object]:
        """The last verdict per peer, and what the configuration leaves unchecked."""
        told: dict[str, object] = {"ready": not self._gateway.not_ready()}
        for side in ("ingress", "egress"):
            told[side] = [
                {
                    "id": entry.number,
                    "verifies": entry.verifier is not None,
                    "attests": entry.attests,
                    "peers": {
                        label: as_json(verdict)
                        for label, verdict in entry.verifier.verdicts().items()
                    }
                    if entry.verifier
                    else {},
                }
                for entry in self._gateway.entries
                if entry.side == side
            ]
        told["dangers"] = self._gateway.dangers
        return told
