"""Server side of SOCKS5 (RFC 1928) with username and password (RFC 1929).

Octets in, events out.  The caller owns the socket:

    server = Socks5Server(credentials=None)
    while not isinstance(event := server.next_event(), Connect):
        ...          # NEED_DATA: receive_data(...); Send: send it; Refused: send it and close
    event.target, event.trailing_data
    await send(dump_reply(Reply.SUCCEEDED))     # once connected

Only CONNECT is served: BIND and UDP ASSOCIATE end in `Refused`, which carries the octets to send.

Invariant: a request is never looked at before the client has given the credentials that are asked
for; and every message carries its own length, none above 513 octets, so that an unfinished one
makes the buffer no longer than that.
"""

from __future__ import annotations

import enum
import hmac
import ipaddress
from dataclasses import dataclass, field
from typing import Final, Literal

from tng.endpoint import Endpoint
from tng.errors import LocalProtocolError, RemoteProtocolError

MAX_CREDENTIAL: Final = 255
"""Octets of a name, and of a password: their lengths are one octet (RFC 1929 section 2)."""

_VERSION: Final = 0x05
_AUTH_VERSION: Final = 0x01  # RFC 1929 section 2
_AUTH_SUCCEEDED: Final = 0x00
_AUTH_FAILED: Final = 0xFF  # any value but 0; the reference's (v2.12.0)
_CONNECT: Final = 0x01

_REQUEST_HEAD: Final = 5
"""Octets of a request up to the first one of the address, which may be its length."""


class Reply(enum.IntEnum):
    """REP field, RFC 1928 section 6."""

    SUCCEEDED = 0x00
    GENERAL_FAILURE = 0x01
    NOT_ALLOWED = 0x02
    HOST_UNREACHABLE = 0x04
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_TYPE_NOT_SUPPORTED = 0x08


class _Method(enum.IntEnum):
    """METHOD field, RFC 1928 section 3."""

    NO_AUTH = 0x00
    PASSWORD = 0x02
    NONE_ACCEPTABLE = 0xFF


class _AddressType(enum.IntEnum):
    """ATYP field, RFC 1928 section 5."""

    IPV4 = 0x01
    DOMAIN = 0x03
    IPV6 = 0x04


class NeedData(enum.Enum):
    """Sentinel type of `NEED_DATA`."""

    NEED_DATA = enum.auto()


NEED_DATA: Final = NeedData.NEED_DATA


@dataclass(frozen=True, slots=True)
class Send:
    """Send these octets, then ask for the next event.

    Attributes:
        data: what to send.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Connect:
    """The client waits to be connected; answer it with `dump_reply`.  The last event.

    Attributes:
        target: where it wants to go: a name as it was sent, or an address.
        trailing_data: what it has sent beyond its request: the beginning of its payload.
    """

    target: Endpoint
    trailing_data: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The handshake failed by the client's fault.  Send `data`, then close.  The last event.

    Attributes:
        data: the reply; empty for a client that speaks something else.
        reason: for people; never the credentials.
    """

    data: bytes
    reason: str


Event = Send | Connect | Refused


@dataclass(frozen=True, slots=True)
class Credentials:
    """The one user who is let in.

    Attributes:
        username: 1 to MAX_CREDENTIAL octets.
        password: 1 to MAX_CREDENTIAL octets.
    """

    username: bytes
    password: bytes = field(repr=False)

    def matches(self, username: bytes, password: bytes) -> bool:
        """Whether both are right, in a time that does not tell which of them is not."""
        good_name = hmac.compare_digest(self.username, username)
        good_password = hmac.compare_digest(self.password, password)
        return good_name & good_password


class _State(enum.Enum):
    GREETING = enum.auto()
    PASSWORD = enum.auto()
    REQUEST = enum.auto()
    ENDED = enum.auto()


class Socks5Server:
    """One client, from its first octet to its request.

    Args:
        credentials: what the client must give; None to let anyone in.
    """

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials
        self._buffer = bytearray()
        self._state = _State.GREETING

    def receive_data(self, data: bytes) -> None:
        """Take what came from the socket.

        Raises:
            RemoteProtocolError: the end of the stream (b"") within the handshake.
            LocalProtocolError: the handshake has ended.
        """
        if self._state is _State.ENDED:
            raise LocalProtocolError("the handshake has ended; what follows is payload")
        if not data:
            raise RemoteProtocolError("the client closed within the SOCKS5 handshake")
        self._buffer += data

    def next_event(self) -> Event | Literal[NeedData.NEED_DATA]:
        """Advance by one message at most; NEED_DATA when it is not complete yet.

        Raises:
            LocalProtocolError: the last event has been given.
        """
        match self._state:
            case _State.GREETING:
                return self._read_greeting()
            case _State.PASSWORD:
                return self._read_password()
            case _State.REQUEST:
                return self._read_request()
            case _:
                raise LocalProtocolError("the handshake has ended; there is no further event")

    # -- one reader per message ----------------------------------------------------------

    def _read_greeting(self) -> Event | Literal[NeedData.NEED_DATA]:
        # VER | NMETHODS | METHODS, RFC 1928 section 3
        buffer = self._buffer
        if buffer and buffer[0] != _VERSION:
            return self._refuse(b"", f"expected SOCKS version 5, got first octet {buffer[0]:#04x}")
        if len(buffer) < 2 or len(buffer) < 2 + buffer[1]:
            return NEED_DATA
        wanted = _Method.NO_AUTH if self._credentials is None else _Method.PASSWORD
        if wanted not in buffer[2 : 2 + buffer[1]]:
            reply = bytes([_VERSION, _Method.NONE_ACCEPTABLE])
            return self._refuse(reply, f"the client does not offer the method {wanted.name}")
        del buffer[: 2 + buffer[1]]
        self._state = _State.REQUEST if self._credentials is None else _State.PASSWORD
        return Send(bytes([_VERSION, wanted]))

    def _read_password(self) -> Event | Literal[NeedData.NEED_DATA]:
        # VER | ULEN | UNAME | PLEN | PASSWD, RFC 1929 section 2
        buffer = self._buffer
        if buffer and buffer[0] != _AUTH_VERSION:
            return self._refuse(
                b"", f"expected version 1 of username/password, got {buffer[0]:#04x}"
            )
        if len(buffer) < 2 or len(buffer) < 3 + buffer[1]:
            return NEED_DATA
        name_end = 2 + buffer[1]
        end = name_end + 1 + buffer[name_end]
        if len(buffer) < end:
            return NEED_DATA
        name, password = bytes(buffer[2:name_end]), bytes(buffer[name_end + 1 : end])
        if self._credentials is None or not self._credentials.matches(name, password):
            reply = bytes([_AUTH_VERSION, _AUTH_FAILED])
            return self._refuse(reply, "wrong username or password")
        del buffer[:end]
        self._state = _State.REQUEST
        return Send(bytes([_AUTH_VERSION, _AUTH_SUCCEEDED]))

    def _read_request(self) -> Event | Literal[NeedData.NEED_DATA]:
        # VER | CMD | RSV | ATYP | DST.ADDR | DST.PORT, RFC 1928 section 4
        buffer = self._buffer
        if len(buffer) < _REQUEST_HEAD:
            return NEED_DATA
        version, command, _, kind, first = buffer[:_REQUEST_HEAD]
        if version != _VERSION:
            return self._refuse(b"", f"expected a request of version 5, got {version:#04x}")
        if command != _CONNECT:
            reply = dump_reply(Reply.COMMAND_NOT_SUPPORTED)
            return self._refuse(reply, f"only CONNECT is served, got command {command:#04x}")
        extent = _extent(kind, first)
        if extent is None:
            reply = dump_reply(Reply.ADDRESS_TYPE_NOT_SUPPORTED)
            return self._refuse(reply, f"no known address type: {kind:#04x}")
        start, end = extent
        if len(buffer) < end + 2:
            return NEED_DATA
        return self._connect(kind, bytes(buffer[start:end]), bytes(buffer[end : end + 2]), end + 2)

    # -- small steps ---------------------------------------------------------------------

    def _connect(self, kind: int, address: bytes, port: bytes, length: int) -> Event:
        number = int.from_bytes(port, "big")
        is_name = kind == _AddressType.DOMAIN
        host = _domain(address) if is_name else str(ipaddress.ip_address(address))
        if host is None or not number:
            what = "host" if host is None else "port"
            return self._refuse(
                dump_reply(Reply.GENERAL_FAILURE), f"the destination has no valid {what}"
            )
        self._state = _State.ENDED
        return Connect(Endpoint(host, number), bytes(self._buffer[length:]))

    def _refuse(self, data: bytes, reason: str) -> Refused:
        self._state = _State.ENDED
        return Refused(data, reason)


def dump_reply(reply: Reply) -> bytes:
    """The answer to a request.  BND.ADDR and BND.PORT are zero: clients have no use for them."""
    return bytes([_VERSION, reply, 0x00, _AddressType.IPV4]) + bytes(6)


def _extent(kind: int, first: int) -> tuple[int, int] | None:
    """Where the address of a request begins and ends; None for a type that is not known."""
    match kind:
        case _AddressType.IPV4:
            return 4, 8
        case _AddressType.DOMAIN:
            return 5, 5 + first
        case _AddressType.IPV6:
            return 4, 20
        case _:
            return None


def _domain(raw: bytes) -> str | None:
    """A host name, or an address written as one; None where it is neither."""
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        named = text and all(character.isalnum() or character in "-._" for character in text)
        return text if named else None
