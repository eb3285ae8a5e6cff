"""The claim `signer_transparency`: the token's signing certificate stands in a public log.

In: the claim, the signing certificate of the token it came in, the keys of trusted logs.  Out:
where it was found, in words; or a ValueError.  What is proved, all of it offline:

    1  the claim's payload names the certificate (SHA-256 of its DER)
    2  the evidence in the payload is over that name
    3  the log has an entry (`transparency_log`) of kind DSSE
    4  the entry holds the hash of the payload
    5  the certificate's key has signed the payload (DSSE), by the entry's own record

Source: Trustee's `trustee.as.signer-transparency/v1`; DSSE version 1; Rekor v2.  The evidence in
the payload is not appraised here: that anybody can do who finds it in the log.

Invariant: a return means that this very certificate was made public before it was trusted here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tng.attest.base64_text import decode_base64, decode_standard, dump_standard
from tng.attest.strict_json import parse_object
from tng.attest.transparency_log import prove_entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from tng.attest.strict_json import Json

CLAIM: Final = "signer_transparency"
"""Name of the claim."""
SCHEMA: Final = "trustee.as.signer-transparency/v1"
"""Version of the claim that is known here."""
PAYLOAD_SCHEMA: Final = "trustee.as.signer-binding/v1"
"""Version of its payload that is known here."""
MEDIA_TYPE: Final = "application/vnd.trustee.as.signer-binding+json"
"""What the payload is called where it is signed."""
MAX_SIGNATURES: Final = 8
"""Signatures in one entry; Trustee makes one."""

_ENTRY: Final = ("dsse", "0.0.2")
_QUOTE_REPORT_DATA: Final = slice(568, 632)  # 48 octets of header, 520 of the body before it
_ORDERS: Final[dict[str, tuple[str, ...]]] = {
    "": ("schema_version", "generated_at", "signer_certificate", "evidence_binding"),
    "signer_certificate": ("path", "pem", "der_sha256", "not_after"),
    "evidence_binding": (
        "api_server_url",
        "report_data",
        "report_data_algorithm",
        "runtime_data_encoding",
        "evidence",
    ),
}


def check_signer_transparency(
    claim: Json, signer: x509.Certificate, logs: Mapping[str, Ed25519PublicKey]
) -> str:
    """Return, in words, where the signer was found.

    Args:
        claim: value of the claim, from a token whose signature was verified.
        signer: the certificate whose key signed that token.
        logs: keys of trusted logs by their origins.

    Raises:
        ValueError: it was not found, or something about the claim is wrong.
    """
    members = _object(claim, CLAIM)
    if members.get("schema_version") != SCHEMA:
        raise ValueError(f"schema_version is {members.get('schema_version')!r:.80}, not {SCHEMA!r}")
    payload = _object(members.get("payload"), "payload")
    if payload.get("schema_version") != PAYLOAD_SCHEMA:
        raise ValueError(f"the payload's schema_version is not {PAYLOAD_SCHEMA!r}")
    _check_names(payload, signer)
    rekor = _object(members.get("rekor"), "rekor")
    entry = _object(rekor.get("rekorEntryV2"), "rekorEntryV2")
    body = parse_object(prove_entry(entry, logs))
    spec = _dsse(body)
    octets = _logged_octets(payload, spec)
    _check_signature(spec, octets, signer)
    return f"entry {entry.get('logIndex')!r:.24} of the log, made public {_when(payload)}"


def payload_spellings(payload: dict[str, Json]) -> Iterator[bytes]:
    """The octets that the payload may have had when it was signed.

    A token repeats its members, not its spelling; the hash in the log tells which one it was.
    """
    for value in (_in_order(payload), payload):
        yield (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
        yield json.dumps(value, indent=2, ensure_ascii=False).encode()
        yield json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _check_names(payload: dict[str, Json], signer: x509.Certificate) -> None:
    name = hashlib.sha256(signer.public_bytes(Encoding.DER)).hexdigest()
    certificate = _object(payload.get("signer_certificate"), "signer_certificate")
    if not _same(certificate.get("der_sha256"), name):
        raise ValueError("der_sha256 is not that of the certificate that signed the token")
    binding = _object(payload.get("evidence_binding"), "evidence_binding")
    if not _same(binding.get("report_data"), name):
        raise ValueError("report_data of the binding is not the name of the certificate")
    if not hmac.compare_digest(_report_data(binding).rstrip(b"\0"), name.encode()):
        raise ValueError("the evidence is over something else than the name of the certificate")


def _report_data(binding: dict[str, Json]) -> bytes:
    """What the TEE was given: the sample kind says it, a TDX quote has it at a fixed place."""
    evidence = _object(binding.get("evidence"), "evidence")
    said, quote = evidence.get("report_data"), evidence.get("quote")
    if isinstance(said, str):
        return decode_base64(said)
    if isinstance(quote, str):
        return decode_base64(quote)[_QUOTE_REPORT_DATA]
    raise ValueError("the evidence has neither report_data nor a quote")


def _dsse(body: dict[str, Json]) -> dict[str, Json]:
    if (body.get("kind"), body.get("apiVersion")) != _ENTRY:
        raise ValueError(f"the log's entry is not of kind {' '.join(_ENTRY)}")
    return _object(_object(body.get("spec"), "spec").get("dsseV002"), "dsseV002")


def _logged_octets(payload: dict[str, Json], spec: dict[str, Json]) -> bytes:
    logged = _object(spec.get("payloadHash"), "payloadHash")
    if logged.get("algorithm") != "SHA2_256":
        raise ValueError("the entry's hash is not SHA2_256")
    for octets in payload_spellings(payload):
        if _same(logged.get("digest"), dump_standard(hashlib.sha256(octets).digest())):
            return octets
    raise ValueError("the entry is about another payload than the one in the token")


def _check_signature(spec: dict[str, Json], payload: bytes, signer: x509.Certificate) -> None:
    key = signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the signing certificate is not for a key on P-256")  # noqa: TRY004
    spki = base64.b64encode(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).decode()
    signatures = spec.get("signatures")
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise ValueError(f"the entry has no list of 1 to {MAX_SIGNATURES} signatures")
    for signature in signatures:
        if not isinstance(signature, dict) or _verifier_key(signature) != spki:
            continue
        content = signature.get("content")
        if not isinstance(content, str):
            continue
        try:
            key.verify(decode_standard(content), encode_dsse(payload), ec.ECDSA(hashes.SHA256()))
        except (ValueError, InvalidSignature) as exc:
            raise ValueError("the signature over the payload does not verify") from exc
        return
    raise ValueError("the entry has no signature by the key that signed the token")


def encode_dsse(payload: bytes) -> bytes:
    """What is signed of a payload (DSSE version 1, pre-authentication encoding)."""
    kind = MEDIA_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _verifier_key(signature: dict[str, Json]) -> Json:
    verifier = signature.get("verifier")
    key = verifier.get("publicKey") if isinstance(verifier, dict) else None
    return key.get("rawBytes") if isinstance(key, dict) else None


def _in_order(payload: dict[str, Json]) -> dict[str, Json]:
    """The payload with its members as Trustee writes them."""
    ordered = _sort(payload, _ORDERS[""])
    for name, value in ordered.items():
        if name in _ORDERS and isinstance(value, dict):
            ordered[name] = _sort(value, _ORDERS[name])
    return ordered


def _sort(members: dict[str, Json], names: tuple[str, ...]) -> dict[str, Json]:
    """Known members first; others, which newer services may have, behind them."""
    known = {name: members[name] for name in names if name in members}
    return {**known, **members}


def _object(value: Json, name: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is missing or no object")  # noqa: TRY004
    return value


def _same(value: Json, wanted: str) -> bool:
    text = value if isinstance(value, str) else ""
    return hmac.compare_digest(text.encode("utf-8", "surrogatepass"), wanted.encode())


def _when(payload: dict[str, Json]) -> str:
    at = payload.get("generated_at")
    return repr(at)[:40] if isinstance(at, str) else "at an unknown time"
