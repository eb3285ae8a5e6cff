"""Evidence for Intel Trust Authority, as a certificate carries it (CBOR, RFC 8949).

Payload of tag 0x17A000  <->  `ItaEvidence`: a map with text keys, written in a fixed order:

    tdx_quote bstr, nonce {val, iat, signature} (may be absent), runtime_data bstr,
    nvgpu_evidence {evidence, certificate, arch, runtime_data_hash bstr 32} (may be absent)

Source: TNG 2.12.0; what is dumped here is equal to its octets.

Invariant: parsing returns a value whose every field has been checked for type and size, or
raises `RemoteProtocolError` with `ErrorCode.EVIDENCE_MALFORMED`.  Nothing here says that the
evidence is true.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

import cbor2

from tng.errors import ErrorCode, RemoteProtocolError
from tng.wire.dice import MAX_EXTENSION, MAX_RUNTIME_DATA, decode_item

MAX_QUOTE: Final = 64 << 10
"""Octets of a TDX quote; a real one has about 5,000, QE's certificates included."""
MAX_NONCE_TEXT: Final = 2 << 10
"""Characters of one member of a nonce; the service's signature has some hundred."""
MAX_RUNTIME: Final = MAX_EXTENSION
"""Octets of runtime data: it repeats the evidence of a GPU in base64."""
GPU_NONCE_SIZE: Final = 32
"""Octets of a GPU's nonce."""
MAX_GPU_ARCH: Final = 64
"""Characters of the name of a GPU's architecture."""

_NONCE_MEMBERS: Final = ("val", "iat", "signature")


@dataclass(frozen=True, slots=True)
class ItaNonce:
    """A nonce of the service, for evidence to answer; each member is base64.

    Attributes:
        val: the nonce itself.
        iat: when it was issued, as the service writes it.
        signature: the service's, over both.

    Raises:
        RemoteProtocolError: a member that is no base64, or too long.
    """

    val: str
    iat: str
    signature: str

    def __post_init__(self) -> None:
        for name in _NONCE_MEMBERS:
            text: str = getattr(self, name)
            if not 0 < len(text) <= MAX_NONCE_TEXT:
                _fail(
                    f"nonce member {name} has {len(text)} characters, expected 1-{MAX_NONCE_TEXT}"
                )
            try:
                base64.b64decode(text, validate=True)
            except ValueError as exc:
                _fail(f"nonce member {name} is not base64", exc)

    @property
    def octets(self) -> bytes:
        """What the evidence is bound to: `val` and `iat`, decoded, one behind the other."""
        return base64.b64decode(self.val) + base64.b64decode(self.iat)


@dataclass(frozen=True, slots=True, repr=False)
class GpuEvidence:
    """Evidence of one GPU.

    Attributes:
        evidence: base64 of the hexadecimal digits of the report.
        certificate: the GPU's chain, as the driver gave it.
        arch: name of the architecture.
        nonce: what the GPU signed, 32 octets.
    """

    evidence: str
    certificate: str
    arch: str
    nonce: bytes

    def __repr__(self) -> str:
        return f"GpuEvidence(arch={self.arch!r}, evidence=<{len(self.evidence)} characters>)"


@dataclass(frozen=True, slots=True, repr=False)
class ItaEvidence:
    """Unjudged evidence for Intel Trust Authority.

    Attributes:
        tdx_quote: the quote, at most `MAX_QUOTE` octets.
        runtime_data: canonical JSON of the claims bound to the quote.
        nonce: what the evidence answers; None in a certificate.
        gpu: evidence of a GPU beside the TDX guest; None without any.
    """

    tdx_quote: bytes
    runtime_data: bytes
    nonce: ItaNonce | None = None
    gpu: GpuEvidence | None = None

    @property
    def tee_type(self) -> str:
        """Name of the TEE; there is no other for this service."""
        return "tdx"

    def __repr__(self) -> str:
        return f"ItaEvidence(tdx_quote=<{len(self.tdx_quote)} octets>, gpu={self.gpu!r})"


def parse_ita_evidence(payload: bytes) -> ItaEvidence:
    """Take the payload of `TAG_ITA_EVIDENCE` apart.

    Keys may come in any order, and unknown ones are passed over, so that a newer peer may add some.

    Raises:
        RemoteProtocolError: not a map with text keys, a key twice, a known key absent or of the
            wrong type or too large, or anything behind the map.
    """
    fields = decode_item(payload, "ITA evidence")
    if not isinstance(fields, Mapping):
        _fail(f"ITA evidence is {type(fields).__name__}, expected a map")
    gpu = fields.get("nvgpu_evidence")
    return make_ita_evidence(
        _octets(fields, "tdx_quote"),
        _octets(fields, "runtime_data"),
        parse_nonce(fields.get("nonce")),
        None if gpu is None else _gpu(gpu),
    )


def make_ita_evidence(
    quote: bytes, runtime_data: bytes, nonce: ItaNonce | None, gpu: GpuEvidence | None
) -> ItaEvidence:
    """The evidence, once its sizes have been checked.

    Raises:
        RemoteProtocolError: something is empty or too large.
    """
    if not 0 < len(quote) <= MAX_QUOTE:
        _fail(f"tdx_quote has {len(quote)} octets, expected 1 to {MAX_QUOTE}")
    # Without a GPU's evidence in them, claims are as small as in evidence of any other kind.
    limit = MAX_RUNTIME_DATA if gpu is None else MAX_RUNTIME
    if not 0 < len(runtime_data) <= limit:
        _fail(f"runtime_data has {len(runtime_data)} octets, expected 1 to {limit}")
    return ItaEvidence(quote, runtime_data, nonce, gpu)


def make_gpu_evidence(
    evidence: object, certificate: object, arch: object, nonce: object
) -> GpuEvidence:
    """The evidence of a GPU, once types and sizes have been checked.

    Raises:
        RemoteProtocolError: a member of another type, or a nonce or a name of another size.
    """
    if not isinstance(evidence, str) or not isinstance(certificate, str):
        _fail("nvgpu_evidence has no text members evidence and certificate")
    if not isinstance(arch, str) or not 0 < len(arch) <= MAX_GPU_ARCH:
        _fail(f"nvgpu_evidence has no text member arch of 1 to {MAX_GPU_ARCH} characters")
    if not isinstance(nonce, bytes) or len(nonce) != GPU_NONCE_SIZE:
        _fail(f"nvgpu_evidence has no runtime_data_hash of {GPU_NONCE_SIZE} octets")
    return GpuEvidence(evidence, certificate, arch, nonce)


def parse_nonce(value: object) -> ItaNonce | None:
    """The nonce in a map or a JSON object; None where there is none.

    Raises:
        RemoteProtocolError: no map with three members of base64.
    """
    if value is None:
        return None
    members = [value.get(name) for name in _NONCE_MEMBERS] if isinstance(value, Mapping) else []
    texts = [member for member in members if isinstance(member, str)]
    if len(texts) != len(_NONCE_MEMBERS):
        _fail(f"nonce is no object with the text members {', '.join(_NONCE_MEMBERS)}")
    return ItaNonce(*texts)


def dump_nonce(nonce: ItaNonce) -> dict[str, str]:
    """The members of a nonce, in the reference's order."""
    return {"val": nonce.val, "iat": nonce.iat, "signature": nonce.signature}


def dump_ita_evidence(evidence: ItaEvidence) -> bytes:
    """The payload of `TAG_ITA_EVIDENCE`, keys in the reference's order."""
    fields: dict[str, object] = {"tdx_quote": evidence.tdx_quote}
    if evidence.nonce is not None:
        fields["nonce"] = dump_nonce(evidence.nonce)
    fields["runtime_data"] = evidence.runtime_data
    if (gpu := evidence.gpu) is not None:
        fields["nvgpu_evidence"] = {
            "evidence": gpu.evidence,
            "certificate": gpu.certificate,
            "arch": gpu.arch,
            "runtime_data_hash": gpu.nonce,
        }
    return cbor2.dumps(fields)


def _gpu(fields: object) -> GpuEvidence:
    if not isinstance(fields, Mapping):
        _fail(f"nvgpu_evidence is {type(fields).__name__}, expected a map")
    names = ("evidence", "certificate", "arch", "runtime_data_hash")
    return make_gpu_evidence(*(fields.get(name) for name in names))


def _octets(fields: Mapping[object, object], key: str) -> bytes:
    value = fields.get(key)
    if not isinstance(value, bytes):
        seen = "absent or null" if value is None else type(value).__name__
        _fail(f"{key} is {seen}, expected a byte string")
    return value


def _fail(message: str, cause: Exception | None = None) -> NoReturn:
    raise RemoteProtocolError(message, code=ErrorCode.EVIDENCE_MALFORMED) from cause
