"""Two ways to reach OpenSSL: the binding itself, and pyOpenSSL's public methods.

Measured, the binding halves the cost of a record and takes several per cent off that of a
handshake.  Its names are private to pyOpenSSL, so they are looked at when this module is imported,
and the public methods take their place where anything is not as expected.  Both ways behave alike;
the tests run over both.

Invariant: OpenSSL's error queue is empty whenever a call returns.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Final, Protocol

from OpenSSL import SSL

from tng.errors import NetError, RemoteProtocolError, TngError

ESTABLISHED: Final = 1
"""The handshake is finished."""
ENDED: Final = 0
"""The peer has said close_notify."""
WANT_READ: Final = -1
"""Nothing possible before the descriptor is readable."""
WANT_WRITE: Final = -2
"""Nothing possible before the descriptor is writable."""
_FAILED: Final = -3


class Address(Protocol):
    """A position in a buffer."""

    def __add__(self, octets: int, /) -> Address:
        """The position `octets` further on."""
        ...


@dataclass(frozen=True, slots=True)
class Calls:
    """One way to reach OpenSSL.  `handle` is what `handle_of` gave for the connection.

    Attributes:
        name: for the tests and the start-up log.
        handle_of: connection -> what the other calls take.
        handshake: (connection, label of the peer) -> ESTABLISHED, WANT_READ or WANT_WRITE; or
            raises NetError or RemoteProtocolError for what happened.
        pointer: buffer -> its address.
        read: (handle, address, size) -> octets read, or not positive.
        write: (handle, address, size) -> octets written, or not positive.
        pending: handle -> octets decrypted but not read yet.
        outcome: (handle, result that was not positive, label of the peer) -> ENDED, WANT_READ
            or WANT_WRITE; or raises NetError or RemoteProtocolError for what happened.
    """

    name: str
    handle_of: Callable[[SSL.Connection], object]
    handshake: Callable[[SSL.Connection, str], int]
    pointer: Callable[[memoryview], Address]
    read: Callable[[object, object, int], int]
    write: Callable[[object, object, int], int]
    pending: Callable[[object], int]
    outcome: Callable[[object, int, str], int]


_NOT_TLS: Final = (
    "wrong version number",
    "http request",
    "https proxy request",
    "packet length too long",
)


def tls_failure(label: str, reasons: str) -> RemoteProtocolError:
    """Put OpenSSL's reasons into an error that says what can be done about it.

    Args:
        label: what to call the peer.
        reasons: OpenSSL's own words.
    """
    if "unexpected eof" in reasons:
        return RemoteProtocolError(
            f"{label} ended TCP without close_notify: the stream is broken off or truncated"
        )
    if " alert " in reasons:
        # OpenSSL's words for a received alert: "tlsv13 alert certificate required".
        return RemoteProtocolError(f"{label} sent TLS alert: {reasons.partition(' alert ')[2]}")
    if "excessive message size" in reasons:
        return RemoteProtocolError(
            f"certificate list of {label} is over 100 KiB, more than OpenSSL accepts; its "
            "evidence has to become smaller (shorter event log, fewer devices)"
        )
    if any(mark in reasons for mark in _NOT_TLS):
        return RemoteProtocolError(f"expected TLS 1.3 from {label}, got octets that are not TLS")
    return RemoteProtocolError(f"TLS with {label} failed: {reasons or 'no reason given'}")


def translate(label: str, error: SSL.Error) -> TngError:
    """Turn what pyOpenSSL raised into our own tree, cause by cause; see `tls_failure`."""
    match error:
        case SSL.ZeroReturnError():
            return RemoteProtocolError(f"{label} ended TLS with close_notify in the middle")
        case SSL.SysCallError(args=(int(number), *_)) if number > 0:
            return NetError(f"connection to {label} broke: {os.strerror(number)}")
        case SSL.SysCallError():
            return tls_failure(label, "unexpected eof")
        case SSL.Error(args=(list(entries), *_)):
            return tls_failure(label, "; ".join(str(entry[-1]) for entry in entries))
        case _:
            return tls_failure(label, "")


# --- pyOpenSSL's public methods ---


def _shake(step: Callable[[], None], label: str) -> int:
    """One step of a handshake, which returns when finished and raises what pyOpenSSL raises."""
    try:
        step()
    except SSL.WantReadError:
        return WANT_READ
    except SSL.WantWriteError:
        return WANT_WRITE
    except SSL.SysCallError as error:
        if error.args[0] == _END_OF_FILE:
            text = f"{label} closed the connection during the TLS handshake"
            raise NetError(text) from error
        raise translate(label, error) from error
    except SSL.Error as error:
        raise translate(label, error) from error
    return ESTABLISHED


_END_OF_FILE: Final = -1  # what pyOpenSSL puts in place of an errno


class _PublicHandle:
    """A connection, and what its last call raised."""

    __slots__ = ("connection", "error")

    def __init__(self, connection: SSL.Connection) -> None:
        self.connection = connection
        self.error: SSL.Error | None = None

    def read(self, at: _View, size: int) -> int:
        return self._try(self.connection.recv_into, at.octets, size)

    def write(self, at: _View, size: int) -> int:
        return self._try(self.connection.send, at.octets[:size], 0)

    def pending(self) -> int:
        return self.connection.pending()

    def outcome(self, result: int, label: str) -> int:
        error, self.error = self.error, None
        if error is not None:
            raise translate(label, error) from error
        return result

    def _try(self, call: Callable[[memoryview, int], int], octets: memoryview, number: int) -> int:
        try:
            return call(octets, number)
        except SSL.ZeroReturnError:
            return ENDED
        except SSL.WantReadError:
            return WANT_READ
        except SSL.WantWriteError:
            return WANT_WRITE
        except SSL.Error as error:
            self.error = error
            return _FAILED


class _View:
    """An address for the public methods: the rest of the buffer."""

    __slots__ = ("octets",)

    def __init__(self, octets: memoryview) -> None:
        self.octets = octets

    def __add__(self, octets: int, /) -> _View:
        return _View(self.octets[octets:])


PUBLIC: Final = Calls(
    name="pyOpenSSL",
    handle_of=_PublicHandle,
    handshake=lambda connection, label: _shake(connection.do_handshake, label),
    pointer=_View,
    read=_PublicHandle.read,  # type: ignore[arg-type]  # handle and address are of our own making
    write=_PublicHandle.write,  # type: ignore[arg-type]
    pending=_PublicHandle.pending,  # type: ignore[arg-type]
    outcome=_PublicHandle.outcome,  # type: ignore[arg-type]
)
"""Works with every pyOpenSSL."""


# --- the binding ---


def _find_binding() -> tuple[ModuleType, ModuleType] | None:
    """The library of pyOpenSSL and its ffi, or None when they are not what is expected here."""
    library = getattr(SSL, "_lib", None)
    ffi = getattr(SSL, "_ffi", None)
    needed = (
        *("SSL_read", "SSL_write", "SSL_pending", "SSL_get_error", "SSL_clear_mode"),
        *("SSL_do_handshake", "ERR_get_error", "ERR_reason_error_string"),
    )
    if not hasattr(SSL.Connection, "_raise_ssl_error"):
        return None
    if library is None or ffi is None or not all(hasattr(library, name) for name in needed):
        return None
    probe = getattr(SSL.Connection(SSL.Context(SSL.TLS_METHOD), None), "_ssl", None)
    if not isinstance(probe, ffi.CData) or ffi.typeof(probe) is not ffi.typeof("SSL *"):
        return None
    return library, ffi


def make_binding_calls() -> Calls | None:
    """The binding's functions, or None when this pyOpenSSL is built differently."""
    binding = _find_binding()
    if binding is None:
        return None
    library, ffi = binding

    def handle_of(connection: SSL.Connection) -> object:
        handle: object = getattr(connection, "_ssl")  # noqa: B009 - checked above
        # pyOpenSSL has one read go on through all records without octets that have arrived.  A
        # peer that sends nothing but key updates shall take turns with the others instead; the
        # socket stays readable, since OpenSSL takes no record off it before its turn.
        library.SSL_clear_mode(handle, SSL_MODE_AUTO_RETRY)
        return handle

    def handshake(connection: SSL.Connection, label: str) -> int:
        handle: object = getattr(connection, "_ssl")  # noqa: B009 - checked above
        result: int = library.SSL_do_handshake(handle)
        if result == ESTABLISHED:
            return ESTABLISHED
        if library.SSL_get_error(handle, result) == SSL_ERROR_WANT_READ:
            return WANT_READ
        # The rest is rare, and pyOpenSSL knows what its own callbacks have raised meanwhile.
        fail: Callable[[object, int], None] = getattr(connection, "_raise_ssl_error")  # noqa: B009
        outcome = _shake(lambda: fail(handle, result), label)
        if outcome == ESTABLISHED:
            raise tls_failure(label, "the handshake stopped")  # nothing raised: not finished either
        return outcome

    def reasons() -> str:
        texts = []
        while code := library.ERR_get_error():
            text = library.ERR_reason_error_string(code)
            texts.append(ffi.string(text).decode() if text else f"code {code:#x}")
        return "; ".join(texts)

    def outcome(handle: object, result: int, label: str) -> int:
        number = ffi.errno  # before any other call can change it
        kind = library.SSL_get_error(handle, result)
        if kind == SSL_ERROR_WANT_READ:
            return WANT_READ
        if kind == SSL_ERROR_WANT_WRITE:
            return WANT_WRITE
        if kind == SSL_ERROR_ZERO_RETURN:
            return ENDED
        words = reasons()
        if kind == SSL_ERROR_SYSCALL and number > 0:
            raise NetError(f"connection to {label} broke: {os.strerror(number)}")
        raise tls_failure(label, words or "unexpected eof")

    return Calls(
        name="binding",
        handle_of=handle_of,
        handshake=handshake,
        pointer=ffi.from_buffer,
        read=library.SSL_read,
        write=library.SSL_write,
        pending=library.SSL_pending,
        outcome=outcome,
    )


# SSL_CTX_set_mode(3).
SSL_MODE_AUTO_RETRY: Final = 4
# SSL_get_error(3); pyOpenSSL has no public names for them.
SSL_ERROR_WANT_READ: Final = 2
SSL_ERROR_WANT_WRITE: Final = 3
SSL_ERROR_SYSCALL: Final = 5
SSL_ERROR_ZERO_RETURN: Final = 6

FASTEST: Final = make_binding_calls() or PUBLIC
"""What TLS ends use."""
