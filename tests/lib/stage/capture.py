"""What is on the loopback interface: every octet of TCP on some ports, searched as it passes.

Needs Linux and the right to open packet sockets.  Octets are searched across the borders of
packets; what is sent again is searched again, which does no harm.
"""

from __future__ import annotations

import collections
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Final

_ALL: Final = 0x0003  # ETH_P_ALL: others miss what this machine sends itself
_LINK: Final = 14
_OUTGOING: Final = 4  # PACKET_OUTGOING: each packet of loopback comes twice
_STATISTICS: Final = (263, 6)  # SOL_PACKET, PACKET_STATISTICS
_BUFFER: Final = (socket.SOL_SOCKET, 33)  # SO_RCVBUFFORCE
_ROOM: Final = 256 << 20
"""Octets that may wait for the search: some seconds of a busy test."""


def may_capture() -> bool:
    """Whether packet sockets can be opened here."""
    try:
        _open().close()
    except (OSError, AttributeError):
        return False
    return True


class Capture:
    """Searches what passes.

    Args:
        names: octets to look for, by name.
        ports: TCP ports of this machine, by name.

    Attributes:
        found: (name of the port, name of the octets) to how often.
        octets: name of the port to how many passed, both directions.
        dropped: packets that the kernel had no room for; the search is worth nothing then.
    """

    def __init__(self, names: dict[str, bytes], ports: dict[str, int]) -> None:
        self._names = names
        self._ports = {port: name for name, port in ports.items()}
        self._overlap = max(map(len, names.values())) - 1
        self._tails: dict[tuple[bytes, bytes], bytes] = {}
        self.found: collections.Counter[tuple[str, str]] = collections.Counter()
        self.octets: collections.Counter[str] = collections.Counter()
        self.dropped = 0

    def take(self, packet: bytes) -> None:
        """Search one IPv4 packet with its link header."""
        if packet[12:14] != b"\x08\x00" or packet[_LINK + 9] != socket.IPPROTO_TCP:
            return
        tcp = _LINK + (packet[_LINK] & 15) * 4
        source, target = struct.unpack_from("!HH", packet, tcp)
        port = self._ports.get(source) or self._ports.get(target)
        if port is None:
            return
        (size,) = struct.unpack_from("!H", packet, _LINK + 2)
        end = _LINK + size if size else len(packet)  # a size of 0: more than 64 KiB
        data = packet[tcp + (packet[tcp + 12] >> 4) * 4 : end]
        if not data:
            return
        flow = (packet[_LINK + 12 : _LINK + 20], packet[tcp : tcp + 4])
        tail = self._tails.get(flow, b"")
        searched = tail + data
        for name, octets in self._names.items():
            # What lies in the tail alone was counted with the packet before.
            count = searched.count(octets) - tail.count(octets)
            if count:
                self.found[port, name] += count
        self._tails[flow] = searched[-self._overlap :]
        self.octets[port] += len(data)


@contextlib.contextmanager
def capturing(names: dict[str, bytes], ports: dict[str, int]) -> Iterator[Capture]:
    """Search for the block; the results are whole after it."""
    capture = Capture(names, ports)
    with _open() as sock:
        sock.setsockopt(*_BUFFER, _ROOM)
        sock.settimeout(0.2)
        done = threading.Event()
        thread = threading.Thread(target=_run, args=(sock, capture, done))
        thread.start()
        try:
            yield capture
        finally:
            done.set()
            thread.join()
            _, capture.dropped = struct.unpack("II", sock.getsockopt(*_STATISTICS, 8))


def _open() -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    sock.bind(("lo", 0))
    return sock


def _run(sock: socket.socket, capture: Capture, done: threading.Event) -> None:
    while True:
        try:
            packet, address = sock.recvfrom(1 << 17)
        except TimeoutError:
            if done.is_set():
                return
            continue
        if address[2] != _OUTGOING:
            capture.take(packet)
