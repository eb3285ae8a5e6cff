"""Which addresses this machine has.

In: addresses and names of interfaces.  Out: yes or no, and addresses.  The system is asked each
time, because addresses come and go; no question leaves the machine.
"""

from __future__ import annotations

import array
import fcntl
import ipaddress
import socket
import struct
import sys
from typing import Final

_ANY_PORT: Final = 9
"""Nothing is sent there: connecting a UDP socket only chooses a route."""

_SIOCGIFCONF: Final = 0x8912
_INTERFACE: Final = struct.Struct("16s16s8x" if sys.maxsize > 1 << 32 else "16s16s")
"""struct ifreq of netdevice(7): a name, and a socket address in a union of 24 or 16 octets."""

_MAX_INTERFACES: Final = 1024
"""Addresses of one machine."""


def is_own_address(host: str) -> bool:
    """Whether an IP address is one of this machine: the route there begins with itself."""
    address = ipaddress.ip_address(host.removeprefix("::ffff:").partition("%")[0])
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), _ANY_PORT))
            source = str(probe.getsockname()[0])
    except OSError:
        return False  # no route there at all
    return ipaddress.ip_address(source.partition("%")[0]) == address


def interface_addresses(name: str) -> frozenset[str]:
    """IPv4 addresses of an interface; none where there is no such interface."""
    buffer = array.array("B", bytes(_INTERFACE.size * _MAX_INTERFACES))
    address, length = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("iP", length, address)
        answer = fcntl.ioctl(sock.fileno(), _SIOCGIFCONF, request)
    (used,) = struct.unpack_from("i", answer)
    return frozenset(
        socket.inet_ntoa(sockaddr[4:8])
        for label, sockaddr in _INTERFACE.iter_unpack(buffer.tobytes()[:used])
        # A label may have a number behind a colon, as addresses were added in old times.
        if label.rstrip(b"\0").partition(b":")[0] == name.encode()
    )
