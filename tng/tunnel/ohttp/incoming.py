"""The inside of an encapsulated request, as it arrives at an egress.

In: the pieces of an outer body.  Out: metadata and header, then, once the request was opened, the
events of the inner message.  Source: spec of the OHTTP transport, sections 1.9 and 2.2.

Invariant: the inner message is whole (`is_whole`) only after the end of the outer body, the end of
the inner message and a verified final chunk; until then nobody may treat it as complete.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tng.dataplane.http_server import IncomingBody
from tng.errors import RemoteProtocolError
from tng.tunnel.ohttp.problems import OhttpError, Problem
from tng.wire.bhttp import WrongKindError
from tng.wire.bhttp_decoder import Decoder, Event, RequestHead
from tng.wire.ohttp_keys import KeyConfig
from tng.wire.ohttp_metadata import (
    Metadata,
    MetadataMalformedError,
    MetadataTooLongError,
    MetadataTruncatedError,
)
from tng.wire.ohttp_request import RequestHeader
from tng.wire.ohttp_request_reader import RequestReader
from tng.wire.ohttp_response import ResponseSealer


class IncomingRequest:
    """One encapsulated request.

    Args:
        body: the outer body.

    Attributes:
        is_whole: whether all of the inner message has been given out, and was verified.
    """

    __slots__ = ("_body", "_decoder", "_events", "_has_head", "_reader", "is_whole")

    def __init__(self, body: IncomingBody) -> None:
        self._body = body
        self._reader = RequestReader()
        self._decoder = Decoder("request")
        self._events: list[Event] = []
        self._has_head = False
        self.is_whole = False

    async def envelope(self) -> tuple[Metadata, RequestHeader]:
        """What the request says in the clear.

        Raises:
            OhttpError: it is too long, malformed, or cut short.
            ClientLeftError: the client broke off.
        """
        try:
            while self._reader.header is None:
                pieces = await self._body.read()
                if not pieces:
                    self._reader.finish()
                self._feed_until_header(pieces)
        except MetadataTooLongError as exc:
            raise OhttpError(Problem.METADATA_TOO_LONG, str(exc)) from exc
        except MetadataTruncatedError as exc:
            raise OhttpError(Problem.METADATA_READ_ERROR, str(exc)) from exc
        except MetadataMalformedError as exc:
            raise OhttpError(Problem.METADATA_DECODE_ERROR, str(exc)) from exc
        except RemoteProtocolError as exc:
            raise OhttpError(Problem.OHTTP_ERROR, str(exc)) from exc
        if self._reader.metadata is None:
            raise AssertionError("metadata comes before the header")
        return self._reader.metadata, self._reader.header

    def _feed_until_header(self, pieces: list[bytes]) -> None:
        for index, piece in enumerate(pieces):
            self._reader.feed(piece)
            if self._reader.header is not None:
                self._body.hand_back(pieces[index + 1 :])
                return

    def open(
        self, private: X25519PrivateKey, config: KeyConfig, sender: bytes | None, nonce: bytes
    ) -> ResponseSealer:
        """Decrypt from here on.

        Args:
            private: our key.
            config: its configuration.
            sender: the client's key, after its token was judged.
            nonce: fresh random octets for the response.

        Returns:
            What encrypts the response.

        Raises:
            OhttpError: BhttpError; the header is not for this key.
        """
        try:
            self._reader.open(private, config, sender)
        except RemoteProtocolError as exc:
            raise OhttpError(Problem.BHTTP_ERROR, str(exc)) from exc
        return self._reader.response_sealer(nonce)

    async def head(self) -> RequestHead:
        """The head of the inner message.

        Raises:
            OhttpError: there is none that can be read.
            ClientLeftError: the client broke off.
        """
        events = await self.read()
        if not events or not isinstance(events[0], RequestHead):
            raise OhttpError(Problem.BHTTP_ERROR, "the inner message has no head")
        self._events = events[1:]
        return events[0]

    def read_nowait(self) -> list[Event]:
        """The events that are there; `is_whole` may become true by it.

        Raises:
            OhttpError: what came cannot be decrypted or read, or was cut short.
        """
        events, self._events = self._events, []
        try:
            self._drain(events, self._body.read_nowait())
        except OhttpError:
            raise
        except WrongKindError as exc:
            raise OhttpError(Problem.INVALID_HTTP_REQUEST, str(exc)) from exc
        except RemoteProtocolError as exc:
            problem = Problem.PLAIN_TEXT_FORWARD_ERROR if self._has_head else Problem.BHTTP_ERROR
            raise OhttpError(problem, str(exc), code=exc.code) from exc
        return events

    async def read(self) -> list[Event]:
        """The next events, at least one; empty when the message is whole.

        Raises:
            OhttpError: see `read_nowait`.
            ClientLeftError: the client broke off.
        """
        while not (events := self.read_nowait()) and not self.is_whole:
            await self._body.wait()
        return events

    def _drain(self, events: list[Event], pieces: list[bytes]) -> None:
        for piece in pieces:
            self._reader.feed(piece)
            self._decode(events)
        if not pieces:
            self._decode(events)  # what came with the envelope
        if self._body.is_complete and not self._body.has_unread and not self.is_whole:
            self._reader.finish()
            events += self._decoder.finish()
            self.is_whole = True

    def _decode(self, events: list[Event]) -> None:
        for plain in self._reader.read():
            events += self._decoder.feed(plain)
            self._has_head = self._has_head or bool(events)
