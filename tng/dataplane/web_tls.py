"""TLS towards servers on the web: known authorities vouch for the host name.

In: connected sockets.  Out: `TlsEnd`s whose peer was verified.  Source: RFC 5280 and RFC 9525, as
the `cryptography` library implements them.  This is the outer connection of OHTTP alone: it keeps
an ordinary load balancer's promise, and says nothing of a TEE.

Invariant: `connect` returns only ends whose certificate passed; nothing was sent on any other.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import certifi
from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from OpenSSL import SSL

from tng.clock import Clock
from tng.dataplane.reactor import Reactor
from tng.dataplane.tls import TlsEnd
from tng.endpoint import Endpoint
from tng.errors import ConfigError, NetError, RemoteProtocolError

HANDSHAKE_TIMEOUT_S: Final = 10.0
"""Seconds for a TLS handshake."""

MAX_CHAIN: Final = 16
"""Certificates of a peer that are looked at."""

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"


class WebTls:
    """Connects to servers with certificates of the web.

    Args:
        reactor: where connections live.
        ca_files: PEM files of further authorities.
        clock: the time of day, for certificates.

    Raises:
        ConfigError: a file cannot be read, or holds no certificate.
    """

    def __init__(self, reactor: Reactor, ca_files: Sequence[str], clock: Clock) -> None:
        self._reactor = reactor
        self._clock = clock
        authorities = _known_authorities()
        for name in ca_files:
            authorities += _read_authorities(name)
        self._store = Store(authorities)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        # The chain is judged below, once, by rules that do not depend on OpenSSL's settings.
        context.set_verify(SSL.VERIFY_NONE)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # Records are written part by part, from wherever the rest lies.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS | 0x1 | 0x2)
        context.set_alpn_protos([b"http/1.1"])
        self._context = context

    async def connect(self, plain: socket.socket, server: Endpoint) -> TlsEnd:
        """TLS on a connected socket, which is owned from here on.

        Raises:
            NetError: the handshake failed, or the certificate is not acceptable for `server`.
        """
        name = None if server.is_address else server.host
        try:
            end = TlsEnd(
                self._reactor,
                plain,
                self._context,
                server_side=False,
                server_name=name,
                label=str(server),
            )
        except BaseException:
            plain.close()
            raise
        try:
            await end.handshake(HANDSHAKE_TIMEOUT_S)
            self._verify(end.peer_chain(MAX_CHAIN), server)
        except RemoteProtocolError as exc:
            end.abort()
            raise NetError(f"no TLS on the outer connection to {server}: {exc}") from exc
        except BaseException:
            end.abort()
            raise
        return end

    def _verify(self, chain: Sequence[x509.Certificate], server: Endpoint) -> None:
        if not chain:
            raise NetError(f"{server} showed no certificate on the outer connection")
        now = dt.datetime.fromtimestamp(self._clock.now(), dt.UTC)
        policy = PolicyBuilder().store(self._store).time(now)
        try:
            verifier = policy.build_server_verifier(_subject(server))
            verifier.verify(chain[0], list(chain[1:]))
        except (VerificationError, ValueError) as exc:  # or the name is none of DNS
            raise NetError(
                f"the outer certificate of {server} is not acceptable: {exc}; give its authority "
                "in `tls_ca_certs`, and the name that it is issued for as the destination"
            ) from exc


def _subject(server: Endpoint) -> x509.DNSName | x509.IPAddress:
    if server.is_address:
        return x509.IPAddress(ipaddress.ip_address(server.host))
    return x509.DNSName(server.host)


def _known_authorities() -> list[x509.Certificate]:
    """The authorities of the web, without those whose certificates are not quite well-formed."""
    found = []
    blocks = Path(certifi.where()).read_bytes().split(_BEGIN)[1:]
    with warnings.catch_warnings():
        # Some old roots break RFC 5280; the library reads them for now, and warns.
        warnings.simplefilter("error", CryptographyDeprecationWarning)
        for block in blocks:
            try:
                found.append(x509.load_pem_x509_certificate(_BEGIN + block))
            except (ValueError, CryptographyDeprecationWarning):
                continue
    return found


def _read_authorities(name: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(Path(name).read_bytes())
    except (OSError, ValueError) as exc:
        raise ConfigError(
            [f"tls_ca_certs: expected a PEM file with certificates, got {name!r}: {exc}"]
        ) from exc
