"""Messages of Trustee's gRPC interface, both generations, without any transport.

Evidence in, the octets of an `AttestationRequest` out; the octets of answers in, a token or a
challenge out.  Source: the package `attestation` of Trustee 1.6.0 (a list of verification
requests) and of Trustee 1.5.2 (one flat request); field numbers are in the tables below.

Invariant: both messages say the same as the REST bodies in `trustee_messages`, and whatever a
service answers, reading it gives a value or an `AppraiserError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tng.attest.appraiser.trustee_messages import (
    dump_json,
    flat_request,
    parse_challenge_answer,
    parse_token_answer,
    verification_requests,
)
from tng.errors import AppraiserError, ErrorCode, RemoteProtocolError
from tng.wire.protobuf import dump_fields, last_text, parse_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tng.attest.strict_json import Json
    from tng.wire.dice import CocoEvidence
    from tng.wire.protobuf import Field

SERVICE: Final = "attestation.AttestationService"
"""The service's full name; methods are `/<service>/<method>`."""

EVALUATE: Final = f"/{SERVICE}/AttestationEvaluate"
CHALLENGE: Final = f"/{SERVICE}/GetAttestationChallenge"
STATUS: Final = f"/{SERVICE}/GetAttestationServiceStatus"

EMPTY: Final = b""
"""A message without fields: the question for a challenge that fits every TEE, or for a status."""

PROBLEM_KEY: Final = "tng-problem-bin"
"""Trailing metadata in which this project's own service repeats the problem document of its REST
interface: `tng_code` and `checks`."""

# Numbers of the fields, Trustee 1.6.0: IndividualAttestationRequest, then AttestationRequest.
_TEE, _EVIDENCE, _STRUCTURED, _ALGORITHM = 1, 3, 5, 8
_REQUESTS, _POLICY_IDS = 1, 2
# Numbers of the fields, Trustee 1.5.2: AttestationRequest.
_FLAT_TEE, _FLAT_EVIDENCE, _FLAT_STRUCTURED, _FLAT_ALGORITHM, _FLAT_POLICY_IDS = 1, 2, 4, 7, 9
_ANSWER: Final = 1  # attestation_token, attestation_challenge


def list_message(evidence: CocoEvidence, policy_ids: Sequence[str]) -> bytes:
    """The request of Trustee 1.6.0 and later: a list, the CPU's evidence first.

    Raises:
        UntrustedPeerError: runtime data or additional evidence is not a JSON object.
    """
    numbers = (_TEE, _EVIDENCE, _STRUCTURED, _ALGORITHM)
    fields: list[Field] = [
        (_REQUESTS, dump_fields(_request(item, numbers)))
        for item in verification_requests(evidence)
    ]
    return dump_fields([*fields, *((_POLICY_IDS, policy.encode()) for policy in policy_ids)])


def flat_message(evidence: CocoEvidence, policy_ids: Sequence[str]) -> bytes:
    """The request of Trustee 1.5.2, which takes one device.

    Raises:
        UntrustedPeerError: runtime data or additional evidence is not a JSON object.
        AppraiserError: there are further devices, which would go unjudged.
    """
    numbers = (_FLAT_TEE, _FLAT_EVIDENCE, _FLAT_STRUCTURED, _FLAT_ALGORITHM)
    fields = _request(flat_request(evidence), numbers)
    return dump_fields([*fields, *((_FLAT_POLICY_IDS, policy.encode()) for policy in policy_ids)])


def parse_token_message(data: bytes) -> str:
    """The token in an `AttestationResponse`.

    Raises:
        AppraiserError: the answer is something else.
    """
    return parse_token_answer(_text(data))


def parse_challenge_message(data: bytes) -> str:
    """The challenge, a JWT, in a `ChallengeResponse`, whose text is the body of the REST answer.

    Raises:
        AppraiserError: the answer is something else.
    """
    return parse_challenge_answer(_text(data))


def _request(item: dict[str, Json], numbers: tuple[int, int, int, int]) -> list[Field]:
    """One device, from the form that REST has; members that are null stay away."""
    tee, evidence, structured, algorithm = numbers
    fields: list[Field] = [(tee, str(item["tee"]).encode())]
    fields.append((evidence, str(item["evidence"]).encode()))
    runtime_data = item["runtime_data"]
    if isinstance(runtime_data, dict):
        fields.append((structured, dump_json(runtime_data["structured"])))
        fields.append((algorithm, str(item["runtime_data_hash_algorithm"]).encode()))
    return fields


def _text(data: bytes) -> bytes:
    try:
        return last_text(parse_fields(data), _ANSWER).encode()
    except RemoteProtocolError as exc:
        raise AppraiserError(
            f"expected a message with a text in field {_ANSWER}: {exc}",
            code=ErrorCode.AS_REJECTED,
        ) from exc
