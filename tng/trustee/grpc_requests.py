"""Attestation requests over gRPC, both generations, as the JSON that the REST interface takes.

The octets of an `AttestationRequest` go in, the body of `POST /attestation` that says the same
comes out, so that `dialects` alone decides what a request may be.  Source: the package
`attestation` of Trustee 1.6.0 (a list) and 1.5.2 (flat); the tables below hold the numbers of
their fields.  Both call their message by one name; the first field tells them apart: the name of
a TEE is no message, and no message is the name of a TEE.

Invariant: a field that is in neither table is refused, and so are two values for one meaning.
"""

from __future__ import annotations

import json
import re
from typing import Final

from tng.attest.strict_json import Json, parse_object
from tng.errors import RemoteProtocolError
from tng.trustee.json_body import invalid
from tng.trustee.problems import ProblemCode, TrusteeRequestError
from tng.wire.protobuf import Field, parse_fields

_TEE_NAME: Final = re.compile(rb"[A-Za-z0-9_-]+")

_ALGORITHM: Final = "runtime_data_hash_algorithm"

_DEVICE: Final = {
    1: ("tee",),
    3: ("evidence",),
    4: ("runtime_data", "raw"),
    5: ("runtime_data", "structured"),
    6: ("init_data", "init_data_digest"),
    7: ("init_data", "init_data_toml"),
    8: (_ALGORITHM,),
    9: ("additional_data",),
}
"""Trustee 1.6.0, `IndividualAttestationRequest`; 9 is of Trustee 1.9."""

_FLAT: Final = {
    1: ("tee",),
    2: ("evidence",),
    3: ("runtime_data", "raw"),
    4: ("runtime_data", "structured"),
    5: ("init_data", "raw"),
    6: ("init_data", "structured"),
    7: (_ALGORITHM,),
    8: ("init_data_hash_algorithm",),
}
"""Trustee 1.5.2, `AttestationRequest`, without its list of policies."""

_REQUESTS, _POLICY_IDS, _FLAT_POLICY_IDS = 1, 2, 9


def body_of(message: bytes) -> bytes:
    """The body of `POST /attestation` for a message.

    Raises:
        TrusteeRequestError: not a message of either generation (400).
    """
    fields = _fields(message, "the message")
    first = next((value for number, value in fields if number == 1), None)
    is_flat = isinstance(first, bytes) and _TEE_NAME.fullmatch(first) is not None
    return json.dumps(_flat(fields) if is_flat else _listed(fields)).encode()


def _listed(fields: list[Field]) -> dict[str, Json]:
    requests: list[Json] = []
    policies: list[Json] = []
    for number, value in fields:
        match number, value:
            case 1, bytes():
                where = f"verification_requests[{len(requests)}]"
                requests.append(_device(_fields(value, where), _DEVICE, where))
            case 2, bytes():
                policies.append(_text(value, "policy_ids"))
            case _:
                raise _unknown(number, "the message")
    return {"verification_requests": requests, "policy_ids": policies}


def _flat(fields: list[Field]) -> dict[str, Json]:
    policies: list[Json] = [
        _text(value, "policy_ids") for number, value in fields if number == _FLAT_POLICY_IDS
    ]
    others = [field for field in fields if field[0] != _FLAT_POLICY_IDS]
    return {**_device(others, _FLAT, "the message"), "policy_ids": policies}


def _device(fields: list[Field], table: dict[int, tuple[str, ...]], where: str) -> dict[str, Json]:
    """One device; of fields that exclude each other, `dialects` refuses the second."""
    members: dict[str, Json] = {}
    for number, value in fields:
        names = table.get(number)
        if names is None:
            raise _unknown(number, where)
        if names[0] in members:
            raise invalid("expected one value, got more", f"{where}.{names[0]}")
        text = _text(value, f"{where}.{names[-1]}")
        if not text:
            continue  # proto3: an empty text is an absent one
        if names[-1] == "structured":
            members[names[0]] = {"structured": _object(text, f"{where}.{names[0]}.structured")}
        else:
            members[names[0]] = text if len(names) == 1 else {names[1]: text}
    return members


def _fields(message: bytes, where: str) -> list[Field]:
    try:
        return parse_fields(message)
    except RemoteProtocolError as exc:
        raise invalid(str(exc), where) from exc


def _text(value: int | bytes, where: str) -> str:
    if isinstance(value, int):
        raise invalid("expected text, got a number", where)
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise invalid("expected UTF-8", where) from exc


def _object(text: str, where: str) -> dict[str, Json]:
    try:
        return parse_object(text.encode())
    except ValueError as exc:
        raise invalid(f"expected a JSON object: {str(exc)[:200]}", where) from exc


def _unknown(number: int, where: str) -> TrusteeRequestError:
    return TrusteeRequestError(
        f"{where}: unknown field {number}", ProblemCode.INVALID_ARGUMENT, field=where
    )
