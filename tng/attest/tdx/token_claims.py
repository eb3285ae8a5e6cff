"""What an attestation service's token says of trust domains, in the forms of quote and event log.

Claims of a token go in, whose signature has been verified elsewhere; a `TokenGuest` for each
trust domain comes out.  Both kinds of Trustee tokens are read: EAR, where `tdx` stands in the
annotated evidence of a submodule, and the simple one, whose `tcb-status` is flattened JSON text.

Invariant: a guest's registers are the ones that its event log replays to, if it has one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest.evidence_text import malformed
from tng.attest.strict_json import parse_object
from tng.attest.tdx.eventlog import MAX_ENTRIES, EventLogEntry, HashAlgorithm, replay
from tng.attest.tdx.eventlog_types import type_number
from tng.errors import ErrorCode, UntrustedPeerError

if TYPE_CHECKING:
    from tng.attest.strict_json import Json

_EVIDENCE: Final = "ear.veraison.annotated-evidence"
_BODY: Final = "tdx.quote.body."
_LOG: Final = "uefi_event_logs"
_NEEDED: Final = ("mr_td", "mr_seam", "tcb_svn", "xfam", "rtmr_0", "rtmr_1", "rtmr_2", "rtmr_3")
_ALGORITHMS: Final = {algorithm.label: algorithm for algorithm in HashAlgorithm}


@dataclass(frozen=True, slots=True)
class TokenGuest:
    """One trust domain.

    Attributes:
        name: of its submodule, e.g. "cpu0"; "tdx" in a simple token.
        fields: of its TD report, hexadecimal by name.
        entries: of its event log; None when the token has none.
    """

    name: str
    fields: dict[str, str]
    entries: tuple[EventLogEntry, ...] | None


def guests_in(claims: dict[str, Json]) -> tuple[TokenGuest, ...]:
    """Every trust domain that a token speaks of, in its order; none is possible.

    Raises:
        UntrustedPeerError: claims of another form (evidence_malformed), or an event log that does
            not lead to the registers beside it (event_log_mismatch).
    """
    if "submods" in claims:
        submods = _object(claims["submods"], "submods")
        found = {n: _object(_object(s, n).get(_EVIDENCE), n).get("tdx") for n, s in submods.items()}
        return tuple(_guest(name, tdx) for name, tdx in found.items() if tdx is not None)
    status = claims.get("tcb-status")
    if not isinstance(status, str):
        raise malformed("the token has neither submods nor the text tcb-status")
    try:
        flat = parse_object(status.encode("utf-8", "surrogatepass"))
    except ValueError as exc:
        raise malformed(f"the token's tcb-status is no JSON object: {exc}") from exc
    body = {name.removeprefix(_BODY): v for name, v in flat.items() if name.startswith(_BODY)}
    if not body:
        return ()
    tdx: dict[str, Json] = {"quote": {"body": body}, _LOG: flat.get(f"tdx.{_LOG}")}
    return (_guest("tdx", tdx),)


def _guest(name: str, tdx: Json) -> TokenGuest:
    members = _object(tdx, name)
    body = _object(_object(members.get("quote"), "quote").get("body"), "body")
    fields = {field: value for field, value in body.items() if isinstance(value, str)}
    for field in _NEEDED:
        if field not in fields:
            raise malformed(f"the claims of {name:.40} lack {field}")
    log = members.get(_LOG)
    if log is None:
        return TokenGuest(name, fields, None)
    if not isinstance(log, list) or len(log) > MAX_ENTRIES:
        raise malformed(f"{_LOG} is not a list of at most {MAX_ENTRIES} entries")
    entries = tuple(_entry(entry) for entry in log)
    for number, register in replay(entries).items():
        if not hmac.compare_digest(
            register.hex().encode(), fields[f"rtmr_{number}"].encode("utf-8", "surrogatepass")
        ):
            raise UntrustedPeerError(
                f"the event log in the token does not replay to its rtmr_{number}",
                code=ErrorCode.EVENT_LOG_MISMATCH,
            )
    return TokenGuest(name, fields, entries)


def _entry(value: Json) -> EventLogEntry:
    entry = _object(value, "event")
    index, kind, event = entry.get("index"), entry.get("type_name"), entry.get("event")
    digests = entry.get("digests")
    if not (isinstance(index, int) and isinstance(kind, str) and isinstance(event, str)):
        raise malformed("an event in the token needs index, type_name and event")
    if not isinstance(digests, list):
        raise malformed("an event in the token needs a list of digests")
    try:
        octets = base64.b64decode(event, validate=True)
        return EventLogEntry(index, type_number(kind), tuple(map(_digest, digests)), octets)
    except (binascii.Error, ValueError) as exc:
        raise malformed("an event in the token has no readable type or data") from exc


def _digest(value: Json) -> tuple[HashAlgorithm, bytes]:
    digest = _object(value, "digest")
    algorithm, text = _ALGORITHMS.get(str(digest.get("alg"))), digest.get("digest")
    if algorithm is None or not isinstance(text, str):
        raise malformed("a digest in the token needs a known alg and a text")
    return algorithm, bytes.fromhex(text)


def _object(value: Json, what: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise malformed(f"{what:.40} in the token's claims is no object")
    return value
