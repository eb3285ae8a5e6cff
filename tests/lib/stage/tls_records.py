"""A TLS 1.3 client that makes its records by hand once the handshake is done."""

from __future__ import annotations

import pathlib
import socket
import ssl
import struct
from collections.abc import Sequence

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

HANDSHAKE, APPLICATION_DATA = 22, 23
KEY_UPDATE = bytes((24, 0, 0, 1, 1))  # update_requested, RFC 8446 section 4.6.3


class Sealer:
    """The sending side of a client, record by record (RFC 8446 sections 5.2 and 7.2)."""

    def __init__(self, secret: bytes) -> None:
        self._use(secret)

    def record(self, kind: int, content: bytes) -> bytes:
        nonce = (int.from_bytes(self._iv, "big") ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        head = struct.pack(">BHH", APPLICATION_DATA, 0x0303, len(content) + 17)
        return head + self._cipher.encrypt(nonce, content + bytes((kind,)), head)

    def data(self, content: bytes) -> bytes:
        """Application data in records of at most 16 KiB."""
        parts = range(0, len(content), 16384)
        return b"".join(self.record(APPLICATION_DATA, content[at : at + 16384]) for at in parts)

    def key_update(self) -> bytes:
        """Change the keys, and ask the peer to do so too."""
        record = self.record(HANDSHAKE, KEY_UPDATE)
        self._use(expand(self._secret, b"traffic upd", 32))
        return record

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(expand(secret, b"key", 16))
        self._iv = expand(secret, b"iv", 12)
        self._sequence = 0


def expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label, RFC 8446 section 7.1."""
    name = b"tls13 " + label
    info = struct.pack(">HB", size, len(name)) + name + b"\0"
    return HKDFExpand(hashes.SHA256(), size, info).derive(secret)


def client_context(alpn: Sequence[str] = ("rats-tls",)) -> ssl.SSLContext:
    """TLS 1.3 as a client that judges nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    return context


def shake_hands(
    sock: socket.socket, keys: pathlib.Path, alpn: Sequence[str] = ("rats-tls",)
) -> Sealer:
    """Be a client up to the end of the handshake.

    Args:
        sock: connected, blocking.
        keys: a file that does not exist yet, for the connection's secrets.
        alpn: protocols to offer.
    """
    context = client_context(alpn)
    context.keylog_filename = str(keys)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            incoming.write(sock.recv(65536))
    sock.sendall(outgoing.read())
    cipher = tls.cipher()
    assert cipher is not None
    assert cipher[0] == "TLS_AES_128_GCM_SHA256"
    words = keys.read_text().split()
    return Sealer(bytes.fromhex(words[words.index("CLIENT_TRAFFIC_SECRET_0") + 2]))
