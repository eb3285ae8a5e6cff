"""Evidence for Intel Trust Authority as OHTTP's control messages carry it, and the nonce as text.

    {"tdx_quote": base64, "nonce": {"val", "iat", "signature"} (may be absent),
     "runtime_data": base64, "nvgpu_evidence": {"evidence", "certificate", "arch",
     "runtime_data_hash": 64 hexadecimal digits} (may be absent)}

A parsed JSON value in, `ItaEvidence` out, and back.  A nonce's text is the challenge of this
provider: what `challenge_token` holds.  Source: TNG 2.12.0, over OHTTP.

Invariant: parsing returns a value whose every field has been checked for type and size, or
raises `RemoteProtocolError` with `ErrorCode.EVIDENCE_MALFORMED`.  Nothing is judged here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NoReturn

from tng.attest.base64_text import decode_standard, dump_standard
from tng.attest.strict_json import parse_object
from tng.errors import ErrorCode, RemoteProtocolError
from tng.wire.ita_evidence import (
    GPU_NONCE_SIZE,
    MAX_RUNTIME,
    GpuEvidence,
    ItaEvidence,
    ItaNonce,
    dump_nonce,
    make_gpu_evidence,
    make_ita_evidence,
    parse_nonce,
)

if TYPE_CHECKING:
    from tng.attest.strict_json import Json

MAX_NONCE_JSON: Final = 8 * 1024
"""Characters of a nonce's text; as much as any challenge may have."""

_MAX_BASE64: Final = (MAX_RUNTIME + 2) // 3 * 4


def parse_ita_object(value: Json) -> ItaEvidence:
    """The evidence in an object; members may come in any order, unknown ones are passed over.

    Raises:
        RemoteProtocolError: no object, or a known member absent, too large or of another form.
    """
    if not isinstance(value, dict):
        _refuse(f"evidence is of type {type(value).__name__}, expected an object")
    gpu = value.get("nvgpu_evidence")
    return make_ita_evidence(
        _octets(value, "tdx_quote"),
        _octets(value, "runtime_data"),
        parse_nonce(value.get("nonce")),
        None if gpu is None else _gpu(gpu),
    )


def dump_ita_object(evidence: ItaEvidence) -> dict[str, Json]:
    """The object that carries the evidence, members in the reference's order."""
    members: dict[str, Json] = {"tdx_quote": dump_standard(evidence.tdx_quote)}
    if evidence.nonce is not None:
        members["nonce"] = {**dump_nonce(evidence.nonce)}
    members["runtime_data"] = dump_standard(evidence.runtime_data)
    if (gpu := evidence.gpu) is not None:
        members["nvgpu_evidence"] = {
            "evidence": gpu.evidence,
            "certificate": gpu.certificate,
            "arch": gpu.arch,
            "runtime_data_hash": gpu.nonce.hex(),
        }
    return members


def parse_nonce_text(text: str) -> ItaNonce:
    """The nonce in a `challenge_token`.

    Raises:
        RemoteProtocolError: no JSON object with the members of a nonce.
    """
    if len(text) > MAX_NONCE_JSON:
        _refuse(f"nonce has {len(text)} characters, at most {MAX_NONCE_JSON} are allowed")
    try:
        nonce = parse_nonce(parse_object(text.encode("utf-8", "surrogatepass")))
    except ValueError as exc:
        _refuse(f"challenge_token is no nonce of Intel Trust Authority: {exc}", exc)
    assert nonce is not None  # an object was given
    return nonce


def dump_nonce_text(nonce: ItaNonce) -> str:
    """The one spelling of a nonce as a `challenge_token`."""
    return json.dumps(dump_nonce(nonce), separators=(",", ":"))


def _gpu(members: Json) -> GpuEvidence:
    if not isinstance(members, dict):
        _refuse(f"nvgpu_evidence is of type {type(members).__name__}, expected an object")
    digits = members.get("runtime_data_hash")
    try:
        nonce = bytes.fromhex(digits) if isinstance(digits, str) else b""
    except ValueError as exc:
        _refuse("runtime_data_hash is not hexadecimal", exc)
    if not isinstance(digits, str) or len(digits) != 2 * GPU_NONCE_SIZE:
        _refuse(f"runtime_data_hash has no {2 * GPU_NONCE_SIZE} digits")
    return make_gpu_evidence(
        members.get("evidence"), members.get("certificate"), members.get("arch"), nonce
    )


def _octets(members: dict[str, Json], name: str) -> bytes:
    text = members.get(name)
    if not isinstance(text, str) or len(text) > _MAX_BASE64:
        _refuse(f"{name} is no text of at most {_MAX_BASE64} characters")
    try:
        return decode_standard(text)
    except ValueError as exc:
        _refuse(f"{name} is {exc}", exc)


def _refuse(message: str, cause: Exception | None = None) -> NoReturn:
    raise RemoteProtocolError(message, code=ErrorCode.EVIDENCE_MALFORMED) from cause
