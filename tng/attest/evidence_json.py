"""Evidence and tokens as OHTTP's control messages carry them: members of a JSON object.

For Trustee (for Intel Trust Authority: `attest.ita_json`):

    {"aa_tee_type": text, "aa_evidence": base64, "aa_additional_evidence": base64 (may be absent),
     "aa_runtime_data": text with JSON in it, "aa_runtime_data_hash_algo": "sha384"}

A parsed JSON value and its provider in, evidence or a token out, and back.  Base64 is padded, of
the standard alphabet.  Source: TNG 2.12.0, over OHTTP.  Stricter on purpose: base64 has one
spelling.

Invariant: parsing returns a value whose every field has been checked for type and size, or
raises `RemoteProtocolError` with `ErrorCode.EVIDENCE_MALFORMED`.  Nothing is judged here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from tng.attest.base64_text import decode_standard, dump_standard
from tng.attest.evidence import COCO, ITA, PROVIDERS, Evidence, Token, make_token
from tng.attest.ita_json import dump_ita_object, parse_ita_object
from tng.attest.jws import MAX_TOKEN
from tng.errors import ErrorCode, RemoteProtocolError
from tng.wire.dice import (
    MAX_EXTENSION,
    MAX_RUNTIME_DATA,
    TEE_TYPES,
    CocoEvidence,
    HashAlgorithm,
)

if TYPE_CHECKING:
    from tng.attest.strict_json import Json

_TEE: Final = "aa_tee_type"
_EVIDENCE: Final = "aa_evidence"
_ADDITIONAL: Final = "aa_additional_evidence"
_RUNTIME_DATA: Final = "aa_runtime_data"
_ALGORITHM: Final = "aa_runtime_data_hash_algo"
_ALGORITHMS: Final = {algorithm.name.lower(): algorithm for algorithm in HashAlgorithm}
_MAX_BASE64: Final = (MAX_EXTENSION + 2) // 3 * 4  # as much as a certificate's extension may hold


def parse_evidence_object(value: Json, provider: str = COCO) -> Evidence:
    """The evidence in an object; members may come in any order, unknown ones are passed over.

    Args:
        value: the object.
        provider: as `read_provider` returned it.

    Raises:
        RemoteProtocolError: no object, a known member absent, too large or of another form, an
            unknown TEE or hash algorithm.
    """
    if not isinstance(value, dict):
        _refuse(f"evidence is {_kind(value)}, expected an object")
    return parse_ita_object(value) if provider == ITA else _coco_evidence(value)


def _coco_evidence(value: dict[str, Json]) -> CocoEvidence:
    tee = _text(value, _TEE)
    if tee not in TEE_TYPES:
        _refuse(f"{_TEE} is {tee[:32]!r}, expected one of {', '.join(sorted(TEE_TYPES))}")
    runtime_data = _text(value, _RUNTIME_DATA)
    if len(runtime_data.encode("utf-8", "surrogatepass")) > MAX_RUNTIME_DATA:
        _refuse(f"{_RUNTIME_DATA} is longer than {MAX_RUNTIME_DATA} octets")
    algorithm = _text(value, _ALGORITHM)
    if algorithm not in _ALGORITHMS:
        _refuse(f"{_ALGORITHM} is {algorithm[:32]!r}, expected one of {', '.join(_ALGORITHMS)}")
    additional = None if value.get(_ADDITIONAL) is None else _octets(value, _ADDITIONAL)
    return CocoEvidence(
        tee, _octets(value, _EVIDENCE), additional, runtime_data, _ALGORITHMS[algorithm]
    )


def dump_evidence_object(evidence: Evidence) -> dict[str, Json]:
    """The object that carries the evidence, members in the reference's order."""
    if not isinstance(evidence, CocoEvidence):
        return dump_ita_object(evidence)
    members: dict[str, Json] = {_TEE: evidence.tee_type}
    members[_EVIDENCE] = dump_standard(evidence.aa_evidence)
    if evidence.aa_additional_evidence is not None:
        members[_ADDITIONAL] = dump_standard(evidence.aa_additional_evidence)
    members[_RUNTIME_DATA] = evidence.aa_runtime_data
    members[_ALGORITHM] = evidence.hash_algorithm.name.lower()
    return members


def parse_token_text(value: Json, provider: str = COCO) -> Token:
    """The token in a member `attestation_result`, of a control message or of a request.

    Args:
        value: the text.
        provider: as `read_provider` returned it.

    Raises:
        RemoteProtocolError: no text, an empty one, one that is too long or not ASCII.
    """
    if not isinstance(value, str):
        _refuse(f"attestation_result is {_kind(value)}, expected text")
    if not 0 < len(value) <= MAX_TOKEN or not value.isascii():
        _refuse(
            f"attestation_result has {len(value)} characters, expected 1 to {MAX_TOKEN} of ASCII"
        )
    return make_token(value, provider)


def read_provider(provider: Json, member: str) -> str:
    """One of `PROVIDERS`; absent, null and "" mean CoCo.

    Args:
        provider: value of the member.
        member: `as_provider` or `aa_provider`; for the error.

    Raises:
        RemoteProtocolError: any other provider.
    """
    if provider is None or provider == "":
        return COCO
    if not isinstance(provider, str) or provider not in PROVIDERS:
        seen = repr(provider[:32]) if isinstance(provider, str) else _kind(provider)
        _refuse(f"{member} is {seen}, expected {COCO!r} or {ITA!r}")
    return provider


def _text(members: dict[str, Json], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        _refuse(f"{name} is {_kind(value)}, expected text")
    return value


def _octets(members: dict[str, Json], name: str) -> bytes:
    text = _text(members, name)
    if len(text) > _MAX_BASE64:
        _refuse(f"{name} has {len(text)} characters, at most {_MAX_BASE64} are allowed")
    try:
        return decode_standard(text)
    except ValueError as exc:
        _refuse(f"{name} is {exc}", exc)


def _kind(value: object) -> str:
    return "absent or null" if value is None else f"of type {type(value).__name__}"


def _refuse(message: str, cause: Exception | None = None) -> NoReturn:
    raise RemoteProtocolError(message, code=ErrorCode.EVIDENCE_MALFORMED) from cause
