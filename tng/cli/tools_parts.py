"""What a peer showed, taken apart into files for people to read; nothing is judged.

A certificate, evidence, a token or a key configuration list in; file names and contents out.
Source: names and JSON of `tng tools ohttp dump` of TNG 2.12; those of certificates are our own.

Invariant: of evidence and tokens, a part that cannot be read is left out and stops nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Final, TypeAlias

from tng.attest.base64_text import decode_base64
from tng.attest.certificate import EVIDENCE_OID
from tng.attest.evidence import Evidence, Shown, Token, parse_evidence, provider_of, runtime_data_of
from tng.attest.strict_json import Json, parse_json, parse_object
from tng.cli.output_files import pretty
from tng.errors import RemoteProtocolError, UntrustedPeerError
from tng.wire.dice import CocoEvidence
from tng.wire.ohttp_keys import parse_key_config_list

if TYPE_CHECKING:
    from cryptography import x509

    from tng.attest.user_data import ServerUserData

Parts: TypeAlias = dict[str, bytes | str]
"""Contents by file name."""

TOKEN_FILE: Final = "attestation_result.jwt"  # noqa: S105 - not a password
"""Name of the file with a token."""

_CLAIMS_FILE: Final = "attestation_result.claims.json"
_KDFS: Final = {1: "HkdfSha256", 2: "HkdfSha384", 3: "HkdfSha512"}
_AEADS: Final = {1: "Aes128Gcm", 2: "Aes256Gcm", 3: "ChaCha20Poly1305"}


def certificate_parts(der: bytes) -> Parts:
    """`cert.json` and what vouches for the key in a certificate.

    Raises:
        RemoteProtocolError: not a certificate.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        certificate = x509.load_der_x509_certificate(der)
        spki = certificate.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        summary: dict[str, Json] = {
            "sha256": hashlib.sha256(der).hexdigest(),
            "key_sha256": hashlib.sha256(spki).hexdigest(),
            "subject": certificate.subject.rfc4514_string(),
            "not_before": certificate.not_valid_before_utc.isoformat(),
            "not_after": certificate.not_valid_after_utc.isoformat(),
        }
        extension = _extension(certificate)
    except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm) as exc:
        raise RemoteProtocolError(f"what the peer showed is no certificate: {exc}") from exc
    summary["shown"] = None
    parts: Parts = {}
    if extension is not None:
        try:
            shown = parse_evidence(extension)
        except UntrustedPeerError as exc:
            summary["shown"] = {"unreadable": str(exc)}
        else:
            summary["shown"] = _summary(shown)
            parts = shown_parts(shown)
    return {"cert.json": pretty(summary), **parts}


def shown_parts(shown: Shown) -> Parts:
    """Files of evidence, `evidence.json` and `quote.bin`, or of a token."""
    if isinstance(shown, Token):
        return {TOKEN_FILE: shown.text, **token_parts(shown.text)}
    return {**_evidence_file(shown), **quote_part(shown)}


def quote_part(shown: Shown | None) -> Parts:
    """`quote.bin`, where there is evidence with a quote."""
    if not isinstance(shown, CocoEvidence):
        return {}
    with contextlib.suppress(ValueError):
        quote = parse_object(shown.aa_evidence).get("quote")
        if isinstance(quote, str):
            return {"quote.bin": decode_base64(quote)}
    return {}


def token_parts(token: str) -> Parts:
    """The claims of a token, and the event log in them; its signature is not checked here."""
    parts: Parts = {}
    with contextlib.suppress(ValueError):
        claims = read_claims(token)
        parts[_CLAIMS_FILE] = pretty(claims)
        if (events := _event_log(claims)) is not None:
            parts["eventlog.json"] = pretty(events)
    return parts


def read_claims(token: str) -> dict[str, Json]:
    """The claims of a token; its signature is not checked here.

    Raises:
        ValueError: not a JWT.
    """
    segments = token.split(".")
    if len(segments) != 3:
        raise ValueError(f"expected the three segments of a JWT, got {len(segments)}")
    return parse_object(decode_base64(segments[1]))


def key_parts(key: ServerUserData) -> Parts:
    """`hpke.base64` and `hpke.json` of an egress's keys.

    Raises:
        RemoteProtocolError: the list cannot be read.
    """
    configs = parse_key_config_list(decode_base64(key.encoded_key_config_list))
    readable = [
        {
            "key_id": config.key_id,
            "kem": "X25519Sha256",
            "public_key": config.public_key.hex(),
            "symmetric_suites": [
                f"{_KDFS[each.kdf]}+{_AEADS[each.aead]}" for each in config.suites
            ],
        }
        for config in configs
    ]
    return {
        "hpke.base64": key.encoded_key_config_list,
        "hpke.json": pretty({"expire_timestamp": key.expire_timestamp, "configs": readable}),
    }


def _summary(shown: Shown) -> dict[str, Json]:
    if isinstance(shown, Token):
        return {"model": "passport", "provider": shown.provider, "octets": len(shown.text)}
    summary: dict[str, Json] = {"model": "background_check", "provider": provider_of(shown)}
    if isinstance(shown, CocoEvidence):
        summary["tee"] = shown.tee_type
        summary["hash_algorithm"] = shown.hash_algorithm.name.lower()
    with contextlib.suppress(ValueError):
        summary["runtime_data"] = parse_json(runtime_data_of(shown))
    return summary


def _evidence_file(shown: Evidence) -> Parts:
    from tng.attest.evidence_json import dump_evidence_object

    if isinstance(shown, CocoEvidence):
        with contextlib.suppress(ValueError):
            return {"evidence.json": pretty(parse_json(shown.aa_evidence))}
        return {"evidence.bin": shown.aa_evidence}
    return {"evidence.json": pretty(dump_evidence_object(shown))}


def _event_log(claims: dict[str, Json]) -> Json:
    """The boot's events in an EAR; None where there are none."""
    value: Json = claims
    way = ("submods", "cpu0", "ear.veraison.annotated-evidence", "tdx", "uefi_event_logs")
    for name in way:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _extension(certificate: x509.Certificate) -> bytes | None:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_oid(EVIDENCE_OID).value
    except x509.ExtensionNotFound:
        return None
    return extension.value if isinstance(extension, x509.UnrecognizedExtension) else None
