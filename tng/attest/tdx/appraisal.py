"""The judgement of TDX evidence: ten numbered checks, from the evidence's form to its event log.

Evidence as an attestation agent returns it goes in, `{"quote": b64, "cc_eventlog": b64 | null,
"gpu_evidence": ...}`; a `TdxAppraisal` comes out, or `TdxRefused` with every check made.

     1 evidence format          6 TCB status
     2 quote format             7 trust domain
     3 quote signature          8 report data
     4 collateral freshness     9 init data
     5 revocation              10 event log

Check 3 covers the whole chain of signatures: root, PCK CA, PCK, quoting enclave, attestation
key, quote; and who signed the collateral.  The caller says what the evidence must be bound to
(checks 8, 9); what it does not say is skipped and shown so.  Check 7 is about all attributes of the
trust domain, and a service domain beside it.  Evidence of GPUs is judged by `attest.devices`.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest.evidence_text import evidence_members, malformed, member_octets
from tng.attest.tdx.dcap import (
    DEBUG_CHECK,
    TCB_CHECK,
    QuoteAppraisal,
    appraise_quote,
)
from tng.attest.tdx.eventlog import EventLogEntry, check_against_quote, parse_event_log
from tng.attest.tdx.measurements import named_measurements
from tng.attest.tdx.quote import (
    REPORT_DATA_OCTETS,
    Quote,
    parse_quote,
)
from tng.attest.tdx.vendor_statements import (
    FRESHNESS_CHECK,
    REVOCATION_CHECK,
    SIGNATURE_CHECK,
    QuoteRefused,
)
from tng.errors import ErrorCode, LocalProtocolError, UntrustedPeerError
from tng.verdict import Check, Outcome

if TYPE_CHECKING:
    from tng.attest.tdx.collateral import Collateral

DEFAULT_TCB_STATUSES: Final = frozenset({"UpToDate"})
"""Statuses accepted unless the operator names others."""

CHECK_NAMES: Final = {
    1: "evidence format",
    2: "quote format",
    SIGNATURE_CHECK: "quote signature",
    FRESHNESS_CHECK: "collateral freshness",
    REVOCATION_CHECK: "revocation",
    TCB_CHECK: "TCB status",
    DEBUG_CHECK: "trust domain",
    8: "report data",
    9: "init data",
    10: "event log",
}
"""Every check by its number."""

_EVIDENCE_FORMAT, _QUOTE_FORMAT, _REPORT_DATA, _INIT_DATA, _EVENT_LOG = 1, 2, 8, 9, 10
_WHAT: Final = "TDX evidence"
_MEMBERS: Final = frozenset({"quote", "cc_eventlog", "gpu_evidence", "aa_eventlog"})
_MAX_INIT_DATA_OCTETS: Final = 64


@dataclass(frozen=True, slots=True)
class TdxEvidence:
    """Evidence taken apart and not judged.

    Attributes:
        quote: the quote's octets.
        event_log: the event log's octets; None when the evidence has none.
        has_gpu_evidence: there is evidence of a GPU beside it.
    """

    quote: bytes
    event_log: bytes | None
    has_gpu_evidence: bool


@dataclass(frozen=True, slots=True)
class TdxAppraisal:
    """Evidence that passed.

    Attributes:
        claims: `{"tdx": {...}, "report_data": hex, "init_data": hex}`, as in a Trustee's token;
            beside them `tdx.measurements`, the parts that were booted, by name.
        checks: all ten, none failed.
        tcb_status: the vendor's word for the platform.
        simulated: no hardware stands behind it.
    """

    claims: dict[str, object]
    checks: tuple[Check, ...]
    tcb_status: str
    simulated: bool


class TdxRefused(UntrustedPeerError):  # noqa: N818 - says what happened
    """Evidence that did not pass.

    Attributes:
        checks: all ten in order of their numbers; exactly one failed, those not made are skipped.
    """

    def __init__(self, message: str, *, code: ErrorCode, checks: tuple[Check, ...]) -> None:
        super().__init__(message, code=code)
        self.checks = checks


@dataclass(frozen=True, slots=True)
class Expectations:
    """What evidence has to agree with.

    Attributes:
        report_data: at most 64 octets, compared with zeros appended; None to skip the check.
        init_data_digest: at most 64 octets, compared with the 48 of MRCONFIGID, cut or with
            zeros appended; None to skip the check.
        tcb_statuses: statuses of the platform that are acceptable.
    """

    report_data: bytes | None
    init_data_digest: bytes | None = None
    tcb_statuses: frozenset[str] = DEFAULT_TCB_STATUSES

    def __post_init__(self) -> None:
        if self.report_data is not None and len(self.report_data) > REPORT_DATA_OCTETS:
            raise LocalProtocolError("expected report data has more than 64 octets")
        if len(self.init_data_digest or b"") > _MAX_INIT_DATA_OCTETS:
            raise LocalProtocolError("expected init data digest has more than 64 octets")


def judge_tdx(
    evidence: bytes,
    *,
    expected_report_data: bytes | None,
    collateral: Collateral,
    now: int,
    root_ca_der: bytes | None = None,
    allowed_tcb_status: frozenset[str] = DEFAULT_TCB_STATUSES,
    init_data_digest: bytes | None = None,
) -> TdxAppraisal:
    """Judge evidence at a given time.

    Args:
        evidence: JSON text of an attestation agent; at most 4 MiB.
        expected_report_data: see `Expectations`.
        collateral: the vendor's statements about the platform.
        now: Unix time, seconds.
        root_ca_der: the trusted root, DER; None for Intel's, which is built in.
        allowed_tcb_status: statuses of the platform that are acceptable.
        init_data_digest: see `Expectations`.

    Raises:
        TdxRefused: the evidence did not pass.
        AppraiserError: the collateral cannot be read (collateral_unavailable).
        LocalProtocolError: an expectation that no evidence can meet.
    """
    expected = Expectations(expected_report_data, init_data_digest, allowed_tcb_status)
    record = _Record()
    try:
        parts, quote = _parse(evidence, record)
        appraisal = appraise_quote(quote, collateral, now=now, root_ca_der=root_ca_der)
        _record_platform(appraisal, record)
        _check_status(appraisal, expected.tcb_statuses, record)
        _check_bindings(quote, expected, record)
        entries = _check_event_log(parts.event_log, quote, record)
        claims = _claims(appraisal, entries)
    except UntrustedPeerError as exc:
        number = exc.number if isinstance(exc, QuoteRefused) else record.current
        raise TdxRefused(str(exc), code=exc.code, checks=record.failed(number, str(exc))) from exc
    return TdxAppraisal(claims, record.passed(), appraisal.tcb_status, appraisal.simulated)


def parse_tdx_evidence(evidence: bytes) -> TdxEvidence:
    """Take an attestation agent's evidence apart.

    Raises:
        UntrustedPeerError: not such evidence (evidence_malformed).
    """
    members = evidence_members(evidence, _WHAT)
    if unknown := members.keys() - _MEMBERS:
        raise malformed(f"TDX evidence has an unknown member {min(unknown)[:40]!r}")
    if members.get("aa_eventlog") is not None:
        raise malformed("TDX evidence has a separate aa_eventlog, expected it in cc_eventlog")
    has_log = members.get("cc_eventlog") is not None
    return TdxEvidence(
        quote=member_octets(members, "quote", _WHAT),
        event_log=member_octets(members, "cc_eventlog", _WHAT) if has_log else None,
        has_gpu_evidence=members.get("gpu_evidence") is not None,
    )


class _Record:
    """The checks made so far.  `current` is the one that is being made."""

    def __init__(self) -> None:
        self.current = _EVIDENCE_FORMAT
        self._made: dict[int, tuple[Outcome, str]] = {}

    def note(self, number: int, detail: str, outcome: Outcome = Outcome.PASS) -> None:
        self._made[number] = (outcome, detail)
        self.current = number + 1

    def passed(self) -> tuple[Check, ...]:
        return self._checks("not made")

    def failed(self, number: int, detail: str) -> tuple[Check, ...]:
        self._made[number] = (Outcome.FAIL, detail)
        return self._checks(f"not made: check {number} failed")

    def _checks(self, otherwise: str) -> tuple[Check, ...]:
        missing = (Outcome.SKIP, otherwise)
        return tuple(
            Check(number, name, *self._made.get(number, missing))
            for number, name in CHECK_NAMES.items()
        )


def _parse(evidence: bytes, record: _Record) -> tuple[TdxEvidence, Quote]:
    parts = parse_tdx_evidence(evidence)
    gpu = ", GPU evidence not judged" if parts.has_gpu_evidence else ""
    record.note(_EVIDENCE_FORMAT, f"{len(evidence)} octets{gpu}")
    quote = parse_quote(parts.quote)
    report = "TD report 1.0" if quote.body.mr_servicetd is None else "TD report 1.5"
    version = f"version {quote.header.version}, {report}"
    record.note(_QUOTE_FORMAT, f"{version}, {len(quote.raw)} octets")
    return parts, quote


def _record_platform(appraisal: QuoteAppraisal, record: _Record) -> None:
    root = "a development root, SIMULATED" if appraisal.simulated else "Intel's root"
    record.note(SIGNATURE_CHECK, f"chain ends in {root}")
    record.note(FRESHNESS_CHECK, appraisal.freshness)
    record.note(REVOCATION_CHECK, "no certificate is revoked")


def _check_status(appraisal: QuoteAppraisal, allowed: frozenset[str], record: _Record) -> None:
    status = appraisal.tcb_status
    advisories = f" ({', '.join(appraisal.advisory_ids)})" if appraisal.advisory_ids else ""
    # Debug has been refused already, with the signatures; its number comes after this one.
    record.note(DEBUG_CHECK, f"debug is off; attributes: {appraisal.quote.td_attributes}")
    record.current = TCB_CHECK
    if status not in allowed or status == "Revoked":
        raise UntrustedPeerError(
            f"TCB status is {status}{advisories}, accepted are {', '.join(sorted(allowed))}",
            code=ErrorCode.TCB_NOT_ACCEPTED,
        )
    record.note(TCB_CHECK, f"{status}{advisories}")


def _check_bindings(quote: Quote, expected: Expectations, record: _Record) -> None:
    record.current = _REPORT_DATA
    _compare(record, quote.body.report_data, expected.report_data)
    _compare(record, quote.body.mr_config_id, expected.init_data_digest)


def _compare(record: _Record, seen: bytes, expected: bytes | None) -> None:
    number = record.current
    if expected is None:
        record.note(number, "nothing to compare with", Outcome.SKIP)
        return
    padded = expected[: len(seen)].ljust(len(seen), b"\0")
    if not hmac.compare_digest(seen, padded):
        raise UntrustedPeerError(
            f"{CHECK_NAMES[number]} in the quote is {seen.hex()}, expected {padded.hex()}",
            code=ErrorCode.BINDING_MISMATCH,
        )
    record.note(number, seen.hex())


def _check_event_log(
    data: bytes | None, quote: Quote, record: _Record
) -> tuple[EventLogEntry, ...] | None:
    if data is None:
        record.note(_EVENT_LOG, "the evidence has none", Outcome.SKIP)
        return None
    entries = parse_event_log(data)
    check_against_quote(entries, quote.body)
    record.note(_EVENT_LOG, f"{len(entries)} entries replay to the quote's registers")
    record.current = _EVENT_LOG
    return entries


def _claims(
    appraisal: QuoteAppraisal, entries: tuple[EventLogEntry, ...] | None
) -> dict[str, object]:
    tdx = appraisal.claims
    if entries is not None:
        tdx["uefi_event_logs"] = [entry.claims() for entry in entries]
        # Those of the boot; an agent's many events say their names in the log already.
        booted = (m for m in named_measurements(entries) if not m.is_of_agent)
        tdx["measurements"] = [measurement.claims() for measurement in booted]
    body = appraisal.quote.body
    return {
        "tdx": tdx,
        "report_data": body.report_data.hex(),
        "init_data": body.mr_config_id.hex(),
    }
