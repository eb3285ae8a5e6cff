"""The one place where TLS is set up: which versions, groups, ciphers, protocols, certificates.

In: the protocols offered, our key and certificate.  Out: a pyOpenSSL context for many connections.
Rules of this project, the same on both sides: TLS 1.3 only; no tickets, no session cache, no early
data, so that every connection shows a certificate; no compression.

The peer's certificate is *not* judged here.  Evidence stands in self-signed certificates, so the
handshake tolerates exactly what is normal for those and fails on everything else; that the peer
holds the certificate's key is proved by the handshake itself (RFC 8446 section 4.4.3).  Whoever
opens the connection judges the certificate before a byte of application data moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from OpenSSL import SSL

from tng.errors import RemoteProtocolError, StartError

CIPHERSUITES: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""In our order: AES-128-GCM costs the least for a strength that X25519 does not exceed."""

GROUP_LISTS: Final = (b"X25519:P-256:P-384", b"P-256:P-384")
"""X25519 first: peers send a key share for it at once.  The second is for FIPS builds."""

# X509_V_ERR_... of x509_vfy.h, the faults that a self-signed certificate with evidence may have.
TOLERATED_FAULTS: Final = frozenset(
    {
        9,  # CERT_NOT_YET_VALID
        10,  # CERT_HAS_EXPIRED
        18,  # DEPTH_ZERO_SELF_SIGNED_CERT
        19,  # SELF_SIGNED_CERT_IN_CHAIN
        20,  # UNABLE_TO_GET_ISSUER_CERT_LOCALLY
        21,  # UNABLE_TO_VERIFY_LEAF_SIGNATURE
        34,  # UNHANDLED_CRITICAL_EXTENSION
    }
)


@dataclass(frozen=True, slots=True)
class TlsCredential:
    """What one side shows: its certificate, and the key that proves it.

    Attributes:
        key: private key; never leaves the process.
        certificate: whose subject key is that key's public half.
    """

    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    certificate: x509.Certificate

    def __repr__(self) -> str:
        return f"TlsCredential(serial={self.certificate.serial_number:x})"


def client_context(alpn: Sequence[bytes], credential: TlsCredential | None) -> SSL.Context:
    """Context of the side that connects.

    Args:
        alpn: protocols to offer, best first; empty to offer none.
        credential: shown if the server asks; None to have nothing to show.

    Raises:
        StartError: the key does not belong to the certificate, or OpenSSL refuses a setting.
    """
    context = _context(credential)
    if alpn:
        context.set_alpn_protos(list(alpn))
    _set_verify(context, SSL.VERIFY_PEER)
    return context


def server_context(
    alpn: Sequence[bytes], credential: TlsCredential, ask_client_certificate: bool
) -> SSL.Context:
    """Context of the side that accepts.

    Args:
        alpn: protocols we speak, best first: our order decides.  A client that offers only others
            is refused with alert 120 (RFC 7301 section 3.2); one that offers none goes on without.
        credential: shown to every client.
        ask_client_certificate: refuse clients that show no certificate (alert 116).

    Raises:
        StartError: the key does not belong to the certificate, or OpenSSL refuses a setting.
    """
    context = _context(credential)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_alpn_select_callback(_alpn_chooser(tuple(alpn)))
    if ask_client_certificate:
        _set_verify(context, SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    return context


def _context(credential: TlsCredential | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    # With both, OpenSSL keeps nothing that a later connection could resume, and certificates of
    # any size work in mutual TLS (a stateless ticket would have to hold them).
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    _set_modes(context)
    try:
        context.set_tls13_ciphersuites(CIPHERSUITES)
        if credential is not None:
            context.use_certificate(credential.certificate)
            context.use_privatekey(credential.key)
            context.check_privatekey()
    except SSL.Error as error:
        raise StartError(f"OpenSSL refuses our TLS key, certificate or ciphers: {error}") from error
    return context


def _set_modes(context: SSL.Context) -> None:
    """Settings that pyOpenSSL has no method for; each has a safe default where unreachable."""
    library = getattr(SSL, "_lib", None)
    native = getattr(context, "_context", None)
    context.set_mode(_MODES)
    set_groups = getattr(library, "SSL_CTX_set1_curves_list", None)
    if set_groups is None or native is None:
        return
    if not any(set_groups(native, groups) == 1 for groups in GROUP_LISTS):
        raise StartError("OpenSSL knows none of the key exchange groups X25519, P-256, P-384")
    clear = getattr(library, "ERR_clear_error", None)
    if clear is not None:
        clear()


# SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS:
# write record by record from wherever the rest lies; an idle connection keeps no buffers.
_MODES: Final = 0x1 | 0x2 | 0x10


def _set_verify(context: SSL.Context, mode: int) -> None:
    """Ask for the peer's certificate and refuse all its faults but `TOLERATED_FAULTS`."""
    library, native = getattr(SSL, "_lib", None), getattr(context, "_context", None)
    if _NATIVE_TOLERATE is None or native is None:
        context.set_verify(mode, _tolerate)
    else:
        library.SSL_CTX_set_verify(native, mode, _NATIVE_TOLERATE)  # type: ignore[union-attr]


def make_native_tolerate() -> object | None:
    """`_tolerate` as OpenSSL calls it, or None when this pyOpenSSL is built differently.

    pyOpenSSL's own way makes a certificate object for each question, which nobody looks at.
    """
    library, ffi = getattr(SSL, "_lib", None), getattr(SSL, "_ffi", None)
    needed = ("SSL_CTX_set_verify", "X509_STORE_CTX_get_error", "X509_STORE_CTX_set_error")
    if library is None or ffi is None or not all(hasattr(library, name) for name in needed):
        return None
    fault_of, forgive = library.X509_STORE_CTX_get_error, library.X509_STORE_CTX_set_error

    def tolerate(is_fine: int, store_context: object) -> int:
        if is_fine:
            return 1
        if fault_of(store_context) not in TOLERATED_FAULTS:
            return 0
        forgive(store_context, _NO_FAULT)
        return 1

    # An error raised in there counts as 0, a refusal.
    callback: object = ffi.callback("int (*)(int, X509_STORE_CTX *)", tolerate, error=0)
    return callback


_NO_FAULT: Final = 0  # X509_V_OK
_NATIVE_TOLERATE: Final = make_native_tolerate()  # lives as long as any context: OpenSSL calls it


def _tolerate(
    connection: SSL.Connection, certificate: object, fault: int, depth: int, is_fine: int
) -> bool:
    return bool(is_fine) or fault in TOLERATED_FAULTS


def _alpn_chooser(ours: tuple[bytes, ...]) -> Callable[[SSL.Connection, list[bytes]], bytes]:
    def choose(connection: SSL.Connection, offered: list[bytes]) -> bytes:
        for protocol in ours:
            if protocol in offered:
                return protocol
        # pyOpenSSL's NO_OVERLAPPING_PROTOCOLS would go on without ALPN; raising sends alert 120.
        raise RemoteProtocolError(f"client offers ALPN {offered!r}, we speak {list(ours)!r}")

    return choose
