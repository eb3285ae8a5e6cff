"""The `hook` way in: connections of one program, led here by the library that `tng exec` preloads.

Source: spec of the RATS-TLS transport, section 5.5 (TNG 2.12); CONNECT of RFC 9110 section 9.3.6.
The library names the destination in a CONNECT request.  It is answered after the verdict, or, where
the program did not want to wait (`Tng-Answer: none`, ours), not at all: then the program's octets
wait here for the verdict, and a refusal is a reset.  Only what the configuration captures is
carried: nobody else on the machine gets further through this port than the program does.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from tng.config.capture import Hook, HookDst
from tng.dataplane.plain import PlainEnd
from tng.endpoint import Endpoint, parse_authority
from tng.errors import NetError, RequestRejectedError, TngError
from tng.gateway.farewell import farewell
from tng.gateway.flow import Accepted, Carrier
from tng.gateway.replies import CONNECTED, error_response

HEAD_TIMEOUT_S: Final = 10.0
"""Seconds for the request: the library sends it as soon as it is connected."""

MAX_HEAD: Final = 1024
"""Octets of the request: two addresses and twenty words."""

_REQUEST: Final = re.compile(
    rb"CONNECT (\S{1,64}) HTTP/1\.1\r\n((?:[A-Za-z-]{1,32}:[ -~]{0,128}\r\n){0,8})\r\n"
)
_SILENT: Final = re.compile(rb"^tng-answer: ?none\r$", re.IGNORECASE | re.MULTILINE)


def proxy_endpoint(hook: Hook) -> Endpoint:
    """Where the private proxy listens, once `tng exec` has given it a port."""
    if hook.proxy_port is None:
        raise AssertionError("tng exec names every port before the gateway is built")
    return Endpoint(hook.proxy_listen or "127.0.0.1", hook.proxy_port)


class HookIngress:
    """Serves the connections of one program.

    Args:
        flow: carries them.
        captured: what the configuration captures.
    """

    def __init__(self, flow: Carrier, captured: Sequence[HookDst]) -> None:
        self._flow = flow
        self._captured = [_Rule(entry) for entry in captured]

    async def serve(self, client: PlainEnd) -> None:
        """Serve one connection to its end."""
        try:
            head = await self._head(client)
            destination = self._destination(head)
        except RequestRejectedError as error:
            self._flow.unrouted(client, error)
            await farewell(self._flow.reactor, client, error_response(error))
            return
        if _SILENT.search(head[2]):
            accepted = Accepted(client, destination, b"", lambda _: b"")
        else:
            accepted = Accepted(client, destination, CONNECTED, error_response)
        del head  # what this frame holds is held as long as the tunnel stands
        await self._flow.carry(accepted)

    async def _head(self, client: PlainEnd) -> re.Match[bytes]:
        """The request; what follows it stays with the client."""
        data = b""
        with self._flow.reactor.deadline(HEAD_TIMEOUT_S, _late):
            while (found := _REQUEST.match(data)) is None:
                if len(data) > MAX_HEAD or b"\r\n\r\n" in data:
                    raise RequestRejectedError("expected the CONNECT request of libtng_hook")
                more = await client.receive(MAX_HEAD)
                if not more:
                    raise NetError(f"{client.label} left before it had asked")
                data += more
        client.unread(data[found.end() :])
        return found

    def _destination(self, head: re.Match[bytes]) -> Endpoint:
        try:
            destination = parse_authority(head[1].decode("ascii"))
        except ValueError as exc:
            raise RequestRejectedError(f"no address and port in CONNECT: {exc}") from exc
        if not any(rule.matches(destination) for rule in self._captured):
            raise RequestRejectedError(
                f"{destination} is not in capture_dst; this port is for what is", status=403
            )
        return destination


class _Rule:
    """One element of `capture_dst`."""

    def __init__(self, entry: HookDst) -> None:
        self._network = None if entry.host is None else ipaddress.ip_network(entry.host)
        first = entry.port or 0
        self._ports = range(first, (entry.port_end or first) + 1)

    def matches(self, destination: Endpoint) -> bool:
        if not destination.is_address or destination.port not in self._ports:
            return False
        return self._network is None or ipaddress.ip_address(destination.host) in self._network


def _late() -> TngError:
    return RequestRejectedError(
        f"the request did not arrive within {HEAD_TIMEOUT_S:g} s", status=408
    )
