"""TLS contexts that follow our certificate (in the reactor).

A context holds native objects, so it is made in the reactor thread; it is made again when the
certificate has been renewed, and otherwise shared by all connections of one entry.
"""

from __future__ import annotations

from collections.abc import Sequence

from OpenSSL import SSL

from tng.attest.credential import Credential
from tng.attest.dummy import load_dummy
from tng.dataplane.tls_context import TlsCredential, client_context, server_context
from tng.tunnel.bridge import Bridge
from tng.tunnel.rats_tls.identity import Identity


class Contexts:
    """Gives each connection of one entry its TLS context.

    Args:
        alpn: protocols, the preferred one first.
        identity: our certificate, or None to show the dummy one (server) or none (client).
        bridge: through which a certificate per connection is made.
        server_side: whether we accept.
        ask_client_certificate: servers only: demand a certificate of the client.
    """

    def __init__(
        self,
        alpn: Sequence[bytes],
        identity: Identity | None,
        bridge: Bridge,
        *,
        server_side: bool,
        ask_client_certificate: bool = False,
    ) -> None:
        self._alpn = alpn
        self._identity = identity
        self._bridge = bridge
        self._server_side = server_side
        self._ask = ask_client_certificate
        self._made_for: Credential | None = None
        self._context: SSL.Context | None = None

    async def get(self) -> SSL.Context:
        """The context for one connection.

        Raises:
            EvidenceError: we are to prove who we are, and cannot.
        """
        identity = self._identity
        if identity is None:
            if self._context is None:
                self._context = self._make(_dummy_credential() if self._server_side else None)
            return self._context
        if identity.per_connection:
            return self._make(_tls_credential(await self._bridge.ask(identity.fresh)))
        credential = identity.current
        if credential is None:
            credential = await self._bridge.ask(identity.first)
        if self._context is None or credential is not self._made_for:
            self._context, self._made_for = self._make(_tls_credential(credential)), credential
        return self._context

    def _make(self, credential: TlsCredential | None) -> SSL.Context:
        if not self._server_side:
            return client_context(self._alpn, credential)
        if credential is None:
            raise ValueError("a server needs a certificate")
        return server_context(self._alpn, credential, ask_client_certificate=self._ask)


def _tls_credential(credential: Credential) -> TlsCredential:
    return TlsCredential(credential.key, credential.certificate)


def _dummy_credential() -> TlsCredential:
    return TlsCredential(*load_dummy())
