"""Verification of a TDX quote against collateral: signatures, chains, status of the platform.

Octets and `Collateral` in, `QuoteAppraisal` out, or `QuoteRefused` with the number of the
check that failed.  `dcap_qvl` does the cryptography and matches TCB levels (Intel "TDX DCAP
Quoting Library API"; Intel "PCS API v4"); `tdx.vendor_statements` asks what stands beside it.
Every way that library can fail is translated here.

What holds on return: the quote was signed by a key that a genuine quoting enclave certified,
on a machine certified by the trusted root, none of it revoked, all of it judged by fresh
collateral.  Not yet: whether the status is acceptable and whom the report data binds; those
are `tdx.appraisal`'s.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypedDict

import dcap_qvl

from tng.attest.tdx.certificates import pck_certificate
from tng.attest.tdx.library import LibraryError, guarded
from tng.attest.tdx.quote import TDX_TEE_TYPE, parse_quote
from tng.attest.tdx.vendor_statements import (
    SIGNATURE_CHECK,
    QuoteRefused,
    check_freshness,
    check_pck_validity,
    check_platform,
    check_revocation,
    check_signers,
    is_intel_root,
    parse_statements,
    refuse_unknown_root,
)
from tng.errors import ErrorCode

if TYPE_CHECKING:
    from tng.attest.tdx.collateral import Collateral
    from tng.attest.tdx.quote import Quote

TCB_CHECK: Final = 6
DEBUG_CHECK: Final = 7

TCB_STATUS_CODES: Final = {
    "UpToDate": 0,
    "ConfigurationNeeded": 0xA001,
    "OutOfDate": 0xA002,
    "OutOfDateConfigurationNeeded": 0xA003,
    "Revoked": 0xA005,
    "SWHardeningNeeded": 0xA007,
    "ConfigurationAndSWHardeningNeeded": 0xA008,
}
"""Intel's numbers for a TCB status (`sgx_ql_qv_result_t`)."""

_UNSPECIFIED: Final = 0xA006

_REASONS: Final = (
    ("TCB status is invalid: Revoked", TCB_CHECK, ErrorCode.REVOKED),
    ("No matching TCB level found", TCB_CHECK, ErrorCode.TCB_NOT_ACCEPTED),
    ("is below minimum required", TCB_CHECK, ErrorCode.TCB_NOT_ACCEPTED),
    ("TDX module TCB level check", TCB_CHECK, ErrorCode.TCB_NOT_ACCEPTED),
    ("Failed to evaluate the current TDX TCB", TCB_CHECK, ErrorCode.TCB_NOT_ACCEPTED),
    ("Invalid MR service TD", DEBUG_CHECK, ErrorCode.POLICY_DENIED),
    ("TD migration is enabled", DEBUG_CHECK, ErrorCode.POLICY_DENIED),
    ("SEPT_VE_DISABLE is not enabled", DEBUG_CHECK, ErrorCode.POLICY_DENIED),
    ("Reserved bits in TD attributes", DEBUG_CHECK, ErrorCode.POLICY_DENIED),
)
"""Refusals of genuine quotes, which `dcap_qvl` tells by their text after it has verified all
signatures; all others are quote_invalid."""

_HINTS: Final = {
    "Invalid MR service TD": ": a service domain, which may be given the trust domain's secrets, is"
    " bound to it; start it without one",
    "SEPT_VE_DISABLE is not enabled": ": its host could inject exceptions into the trust domain",
}


@dataclass(frozen=True, slots=True)
class QuoteAppraisal:
    """A quote that a genuine platform signed.

    Attributes:
        quote: the quote.
        tcb_status: the vendor's word for the platform, e.g. "UpToDate".
        advisory_ids: security advisories that apply to it.
        tcb_verification: the same and the dates, as a Trustee's claims show it.
        freshness: until when the collateral holds, for people.
        simulated: the trusted root was another than Intel's: no hardware stands behind it.
    """

    quote: Quote
    tcb_status: str
    advisory_ids: tuple[str, ...]
    tcb_verification: dict[str, object]
    freshness: str
    simulated: bool

    @property
    def claims(self) -> dict[str, object]:
        """The claims under `tdx`, without those of an event log.

        The members are those of a Trustee 1.9, and `td_attributes` as upstream's has it.
        """
        claims: dict[str, object] = {
            "quote": self.quote.claims(),
            "tcb_verification": self.tcb_verification,
            "td_attributes": self.quote.td_attributes.claims(),
        }
        # Only there when true: real evidence has no claim that a Trustee would not give it.
        return claims | ({"simulated_platform": True} if self.simulated else {})


def verify_quote(
    data: bytes, collateral: Collateral, *, now: int, root_ca_der: bytes | None = None
) -> QuoteAppraisal:
    """Verify a quote at a given time.

    Args:
        data: the quote.
        collateral: the vendor's statements about its platform.
        now: Unix time, seconds.
        root_ca_der: the trusted root, DER; None for Intel's, which is built in.

    Raises:
        UntrustedPeerError: not a quote (evidence_malformed).
        QuoteRefused: a quote that is not to be trusted.
        AppraiserError: the collateral cannot be read (collateral_unavailable).
    """
    return appraise_quote(parse_quote(data), collateral, now=now, root_ca_der=root_ca_der)


def appraise_quote(
    quote: Quote, collateral: Collateral, *, now: int, root_ca_der: bytes | None = None
) -> QuoteAppraisal:
    """`verify_quote` for a quote that is parsed already; same arguments and errors."""
    pck = pck_certificate(quote)
    if pck.says_simulated and root_ca_der is None:
        raise QuoteRefused(
            SIGNATURE_CHECK,
            "the quote is from a TDX platform in software, expected one certified by Intel",
            ErrorCode.SIMULATED_EVIDENCE,
        )
    statements = parse_statements(collateral)
    freshness = check_freshness(statements, now)
    check_revocation(statements, pck)
    check_pck_validity(pck, now)
    try:
        verified = _verify(quote, collateral, now=now, root_ca_der=root_ca_der)
    except QuoteRefused as refused:
        if refused.code is ErrorCode.QUOTE_INVALID:
            refuse_unknown_root(statements, pck, root_ca_der)
        raise
    check_signers(statements, root_ca_der)
    check_platform(statements, pck)
    refuse_debug(quote)
    return QuoteAppraisal(
        quote=quote,
        tcb_status=verified["tcb"]["status"],
        advisory_ids=tuple(verified["tcb"]["advisory_ids"]),
        tcb_verification=_tcb_verification(verified),
        freshness=freshness,
        simulated=root_ca_der is not None and not is_intel_root(root_ca_der),
    )


def refuse_debug(quote: Quote) -> None:
    """Require that the trust domain is not in debug mode, where its host can read its memory.

    Every bit of the group "TD under debug" counts: profiling tells the host about it, too.

    Raises:
        QuoteRefused: it is (debug_td).
    """
    if quote.is_debug:
        octets, names = quote.body.td_attributes.hex(), quote.td_attributes
        message = f"the trust domain runs in debug mode (td_attributes {octets}: {names})"
        raise QuoteRefused(DEBUG_CHECK, message, ErrorCode.DEBUG_TD)


class _Tcb(TypedDict):
    status: str
    advisory_ids: list[str]
    eval_data_number: int


class _Platform(TypedDict):
    tcb_date_tag: int


class _Verified(TypedDict):
    """The part of the library's claims that is read here."""

    tcb: _Tcb
    platform: _Platform
    earliest_issue_date: int
    latest_issue_date: int
    earliest_expiration_date: int


def _verify(
    quote: Quote, collateral: Collateral, *, now: int, root_ca_der: bytes | None
) -> _Verified:
    policy = dcap_qvl.QuotePolicy.claims_only

    def call() -> str:
        members = dcap_qvl.QuoteCollateralV3.from_json(collateral.to_json())
        claims = _verifier(root_ca_der).verify_with_policy(quote.raw, members, now, policy(now))
        return str(claims.to_json())

    try:
        verified: _Verified = json.loads(guarded(call))
    except LibraryError as exc:
        # The debug bit says more than the library's text; it refuses such quotes as well.
        refuse_debug(quote)
        raise _refusal(str(exc)) from exc
    return verified


@lru_cache(maxsize=8)
def _verifier(root_ca_der: bytes | None) -> dcap_qvl.QuoteVerifier:
    return dcap_qvl.QuoteVerifier(root_ca_der=root_ca_der)


def _refusal(text: str) -> QuoteRefused:
    message = f"quote verification: {text}"
    for fragment, number, code in _REASONS:
        if fragment in text:
            return QuoteRefused(number, message + _HINTS.get(fragment, ""), code)
    return QuoteRefused(SIGNATURE_CHECK, message, ErrorCode.QUOTE_INVALID)


def _tcb_verification(verified: _Verified) -> dict[str, object]:
    """The member that a Trustee 1.9 shows; `collateral_expired` is False or we had refused."""
    tcb = verified["tcb"]
    return {
        "tcb_status": tcb["status"],
        "tcb_status_code": TCB_STATUS_CODES.get(tcb["status"], _UNSPECIFIED),
        "collateral_expired": False,
        "earliest_issue_date": verified["earliest_issue_date"],
        "latest_issue_date": verified["latest_issue_date"],
        "earliest_expiration_date": verified["earliest_expiration_date"],
        "tcb_level_date_tag": verified["platform"]["tcb_date_tag"],
        "tcb_eval_ref_num": tcb["eval_data_number"],
        "advisory_ids": ",".join(tcb["advisory_ids"]),
        "tee_type": TDX_TEE_TYPE,
    }
