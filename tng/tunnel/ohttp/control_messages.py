"""The JSON of the control API, in both dialects that clients speak.

In: bodies of requests and answers.  Out: what they say, checked and bounded.  Source: spec of the
OHTTP transport, sections 1.2, 1.3 and 8.  The dialect of cohere-tng asks with `attest_request`
and wants `attest_response` in the answer; TNG's own asks with `attestation_request` and ignores
fields that it does not know, so that one answer serves both.

Invariant: nothing in here is judged; a statement read from an answer is for `attest` to judge.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tng.attest.evidence import COCO, Evidence, Shown, Token, provider_of
from tng.attest.evidence_json import (
    dump_evidence_object,
    parse_evidence_object,
    parse_token_text,
    read_provider,
)
from tng.attest.strict_json import Json, parse_object
from tng.attest.user_data import ServerUserData, parse_key_config
from tng.errors import RemoteProtocolError
from tng.tunnel.ohttp.problems import OhttpError, Problem

MAX_BODY: Final = 4 * 1024 * 1024
"""Octets of a body of the control API: the evidence of a TEE with eight GPUs fits."""

MAX_CHALLENGE: Final = 64 * 1024
"""Characters of a challenge token."""

_NO_ATTESTATION: Final = {"Ok": None}


class Api(enum.StrEnum):
    """Values of the header `x-tng-ohttp-api`."""

    KEY_CONFIG = "/tng/key-config"
    TUNNEL = "/tng/tunnel"
    CHALLENGE = "/tng/background-check/challenge"
    VERIFY = "/tng/background-check/verify"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asks to be shown.

    Attributes:
        model: background_check or passport; None to be shown nothing.
        challenge: the attestation service's challenge token, for a background check.
        is_cohere: whether it asks in the dialect of cohere-tng.
        is_unservable: whether it made proposals, none of which we know.
    """

    model: Literal["background_check", "passport"] | None
    challenge: str | None = None
    is_cohere: bool = False
    is_unservable: bool = False


@dataclass(frozen=True, slots=True)
class KeyConfigAnswer:
    """What an egress says of its key.

    Attributes:
        key: the key configurations and their end, in the attested spelling.
        statement: unjudged evidence or token; None if the egress shows none.
    """

    key: ServerUserData
    statement: Shown | None


def parse_wanted(
    body: bytes, content_type: bytes | None, providers: Sequence[str] = (COCO,)
) -> Wanted:
    """What a key-config request asks for.

    Args:
        body: of the request.
        content_type: of the request, if it has one.
        providers: whose statements can be shown; a client may propose several.

    Raises:
        OhttpError: InvalidRequestPayload.
    """
    if content_type is None or not body:
        return Wanted(None)
    request = _request_object(body, content_type)
    if "attest_request" in request:
        return _cohere_wanted(request["attest_request"], providers)
    wanted = request.get("attestation_request")
    if wanted is None:
        return Wanted(None)
    return _wanted(wanted, is_cohere=False)


def dump_wanted(model: str | None, challenge: str | None) -> bytes:
    """The key-config request of our own ingress."""
    if model is None:
        return b'{"attestation_request":null}'
    wanted = {"model": model}
    if challenge is not None:
        wanted["challenge_token"] = challenge
    return json.dumps({"attestation_request": wanted}).encode()


def dump_key_config_answer(key: ServerUserData, statement: Shown | None, wanted: Wanted) -> bytes:
    """The answer to a key-config request, readable in both dialects."""
    answer: dict[str, object] = {
        "hpke_key_config": key.key_config,
        "attestation_info": _attestation_info(statement),
    }
    if wanted.is_cohere:
        answer["attest_response"] = _attest_response(statement, wanted)
    return json.dumps(answer).encode()


def parse_key_config_answer(body: bytes) -> KeyConfigAnswer:
    """What an egress answered.

    Raises:
        RemoteProtocolError: not such an answer, or its evidence is malformed.
    """
    answer = _answer_object(body)
    key = parse_key_config(answer.get("hpke_key_config"))
    return KeyConfigAnswer(key, _statement(answer.get("attestation_info")))


def parse_evidence_request(body: bytes, content_type: bytes | None) -> Evidence:
    """The client's evidence in a request to `/tng/background-check/verify`.

    Raises:
        OhttpError: InvalidRequestPayload.
    """
    request = _request_object(body, content_type or b"application/json")
    try:
        provider = read_provider(request.get("aa_provider"), "aa_provider")
        return parse_evidence_object(request.get("evidence"), provider)
    except RemoteProtocolError as exc:
        raise OhttpError(Problem.INVALID_REQUEST_PAYLOAD, str(exc)) from exc


def dump_evidence_request(evidence: Evidence) -> bytes:
    """The request of our own ingress to `/tng/background-check/verify`."""
    return json.dumps(
        {"evidence": dump_evidence_object(evidence), "aa_provider": provider_of(evidence)}
    ).encode()


def dump_challenge_answer(challenge: str) -> bytes:
    """The answer of `/tng/background-check/challenge`."""
    return json.dumps({"challenge_token": challenge}).encode()


def parse_challenge_answer(body: bytes) -> str:
    """The challenge token in an answer.

    Raises:
        RemoteProtocolError: there is none.
    """
    challenge = _answer_object(body).get("challenge_token")
    if not isinstance(challenge, str) or not 0 < len(challenge) <= MAX_CHALLENGE:
        raise RemoteProtocolError("the challenge answer has no usable text challenge_token")
    return challenge


def dump_token_answer(token: str, provider: str = COCO) -> bytes:
    """The answer of `/tng/background-check/verify`."""
    return json.dumps({"attestation_result": token, "as_provider": provider}).encode()


def parse_token_answer(body: bytes) -> Token:
    """The token in an answer of `/tng/background-check/verify`.

    Raises:
        RemoteProtocolError: there is none.
    """
    answer = _answer_object(body)
    provider = read_provider(answer.get("as_provider"), "as_provider")
    return parse_token_text(answer.get("attestation_result"), provider)


def _request_object(body: bytes, content_type: bytes) -> dict[str, Json]:
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise OhttpError(Problem.INVALID_REQUEST_PAYLOAD, "expected content-type application/json")
    try:
        return parse_object(body)
    except ValueError as exc:
        raise OhttpError(Problem.INVALID_REQUEST_PAYLOAD, "the body is not a JSON object") from exc


def _answer_object(body: bytes) -> dict[str, Json]:
    try:
        return parse_object(body)
    except ValueError as exc:
        raise RemoteProtocolError("the answer is not a JSON object") from exc


def _wanted(wanted: Json, *, is_cohere: bool) -> Wanted:
    if not isinstance(wanted, dict):
        raise OhttpError(Problem.INVALID_REQUEST_PAYLOAD, "attestation_request is not an object")
    match wanted.get("model"):
        case "passport":
            return Wanted("passport", is_cohere=is_cohere)
        case "background_check":
            challenge = wanted.get("challenge_token")
            if not isinstance(challenge, str) or not 0 < len(challenge) <= MAX_CHALLENGE:
                raise OhttpError(
                    Problem.INVALID_REQUEST_PAYLOAD,
                    "model background_check needs a text challenge_token",
                )
            return Wanted("background_check", challenge, is_cohere)
    raise OhttpError(Problem.INVALID_REQUEST_PAYLOAD, "expected model background_check or passport")


def _cohere_wanted(request: Json, providers: Sequence[str]) -> Wanted:
    proposals = request.get("proposals") if isinstance(request, dict) else None
    if not isinstance(proposals, list):
        raise OhttpError(Problem.INVALID_REQUEST_PAYLOAD, "attest_request has no list proposals")
    for proposal in proposals:
        if isinstance(proposal, dict) and proposal.get("provider", COCO) in providers:
            return _wanted(proposal, is_cohere=True)
    return Wanted(None, is_cohere=True, is_unservable=bool(proposals))


def _attestation_info(statement: Shown | None) -> object:
    if statement is None:
        return None
    provider = provider_of(statement)
    if isinstance(statement, Token):
        return {"model": "passport", "attestation_result": statement.text, "as_provider": provider}
    return {
        "model": "background_check",
        "evidence": dump_evidence_object(statement),
        "aa_provider": provider,
    }


def _attest_response(statement: Shown | None, wanted: Wanted) -> object:
    if statement is not None:
        provider = provider_of(statement)
        if isinstance(statement, Token):
            return {"Ok": {"passport": {"provider": provider, "token": statement.text}}}
        evidence = dump_evidence_object(statement)
        return {"Ok": {"background_check": {"provider": provider, "evidence": evidence}}}
    if wanted.is_unservable:
        return {"Err": "no_compatible_proposal"}
    return {"Err": "not_configured"} if wanted.model else _NO_ATTESTATION


def _statement(info: Json) -> Shown | None:
    if info is None:
        return None
    if not isinstance(info, dict):
        raise RemoteProtocolError("attestation_info is not an object")
    match info.get("model"):
        case "passport":
            provider = read_provider(info.get("as_provider"), "as_provider")
            return parse_token_text(info.get("attestation_result"), provider)
        case "background_check":
            provider = read_provider(info.get("aa_provider"), "aa_provider")
            return parse_evidence_object(info.get("evidence"), provider)
    raise RemoteProtocolError("attestation_info has neither model passport nor background_check")
