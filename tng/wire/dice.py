"""The evidence extension of a certificate, and the CoCo evidence inside it (CBOR, RFC 8949).

Extension value, TCG DICE tagged evidence (OID 2.23.133.5.4.9)  <->  `DiceEvidence`:

    tag(T) [ bstr payload, bstr claims ]        the claims are always empty

Payload of tag 0xC0C000  <->  `CocoEvidence`: a map with text keys, written in a fixed order.
The layout is that of the reference (2.12.0); what is dumped here is equal to it octet for octet.

Invariant: parsing returns a value whose every field has been checked for type and size, or
raises `RemoteProtocolError` with `ErrorCode.EVIDENCE_MALFORMED`.  Nothing here says that the
evidence is true.
"""

from __future__ import annotations

import enum
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

import cbor2

from tng.errors import ErrorCode, LocalProtocolError, RemoteProtocolError

TAG_COCO_EVIDENCE: Final = 0x00C0C000
"""Payload: CoCo evidence, a CBOR map."""
TAG_COCO_TOKEN: Final = 0x00C0C001
"""Payload: a token of a CoCo attestation service, a JWT as ASCII."""
TAG_ITA_EVIDENCE: Final = 0x0017A000
"""Payload: evidence for Intel Trust Authority, a CBOR map."""
TAG_ITA_TOKEN: Final = 0x0017A001
"""Payload: a token of Intel Trust Authority, a JWT as ASCII."""

MAX_EXTENSION: Final = 4 << 20
"""Octets of an extension: the largest answer an attestation agent can give (one ttrpc frame)."""
MAX_RUNTIME_DATA: Final = 64 << 10
"""Octets of runtime data: the claim for a key needs 66; GPU claims some ten thousand."""
_MAX_DEPTH: Final = 8  # tag and array, or map and unknown value: 2; the rest is room for new fields

TEE_TYPES: Final = frozenset(
    {
        "aztdxvtpm",
        "azsnpvtpm",
        "cca",
        "csv",
        "hygondcu",
        "nvidia",
        "sample",
        "sampledevice",
        "se",
        "sev",
        "sgx",
        "snp",
        "system",
        "tdx",
        "tpm",
    }
)
"""Names of TEEs that the reference's parser knows."""


class HashAlgorithm(enum.IntEnum):
    """Hash over the runtime data, by its IANA named-information identifier."""

    SHA256 = 1
    SHA384 = 7
    SHA512 = 8


@dataclass(frozen=True, slots=True)
class DiceEvidence:
    """What the extension carries.

    Attributes:
        tag: CBOR tag; says what the payload is, and for whom.
        payload: its octets.
    """

    tag: int
    payload: bytes


@dataclass(frozen=True, slots=True, repr=False)
class CocoEvidence:
    """Unjudged evidence for a CoCo attestation service.

    Attributes:
        tee_type: one of `TEE_TYPES`.
        aa_evidence: what the attester returned, usually JSON.
        aa_additional_evidence: JSON object from the names of further devices to their evidence;
            None without any.
        aa_runtime_data: JSON object of the claims bound to the evidence.
        hash_algorithm: hash over the canonical form of the runtime data.
    """

    tee_type: str
    aa_evidence: bytes
    aa_additional_evidence: bytes | None
    aa_runtime_data: str
    hash_algorithm: HashAlgorithm = HashAlgorithm.SHA384

    def __repr__(self) -> str:
        size = len(self.aa_evidence)
        return f"CocoEvidence(tee_type={self.tee_type!r}, aa_evidence=<{size} octets>)"


def parse_dice(data: bytes) -> DiceEvidence:
    """Take an extension value apart.

    Args:
        data: the content of the extension's OCTET STRING.

    Raises:
        RemoteProtocolError: not `tag [bstr, bstr]`, anything behind it, an indefinite length,
            claims that are not empty, or more than `MAX_EXTENSION` octets.
    """
    item = decode_item(data, "evidence extension")
    if not isinstance(item, cbor2.CBORTag):
        _fail(f"evidence extension is {_kind(item)}, expected a tagged array")
    value = item.value
    if not isinstance(value, list | tuple) or len(value) != 2:
        _fail(f"evidence extension holds {_kind(value)}, expected an array of 2")
    payload, claims = value
    if not isinstance(payload, bytes) or not isinstance(claims, bytes):
        _fail(
            f"evidence extension holds [{_kind(payload)}, {_kind(claims)}], expected byte strings"
        )
    if claims:
        # Stricter on purpose: nothing is let in that nobody judges.
        _fail(
            f"evidence extension has a claims buffer of {len(claims)} octets, expected an empty one"
        )
    return DiceEvidence(item.tag, payload)


def dump_dice(evidence: DiceEvidence) -> bytes:
    """The extension value; the tag is written in four octets, as the reference does.

    Raises:
        LocalProtocolError: a tag that four octets do not hold.
    """
    if not 0x10000 <= evidence.tag <= 0xFFFFFFFF:
        raise LocalProtocolError(f"tag {evidence.tag:#x} is not written in four octets")
    return cbor2.dumps(cbor2.CBORTag(evidence.tag, [evidence.payload, b""]))


def parse_coco_evidence(payload: bytes) -> CocoEvidence:
    """Take the payload of `TAG_COCO_EVIDENCE` apart.

    Keys may come in any order, and unknown ones are passed over, so that a newer peer may add some.

    Raises:
        RemoteProtocolError: not a map with text keys, a key twice, a known key absent or of the
            wrong type, an unknown TEE or hash algorithm, or anything behind the map.
    """
    fields = decode_item(payload, "CoCo evidence")
    if not isinstance(fields, Mapping):
        _fail(f"CoCo evidence is {_kind(fields)}, expected a map")
    tee_type = _text(fields, "tee_type")
    if tee_type not in TEE_TYPES:
        _fail(f"tee_type is {tee_type[:32]!r}, expected one of {', '.join(sorted(TEE_TYPES))}")
    runtime_data = _text(fields, "aa_runtime_data")
    if len(runtime_data.encode()) > MAX_RUNTIME_DATA:
        _fail(f"aa_runtime_data is longer than {MAX_RUNTIME_DATA} octets")
    # Stricter on purpose: one spelling of a byte string, not also an array of integers.
    evidence = fields.get("aa_evidence")
    if not isinstance(evidence, bytes):
        _fail(f"aa_evidence is {_kind(evidence)}, expected a byte string")
    additional = fields.get("aa_additional_evidence")
    if additional is not None and not isinstance(additional, bytes):
        _fail(f"aa_additional_evidence is {_kind(additional)}, expected a byte string or null")
    algorithm = _hash_algorithm(fields.get("aa_runtime_data_hash_algo"))
    return CocoEvidence(tee_type, evidence, additional, runtime_data, algorithm)


def dump_coco_evidence(evidence: CocoEvidence) -> bytes:
    """The payload of `TAG_COCO_EVIDENCE`, keys in the reference's order."""
    return cbor2.dumps(
        {
            "tee_type": evidence.tee_type,
            "aa_evidence": evidence.aa_evidence,
            "aa_additional_evidence": evidence.aa_additional_evidence,
            "aa_runtime_data": evidence.aa_runtime_data,
            "aa_runtime_data_hash_algo": int(evidence.hash_algorithm),
        }
    )


# -- CBOR, without what evidence never needs -------------------------------------


def _refuse_tag(*_: object, **__: object) -> NoReturn:
    raise ValueError("a tag inside evidence")


# cbor2 turns registered tags into dates, big numbers, patterns, shared references.  Evidence has
# none of these, so each of them ends the parse instead of running its decoder.
_NO_TAGS: Final = dict.fromkeys((*range(1100), 43000, 55799), _refuse_tag)


def decode_item(data: bytes, what: str) -> object:
    """The one CBOR item in `data`: of definite length, without tags inside, nothing behind it.

    Args:
        data: at most `MAX_EXTENSION` octets.
        what: what people call it; for the error.

    Raises:
        RemoteProtocolError: it is none.
    """
    if len(data) > MAX_EXTENSION:
        _fail(f"{what} is {len(data)} octets long, the limit is {MAX_EXTENSION}")
    stream = io.BytesIO(data)
    # Stricter on purpose: no indefinite lengths, and nothing behind the item.
    decoder = cbor2.CBORDecoder(
        stream,
        semantic_decoders=_NO_TAGS,
        max_depth=_MAX_DEPTH,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )
    try:
        item: object = decoder.decode()
    except (cbor2.CBORDecodeError, ValueError) as exc:
        raise RemoteProtocolError(
            f"{what} is not one definite CBOR item: {exc}", code=ErrorCode.EVIDENCE_MALFORMED
        ) from exc
    if trailing := len(data) - stream.tell():
        _fail(f"{what} is followed by {trailing} octets, expected none")
    return item


def _text(fields: Mapping[object, object], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        _fail(f"{key} is {_kind(value)}, expected text")
    return value


def _hash_algorithm(value: object) -> HashAlgorithm:
    if type(value) is not int or value not in HashAlgorithm.__members__.values():
        seen = value if type(value) is int and abs(value) < 1 << 32 else _kind(value)
        _fail(f"aa_runtime_data_hash_algo is {seen}, expected 1, 7 or 8")
    return HashAlgorithm(value)


def _kind(value: object) -> str:
    match value:
        case None:
            return "absent or null"
        case bytes():
            return "a byte string"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case list() | tuple():
            return f"an array of {len(value)}"
        case Mapping():
            return f"a map of {len(value)}"
    return "of another type"


def _fail(message: str) -> NoReturn:
    raise RemoteProtocolError(message, code=ErrorCode.EVIDENCE_MALFORMED)
