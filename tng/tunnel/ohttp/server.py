"""The egress side of OHTTP: the control API, and encapsulated requests.

In: HTTP requests with the field `x-tng-ohttp-api`.  Out: their answers.  Source: spec of the OHTTP
transport, sections 1 and 2; what this egress adds on purpose is said in the manual.

The order for an encapsulated request is the reference's: content type, metadata, header, client,
key, decryption; a copy of an earlier request is refused before anything is decrypted.

Invariants: a client that has to be verified is judged before its request is decrypted, let alone
delivered; a request reaches the service at most once, and as a whole only when it was verified.
"""

from __future__ import annotations

import base64
import logging
import secrets
from dataclasses import dataclass
from typing import Final

from tng import __version__
from tng.attest.evidence import PROVIDERS, Evidence, make_token, provider_of
from tng.attest.statement import Statement
from tng.attest.user_data import ClientUserData, ServerUserData, read_user_data
from tng.attest.verifier.base import StatementVerifier
from tng.clock import Clock
from tng.dataplane.ends import End
from tng.dataplane.http_server import Request, ResponseWriter
from tng.dataplane.reactor import Reactor
from tng.errors import LocalProtocolError, RemoteProtocolError, TngError
from tng.tunnel.base import Peer
from tng.tunnel.bridge import Bridge
from tng.tunnel.ohttp.control_messages import (
    MAX_BODY,
    Api,
    dump_challenge_answer,
    dump_key_config_answer,
    dump_token_answer,
    parse_evidence_request,
    parse_wanted,
)
from tng.tunnel.ohttp.delivery import Delivery, Service
from tng.tunnel.ohttp.incoming import IncomingRequest
from tng.tunnel.ohttp.key_source import KeySource
from tng.tunnel.ohttp.keyring import Key
from tng.tunnel.ohttp.outer import API_FIELD, REQUEST_TYPE
from tng.tunnel.ohttp.problems import OhttpError, Problem
from tng.tunnel.ohttp.replay import Replays
from tng.tunnel.ohttp.statements import KeyStatements
from tng.verdict import NoRa
from tng.wire.http1_head import Fields
from tng.wire.ohttp_keys import ADVERTISED_SUITES, KeyConfig, dump_key_config_list
from tng.wire.ohttp_metadata import Metadata
from tng.wire.ohttp_request import RequestHeader
from tng.wire.ohttp_response import response_nonce_size

SERVER: Final = (b"server", f"tng-gateway/{__version__}".encode())
"""Who answers; on every answer of ours."""

ARRIVAL_TIMEOUT_S: Final = 30.0
"""Seconds for what must be known before anything is done: metadata and header of an encapsulated
request, or the body of a control call.  The inner message may take its time."""

_JSON: Final = (b"content-type", b"application/json")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judge:
    """Who clients have to convince.

    Attributes:
        verifier: the judge; None where the operator said no `verify`.
        bridge: through which it is asked.
    """

    verifier: StatementVerifier | None
    bridge: Bridge


class OhttpServer:
    """Answers the requests of one `add_egress` entry.

    Args:
        reactor: where connections live.
        judge: of clients.
        keys: our keys.
        statements: what is shown with them.
        service: where requests are delivered.
        clock: the time of day.
        replays: remembers requests.
    """

    def __init__(
        self,
        reactor: Reactor,
        judge: Judge,
        keys: KeySource,
        statements: KeyStatements,
        clock: Clock,
        replays: Replays,
    ) -> None:
        self._reactor = reactor
        self._judge = judge
        self._keys = keys
        self._statements = statements
        self._clock = clock
        self._replays = replays

    async def serve(
        self, client: End, request: Request, writer: ResponseWriter, service: Service, address: str
    ) -> None:
        """Answer one request that has the field `x-tng-ohttp-api`.

        Args:
            client: the client's connection.
            request: its request.
            writer: makes the octets of the answer.
            service: where an encapsulated request is delivered.
            address: the client's, for the service and the log.

        Raises:
            OhttpError: the answer is this problem; nothing has been said to the client yet.
            TngError: the same, or it ended in the middle of the answer (`writer.is_started`).
        """
        match api_of(request.head.fields):
            case Api.TUNNEL:
                await self._tunnel(client, request, writer, service, address)
            case Api.KEY_CONFIG:
                body = await self._control_body(request)
                await self._say(client, writer, await self._key_config(request, body))
            case Api.CHALLENGE:
                await self._say(client, writer, await self._challenge())
            case Api.VERIFY:
                body = await self._control_body(request)
                await self._say(client, writer, await self._verify(request, body, address))

    # -- the control API -------------------------------------------------------------------

    async def _control_body(self, request: Request) -> bytes:
        with self._reactor.deadline(ARRIVAL_TIMEOUT_S, _late_payload):
            return await read_body(request)

    async def _say(self, client: End, writer: ResponseWriter, body: bytes) -> None:
        fields = [SERVER, _JSON, (b"content-length", b"%d" % len(body))]
        await client.send(writer.start(200, fields) + writer.data(body) + writer.end([]))

    async def _key_config(self, request: Request, body: bytes) -> bytes:
        content_type = _content_type(request.head.fields)
        wanted = parse_wanted(body, content_type, self._statements.providers)
        key = self._keys.keyring.active(self._clock.now())
        if key is None:
            raise OhttpError(
                Problem.NO_ACTIVE_KEY, self._keys.not_ready or "there is no key to offer now"
            )
        shown = ServerUserData(_encode(key), int(key.expire_at))
        statement = None
        if self._statements.attests:
            statement = await self._judge.bridge.ask(self._statements.make, shown, wanted)
        return dump_key_config_answer(shown, statement, wanted)

    async def _challenge(self) -> bytes:
        verifier = self._background_verifier(Problem.CHALLENGE_FAILED)
        try:
            return dump_challenge_answer(await self._judge.bridge.ask(verifier.challenge))
        except TngError as exc:
            raise OhttpError(Problem.CHALLENGE_FAILED, str(exc), code=exc.code) from exc

    async def _verify(self, request: Request, body: bytes, address: str) -> bytes:
        verifier = self._background_verifier(Problem.EVIDENCE_FAILED)
        evidence = parse_evidence_request(body, _content_type(request.head.fields))
        try:
            statement = _clients_statement(evidence)
            peer = await self._judge.bridge.ask(verifier.judge_statement, statement, address)
        except RemoteProtocolError as exc:
            raise OhttpError(Problem.INVALID_REQUEST_PAYLOAD, str(exc), code=exc.code) from exc
        except TngError as exc:
            raise OhttpError(Problem.EVIDENCE_FAILED, str(exc), code=exc.code) from exc
        return dump_token_answer(peer.token, provider_of(evidence))

    def _background_verifier(self, problem: Problem) -> StatementVerifier:
        verifier = self._judge.verifier
        if verifier is None or "background_check" not in verifier.models:
            raise OhttpError(problem, "this egress does not verify clients by background check")
        return verifier

    # -- encapsulated requests -------------------------------------------------------------

    async def _tunnel(
        self, client: End, request: Request, writer: ResponseWriter, service: Service, address: str
    ) -> None:
        types = [value for name, value in request.head.fields if name == b"content-type"]
        if types != [REQUEST_TYPE]:
            raise OhttpError(
                Problem.INVALID_OHTTP_REQUEST, f"expected content-type {REQUEST_TYPE.decode()}"
            )
        incoming = IncomingRequest(request.body)
        with self._reactor.deadline(ARRIVAL_TIMEOUT_S, _late_metadata):
            metadata, header = await incoming.envelope()
        peer = await self._judge_client(metadata, address)
        key = await self._key(metadata)
        now = self._clock.now()
        if not self._replays.is_new(key.public_key, header.enc, key.expire_at, now):
            raise OhttpError(Problem.REPLAYED, "this encapsulated request was served before")
        sealer = incoming.open(key.private, _config(key), _sender(metadata), _nonce(header))
        delivery = Delivery(self._reactor, client, request, incoming, sealer, writer)
        await delivery.run(service, address, peer)

    async def _judge_client(self, metadata: Metadata, address: str) -> Peer:
        """Who sends the request; without a verifier nobody may claim to be anybody."""
        verifier, shown = self._judge.verifier, metadata.client
        if verifier is None:
            if shown is not None:
                raise OhttpError(
                    Problem.METADATA_VALIDATE_ERROR,
                    "the client attests, but this egress has no `verify` to judge it with",
                )
            return NoRa.NO_RA
        if shown is None:
            raise OhttpError(
                Problem.METADATA_VALIDATE_ERROR,
                "this egress verifies its clients, and this one shows no attestation token",
            )
        if shown.provider not in PROVIDERS:
            raise OhttpError(
                Problem.METADATA_VALIDATE_ERROR,
                f"expected a token of provider {' or '.join(sorted(PROVIDERS))}",
            )
        token = make_token(shown.token, shown.provider)
        statement = Statement(token, ClientUserData(shown.public_key))
        known = verifier.judged_statement_nowait(statement)
        if known is not None:
            return known
        try:
            return await self._judge.bridge.ask(verifier.judge_statement, statement, address)
        except TngError as exc:
            raise OhttpError(Problem.METADATA_VALIDATE_ERROR, str(exc), code=exc.code) from exc

    async def _key(self, metadata: Metadata) -> Key:
        """Our key that the request is encrypted to."""
        hint = metadata.key_hint
        if hint is None:
            raise OhttpError(Problem.KEY_HINT_NOT_SPECIFIED, "the metadata names no key")
        key = self._keys.keyring.find(hint, self._clock.now())
        if key is None and await self._judge.bridge.ask(self._keys.find_elsewhere, hint):
            key = self._keys.keyring.find(hint, self._clock.now())
        if key is None:
            raise OhttpError(
                Problem.KEY_NOT_FOUND,
                f"key {hint[:8].hex()} is not known here, or not any more; ask for the key again",
            )
        return key


def api_of(fields: Fields) -> Api:
    """What a request asks of the egress.

    Raises:
        OhttpError: RejectNonTngRequest, or InvalidOhttpApiHeaderValue.
    """
    values = [value for name, value in fields if name == API_FIELD]
    if not values:
        raise OhttpError(
            Problem.REJECT_NON_TNG_REQUEST,
            "this port takes requests of a TNG ingress only; see `direct_forward`",
        )
    try:
        return Api(values[0].decode("ascii")) if len(values) == 1 else _unknown()
    except ValueError:
        return _unknown()


async def read_body(request: Request) -> bytes:
    """A body of the control API.

    Raises:
        OhttpError: InvalidRequestPayload, it is longer than MAX_BODY.
        ClientLeftError: the client broke off.
    """
    gathered = bytearray()
    while pieces := await request.body.read():
        for piece in pieces:
            gathered += piece
        if len(gathered) > MAX_BODY:
            raise OhttpError(
                Problem.INVALID_REQUEST_PAYLOAD, f"a body of more than {MAX_BODY} octets"
            )
    return bytes(gathered)


def _late_payload() -> OhttpError:
    return OhttpError(
        Problem.INVALID_REQUEST_PAYLOAD, f"the body took more than {ARRIVAL_TIMEOUT_S:g} s"
    )


def _late_metadata() -> OhttpError:
    return OhttpError(
        Problem.METADATA_READ_ERROR, f"the metadata took more than {ARRIVAL_TIMEOUT_S:g} s"
    )


def _clients_statement(evidence: Evidence) -> Statement:
    statement = Statement(evidence, read_user_data(evidence))
    if not statement.is_clients:
        raise RemoteProtocolError("the evidence is about a server's key, not a client's")
    return statement


def _unknown() -> Api:
    raise OhttpError(
        Problem.INVALID_OHTTP_API_HEADER_VALUE,
        f"expected one {API_FIELD.decode()} of {', '.join(Api)}",
    )


def _content_type(fields: Fields) -> bytes | None:
    for name, value in fields:
        if name == b"content-type":
            return value
    return None


def _config(key: Key) -> KeyConfig:
    return KeyConfig(key.key_id, key.public_key, ADVERTISED_SUITES)


def _encode(key: Key) -> str:
    return base64.b64encode(dump_key_config_list([_config(key)])).decode("ascii")


def _sender(metadata: Metadata) -> bytes | None:
    return metadata.client.public_key if metadata.client else None


def _nonce(header: RequestHeader) -> bytes:
    try:
        return secrets.token_bytes(response_nonce_size(header.suite))
    except LocalProtocolError as exc:
        raise OhttpError(
            Problem.BHTTP_ERROR, f"the request's suite is not one of this key: {exc}"
        ) from exc
