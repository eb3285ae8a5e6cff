"""RA-TLS: TLS 1.3 whose certificates carry evidence (spec: RATS-TLS transport of TNG 2.x).

Theory of operation
-------------------
A verifying side needs three facts before it may use a connection: the peer holds the private
key of its certificate (the TLS handshake proves it), the certificate's evidence is bound to
that key (report data = hash of the key), and the evidence is good (a verdict).  The handshake
lets any certificate through, so that the verdict can be taken afterwards, outside the reactor;
the order is therefore a matter of our code, and it is kept in two places only: `client` and
`server`.  Each ends its handshake, judges, and only then makes an object that can carry
application data.  There are no session tickets, no pre-shared keys and no early data: every
connection shows its certificate, so every connection can be judged.

`client` opens streams: raw (one TLS connection each) or multiplexed (`pool`: one HTTP/2 CONNECT
stream each on a shared, judged connection).  With `multiplex` unset the client offers both
protocols and the server prefers the multiplexed one; a peer that only speaks raw answers raw.
"""

from typing import Final

ALPN_RAW: Final = b"rats-tls"
"""ALPN protocol of a connection that carries one stream, nothing else."""

ALPN_MULTIPLEX: Final = b"h2"
"""ALPN protocol of a connection that carries HTTP/2 CONNECT streams."""

HANDSHAKE_TIMEOUT_S: Final = 10.0
"""Seconds from the first octet of a TLS handshake to its end."""

DRAIN_AFTER_VERDICT_S: Final = 3600.0
"""Seconds that a stream already open may go on once its peer's verdict has ended.

New streams never use such a connection; a long answer that began in time may be finished."""
