"""UDP datagrams through QUIC: one QUIC connection per client, one DATAGRAM frame per datagram.

Theory of operation
-------------------
The library speaks QUIC without sockets; `connection` is the one file that knows its insides.
A `Session` is one connection in its life cycle: it shakes hands, is judged, and carries datagrams
then.  There is no way to send or to receive a datagram before `Session.open`, which wants the
judged peer as its argument; what a peer sends too early is held, a little of it, and dropped if it
is refused.  A `QuicPort` is one UDP socket with all sessions that run over it: it finds the
session of each packet by connection ID, and wakes sessions whose timers are due.  `client` and
`server` put certificates and verdicts in their places, in the order that `tunnel.rats_tls` keeps.

No session is ever resumed and no early data is sent or taken: every connection shows its
certificate.  Everything here runs in the trio thread.

Source: RFC 9000 (QUIC), RFC 9221 (datagrams), spec of the RATS-TLS transport of TNG 2.x, section 7.
This package needs the extra `quic`; importing the package itself does not.
"""

from typing import Final

ALPN_DATAGRAMS: Final = "rats-quic"
"""The one ALPN protocol, as the reference names it."""

HANDSHAKE_TIMEOUT_S: Final = 10.0
"""Seconds from the first packet of a handshake to its end, as with TLS."""

MAX_HANDSHAKE_OCTETS: Final = 1 << 20
"""Octets that a peer may send before its handshake is done: a certificate with evidence has a
few ten thousand."""

MAX_HELD: Final = 128
"""Datagrams per session that wait for a handshake, a verdict or the congestion window; older ones
are dropped first, since a datagram that is late is of little use."""

SILENCE_S: Final = 8.0
"""Seconds without any packet from a peer that owes us an acknowledgement: it has restarted, or is
gone.  Peers acknowledge within milliseconds, and are asked again several times in between."""

LOCAL_IDLE_TIMEOUT_S: Final = 30.0
"""Least idle timeout that we announce, as the reference announces (v2.12.0)."""
