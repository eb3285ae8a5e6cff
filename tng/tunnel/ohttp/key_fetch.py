"""How an ingress comes to trust a key of an egress: ask, have it judged, and show itself.

In: an outer URL.  Out: a `Recipient`.  Source: spec of the OHTTP transport, section 1.6: the four
flows, and their combinations.

    we attest       key pair -> challenge of the egress -> our evidence -> the egress's token
                    (background check), or our own service's challenge and token (passport)
    we verify       challenge of our service -> key and evidence -> verdict (background check),
                    or key and token -> verdict (passport)

Invariant: a `Recipient` is made in one place, at the end of `fetch`, and only with a peer that
`judge` returned, or with `NoRa` where the operator asked for no verification.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tng.attest.statement import Statement
from tng.attest.token_expiry import read_expiry
from tng.attest.user_data import ClientUserData, with_challenge
from tng.attest.verifier.base import StatementVerifier
from tng.clock import Clock
from tng.dataplane.http_upstream import read_limited
from tng.dataplane.reactor import Reactor
from tng.errors import ErrorCode, NetError, RemoteProtocolError, TngError, UntrustedPeerError
from tng.tunnel.base import Peer
from tng.tunnel.bridge import Bridge
from tng.tunnel.ohttp.control_messages import (
    MAX_BODY,
    Api,
    KeyConfigAnswer,
    dump_evidence_request,
    dump_wanted,
    parse_challenge_answer,
    parse_key_config_answer,
    parse_token_answer,
)
from tng.tunnel.ohttp.outer_connection import OuterConnections, post_head
from tng.tunnel.ohttp.problems import OhttpError, Problem
from tng.tunnel.ohttp.recipients import ClientCredential, OuterUrl, Recipient, life_of
from tng.verdict import NoRa
from tng.wire.http1_head import Fields
from tng.wire.ohttp_keys import choose, parse_key_config_list
from tng.wire.ohttp_metadata import AttestedKey, Metadata, frame_metadata

if TYPE_CHECKING:
    from tng.attest.statement_source import StatementSource

CALL_TIMEOUT_S: Final = 20.0
"""Seconds for one call of the control API; an egress may have to ask its TEE and a service."""

DEFAULT_INTERVAL_S: Final = 300.0
"""Seconds after which a key is asked for again, where `attest` gives no interval."""

_EXCERPT: Final = 300
"""Characters of an error answer that are repeated in a message."""

_LATEST: Final = 1 << 40
"""Unix time in seconds that no key outlives, whatever number an egress writes."""

_JSON: Final = b"application/json"


class KeyFetcher:
    """Fetches and judges keys for one `add_ingress` entry (in the reactor).

    Args:
        reactor: where the calls are made.
        bridge: through which services and the TEE are asked.
        outer: connections to egresses.
        source: makes statements about our own key, if the operator said `attest`.
        verifier: the judge of egresses, if the operator said `verify`.
        interval_s: seconds after which a key is asked for again; 0 for every request.
        clock: the time of day.
    """

    def __init__(
        self,
        reactor: Reactor,
        bridge: Bridge,
        outer: OuterConnections,
        source: StatementSource | None,
        verifier: StatementVerifier | None,
        interval_s: float,
        clock: Clock,
    ) -> None:
        self._reactor = reactor
        self._bridge = bridge
        self._outer = outer
        self._source = source
        self._verifier = verifier
        self._interval_s = interval_s
        self._clock = clock

    async def fetch(self, url: OuterUrl) -> Recipient:
        """A judged key of the egress at `url`.

        Raises:
            UntrustedPeerError: it was judged and refused.
            TngError: nobody there, not an OHTTP egress, no judge, or no evidence of our own.
        """
        credential = await self._credential(url) if self._source else None
        model, challenge = await self._question()
        body = await self._call(url, Api.KEY_CONFIG, dump_wanted(model, challenge))
        try:
            answer = parse_key_config_answer(body)
            configs = parse_key_config_list(_decode(answer.key.encoded_key_config_list))
        except RemoteProtocolError as exc:
            raise OhttpError(
                Problem.CREATE_CLIENT_FAILED, f"{url.endpoint}: {exc}", code=exc.code
            ) from exc
        peer = await self._judge(url, answer, challenge)
        try:
            config, suite = choose(configs)
        except RemoteProtocolError as exc:
            raise OhttpError(Problem.SELECT_CONFIGURATION_FAILED, f"{url.endpoint}: {exc}") from exc
        attested = _attested(credential) if credential else None
        metadata = Metadata(config.public_key, attested, is_anonymous=attested is None)
        renew_at, ends_at = life_of(
            self._clock.now(),
            expires=float(min(max(answer.key.expire_timestamp, 0), _LATEST)),
            interval_s=self._interval_s,
            peer=peer,
            credential=credential,
        )
        return Recipient(
            config, suite, peer, credential, frame_metadata(metadata), renew_at, ends_at
        )

    async def _question(self) -> tuple[str | None, str | None]:
        """The model and the challenge in which the egress has to show itself."""
        if self._verifier is None:
            return None, None
        if self._verifier.models[0] == "passport":
            return "passport", None
        return "background_check", await self._bridge.ask(self._verifier.challenge)

    async def _judge(self, url: OuterUrl, answer: KeyConfigAnswer, challenge: str | None) -> Peer:
        if self._verifier is None:
            return NoRa.NO_RA
        if answer.statement is None:
            raise UntrustedPeerError(
                f"{url.endpoint} shows its key without evidence; expected a peer with `attest`",
                code=ErrorCode.EVIDENCE_MISSING,
            )
        about = answer.key if challenge is None else with_challenge(answer.key, challenge)
        statement = Statement(answer.statement, about)
        return await self._bridge.ask(self._verifier.judge_statement, statement, str(url.endpoint))

    async def _credential(self, url: OuterUrl) -> ClientCredential:
        """A new key of ours, and a token that vouches for it."""
        if self._source is None:
            raise AssertionError("a credential is made by an entry that attests")
        private = X25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        if self._source.model == "passport":
            passport = await self._bridge.ask(self._source.passport, ClientUserData(public))
            token, ends = passport.token, passport.expires_at
            return ClientCredential(private, public, token, ends, passport.provider)
        challenge = parse_challenge_answer(await self._call(url, Api.CHALLENGE, b""))
        evidence = await self._bridge.ask(self._source.evidence, ClientUserData(public, challenge))
        body = await self._call(url, Api.VERIFY, dump_evidence_request(evidence))
        given = parse_token_answer(body)
        ends = read_expiry(given.text)
        return ClientCredential(private, public, given.text, ends, given.provider)

    async def _call(self, url: OuterUrl, api: Api, body: bytes) -> bytes:
        """The answer to one call of the control API.

        Raises:
            OhttpError: CreateOHttpClientFailed.
        """
        try:
            with self._reactor.deadline(CALL_TIMEOUT_S, _too_slow):
                status, answer = await self._exchange(url, api, body)
        except (NetError, RemoteProtocolError) as exc:
            raise OhttpError(
                Problem.CREATE_CLIENT_FAILED,
                f"asking {url.endpoint} for {api} failed: {exc}; does an egress with `ohttp` "
                "listen there?",
                code=exc.code,
            ) from exc
        if status != 200:
            words = answer[:_EXCERPT].decode("utf-8", "replace")
            raise OhttpError(
                Problem.CREATE_CLIENT_FAILED,
                f"{url.endpoint} answered {status} to {api}: {words}",
                code=ErrorCode.NOT_A_TNG_PEER,
            )
        return answer

    async def _exchange(self, url: OuterUrl, api: Api, body: bytes) -> tuple[int, bytes]:
        upstream = await self._outer.take(url.endpoint, fresh=True)
        try:
            length = [(b"content-length", b"%d" % len(body))]
            await upstream.send(post_head(url, api, _JSON, length, []) + body, is_last=True)
            head = await upstream.response_head(b"POST")
            _check_encoding(head.fields)
            answer = await read_limited(upstream, MAX_BODY)
        except BaseException:
            upstream.end.abort()
            raise
        self._outer.put(url.endpoint, upstream)
        return head.status, answer


def _attested(credential: ClientCredential) -> AttestedKey:
    return AttestedKey(credential.token, credential.public, credential.provider)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise RemoteProtocolError("the key configuration list is not base64") from exc


def _check_encoding(fields: Fields) -> None:
    if any(name == b"content-encoding" and value != b"identity" for name, value in fields):
        raise RemoteProtocolError("it sent a compressed answer, which was not asked for")


def _too_slow() -> TngError:
    return NetError(f"no answer within {CALL_TIMEOUT_S:g} s")
