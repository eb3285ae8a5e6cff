"""The ways in which a simulated platform can be made to go wrong, for tests and demonstrations.

A spoiled platform does exactly one thing wrong; everything else stays genuine, so that what a
verifier says of it is about that one thing.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from tng.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping


class Spoil(enum.StrEnum):
    """One thing that is wrong.  Each names the party that the fault models."""

    REPORT_DATA = "report_data"
    """One bit of the report data is flipped before it is signed: a broken guest."""
    KEY = "key"
    """The evidence is genuine but made for another TLS key: evidence taken from elsewhere."""
    DEBUG = "debug"
    """The trust domain runs in debug mode, so its host can read its memory."""
    REVOKED = "revoked"
    """The collateral lists the machine's PCK certificate as revoked."""
    OUT_OF_DATE = "out_of_date"
    """The machine runs firmware older than the vendor calls current."""
    EXPIRED_COLLATERAL = "expired_collateral"
    """The collateral was signed 40 days ago, ten days past its life."""
    WRONG_ROOT = "wrong_root"
    """The machine is certified by another vendor whose certificates bear the same names."""
    TRUNCATED = "truncated"
    """The quote loses its second half on the way."""
    FLIPPED = "flipped"
    """One bit of the firmware measurement is flipped after signing: a forged quote."""


EXPECTED_CODE: Final[Mapping[Spoil, ErrorCode]] = {
    Spoil.REPORT_DATA: ErrorCode.BINDING_MISMATCH,
    Spoil.KEY: ErrorCode.BINDING_MISMATCH,
    Spoil.DEBUG: ErrorCode.DEBUG_TD,
    Spoil.REVOKED: ErrorCode.REVOKED,
    Spoil.OUT_OF_DATE: ErrorCode.TCB_NOT_ACCEPTED,
    Spoil.EXPIRED_COLLATERAL: ErrorCode.COLLATERAL_EXPIRED,
    Spoil.WRONG_ROOT: ErrorCode.UNKNOWN_ROOT,
    Spoil.TRUNCATED: ErrorCode.EVIDENCE_MALFORMED,
    Spoil.FLIPPED: ErrorCode.QUOTE_INVALID,
}
"""What `tdx.appraisal.judge_tdx` answers to each."""
