"""Answers that say no: problem details (RFC 9457) in the attestation service's vocabulary.

A `TngError` goes in, an HTTP status and a JSON object come out.  Types, codes and statuses are
those of the Trustee attestation service 1.9; the members `tng_code` (a `tng.errors.ErrorCode`)
and `checks` (every check made, in order) are our extension, so that a verifying gateway can
repeat the verdict.

Invariant: no answer carries evidence, key material or a token.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tng.attest.gpu.appraisal import GpuRefused
from tng.attest.tdx.appraisal import TdxRefused
from tng.errors import ErrorCode, RequestRejectedError, TngError
from tng.verdict import Check

CONTENT_TYPE: Final = "application/problem+json"
"""Media type of every refusal (RFC 9457 section 3)."""

_MAX_DETAIL: Final = 1000
"""Characters of the `detail` member: part of it may quote the request."""


class ProblemCode(enum.StrEnum):
    """What was wrong, as clients of the attestation service know it."""

    INVALID_JSON = "AS.REQUEST.INVALID_JSON"
    INVALID_ARGUMENT = "AS.REQUEST.INVALID_ARGUMENT"
    UNSUPPORTED_TEE = "AS.REQUEST.UNSUPPORTED_TEE"
    NOT_ALLOWED = "AS.REQUEST.NOT_ALLOWED"
    NOT_FOUND = "AS.REQUEST.NOT_FOUND"
    METHOD_NOT_ALLOWED = "AS.REQUEST.METHOD_NOT_ALLOWED"
    TIMEOUT = "AS.REQUEST.TIMEOUT"
    TOO_LARGE = "AS.REQUEST.TOO_LARGE"
    MEDIA_TYPE = "AS.REQUEST.UNSUPPORTED_MEDIA_TYPE"
    NOT_IMPLEMENTED = "AS.REQUEST.NOT_IMPLEMENTED"
    INVALID_TOKEN = "AS.CHALLENGE.INVALID_TOKEN"  # noqa: S105 - not a password
    INVALID_FORMAT = "AS.EVIDENCE.INVALID_FORMAT"
    INVALID_ENCODING = "AS.EVIDENCE.INVALID_ENCODING"
    INVALID_QUOTE = "AS.EVIDENCE.INVALID_QUOTE"
    VERIFICATION_FAILED = "AS.EVIDENCE.VERIFICATION_FAILED"
    BINDING_MISMATCH = "AS.EVIDENCE.BINDING_MISMATCH"
    BUSY = "AS.REQUEST.BUSY"
    KBS_SESSION = "KBS.SESSION.INVALID"
    KBS_TOKEN = "KBS.TOKEN.INVALID"  # noqa: S105 - not a password
    KBS_ADMIN = "KBS.ADMIN.UNAUTHORIZED"
    KBS_POLICY = "KBS.POLICY.DENIED"
    KBS_RESOURCE = "KBS.RESOURCE.NOT_FOUND"
    DEPENDENCY_UNAVAILABLE = "AS.DEPENDENCY.UNAVAILABLE"
    INTERNAL_ERROR = "AS.INTERNAL.ERROR"


_STATUS: Final[dict[ProblemCode, int]] = {
    ProblemCode.NOT_ALLOWED: 403,
    ProblemCode.NOT_FOUND: 404,
    ProblemCode.METHOD_NOT_ALLOWED: 405,
    ProblemCode.TIMEOUT: 408,
    ProblemCode.TOO_LARGE: 413,
    ProblemCode.MEDIA_TYPE: 415,
    ProblemCode.NOT_IMPLEMENTED: 501,
    ProblemCode.INVALID_TOKEN: 401,
    ProblemCode.INVALID_QUOTE: 422,
    ProblemCode.VERIFICATION_FAILED: 422,
    ProblemCode.BINDING_MISMATCH: 422,
    ProblemCode.DEPENDENCY_UNAVAILABLE: 503,
    ProblemCode.BUSY: 503,
    ProblemCode.KBS_SESSION: 401,
    ProblemCode.KBS_TOKEN: 401,
    ProblemCode.KBS_ADMIN: 401,
    ProblemCode.KBS_POLICY: 403,
    ProblemCode.KBS_RESOURCE: 404,
    ProblemCode.INTERNAL_ERROR: 500,
}
"""HTTP status of each code; what is not listed is a 400."""

_TITLE: Final[dict[int, str]] = {
    400: "The request cannot be understood",
    401: "What shows who is asking is not accepted",
    403: "The request is not allowed",
    404: "There is nothing here",
    405: "The method does not fit the path",
    408: "The request took too long",
    413: "The request is too large",
    415: "The media type is not supported",
    422: "The evidence is not accepted",
    500: "The service failed",
    501: "Not available in this version",
    503: "The service cannot answer now",
}

_BY_ERROR: Final[dict[ErrorCode, ProblemCode]] = {
    ErrorCode.EVIDENCE_MISSING: ProblemCode.INVALID_FORMAT,
    ErrorCode.EVIDENCE_MALFORMED: ProblemCode.INVALID_FORMAT,
    ErrorCode.QUOTE_INVALID: ProblemCode.INVALID_QUOTE,
    ErrorCode.UNKNOWN_ROOT: ProblemCode.INVALID_QUOTE,
    ErrorCode.BINDING_MISMATCH: ProblemCode.BINDING_MISMATCH,
    ErrorCode.DEBUG_TD: ProblemCode.VERIFICATION_FAILED,
    ErrorCode.TCB_NOT_ACCEPTED: ProblemCode.VERIFICATION_FAILED,
    ErrorCode.REVOKED: ProblemCode.VERIFICATION_FAILED,
    ErrorCode.COLLATERAL_EXPIRED: ProblemCode.VERIFICATION_FAILED,
    ErrorCode.EVENT_LOG_MISMATCH: ProblemCode.VERIFICATION_FAILED,
    ErrorCode.SIMULATED_EVIDENCE: ProblemCode.VERIFICATION_FAILED,
    ErrorCode.POLICY_DENIED: ProblemCode.VERIFICATION_FAILED,
    ErrorCode.COLLATERAL_UNAVAILABLE: ProblemCode.DEPENDENCY_UNAVAILABLE,
    ErrorCode.AS_UNREACHABLE: ProblemCode.DEPENDENCY_UNAVAILABLE,
    ErrorCode.SHUTTING_DOWN: ProblemCode.DEPENDENCY_UNAVAILABLE,
}
"""For errors raised below this package; everything else is ours to answer for: 500."""


class TrusteeRequestError(RequestRejectedError):
    """A request that is refused before its evidence is judged.

    Args:
        message: see `TngError`.
        problem: which refusal it is; the HTTP status follows from it.
        field: path of the member at fault, e.g. "verification_requests[0].tee"; "" for none.
        code: the word a gateway repeats; `request_rejected` unless a better one exists.
    """

    def __init__(
        self,
        message: str,
        problem: ProblemCode,
        *,
        field: str = "",
        code: ErrorCode = ErrorCode.REQUEST_REJECTED,
    ) -> None:
        super().__init__(message, status=status_of(problem))
        self.problem = problem
        self.field = field
        self.code = code


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal, ready to be sent.

    Attributes:
        code: the service's word.
        detail: for people; one line.
        tng_code: the gateway's word.
        retryable: whether the same request may succeed later.
        field: path of the member at fault, "" for none.
        checks: what was asked about the evidence, in order; empty if judging never began.
    """

    code: ProblemCode
    detail: str
    tng_code: ErrorCode
    retryable: bool = False
    field: str = ""
    checks: tuple[Check, ...] = ()

    @property
    def status(self) -> int:
        """HTTP status of the answer."""
        return status_of(self.code)

    def as_json(self) -> dict[str, object]:
        """Members of the problem details object."""
        members: dict[str, object] = {
            "type": f"urn:tng:trustee:{self.code.value}",
            "title": _TITLE[self.status],
            "status": self.status,
            "code": self.code.value,
            "detail": self.detail[:_MAX_DETAIL],
            "retryable": self.retryable,
            "tng_code": self.tng_code.value,
        }
        if self.field:
            members["field"] = self.field
        if self.checks:
            members["checks"] = checks_as_json(self.checks)
        return members


def checks_as_json(checks: Sequence[Check]) -> list[dict[str, object]]:
    """Checks as the `checks` member carries them."""
    return [
        {
            "number": check.number,
            "name": check.name,
            "outcome": check.outcome.value,
            "detail": check.detail[:_MAX_DETAIL],
        }
        for check in checks
    ]


def problem_of(error: TngError) -> Problem:
    """Word an error for the client that caused it, or must hear of it."""
    if isinstance(error, TrusteeRequestError):
        return Problem(error.problem, str(error), error.code, error.retryable, error.field)
    code = _BY_ERROR.get(error.code, ProblemCode.INTERNAL_ERROR)
    if code is ProblemCode.INTERNAL_ERROR:
        # Our own trouble goes to our log; a client can do nothing with its wording.
        return Problem(code, "internal error, see the log of tng trustee", ErrorCode.INTERNAL)
    checks = error.checks if isinstance(error, TdxRefused | GpuRefused) else ()
    return Problem(code, str(error), error.code, error.retryable, checks=checks)


def status_of(problem: ProblemCode) -> int:
    """HTTP status that goes with a code."""
    return _STATUS.get(problem, 400)
