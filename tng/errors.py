"""The one exception tree, named by whose fault it is, and the codes users see.

    TngError
      ConfigError            the operator's words are wrong                 exit 2
      StartError             the process cannot run: port in use, ...       exit 1
      LocalProtocolError     our own caller asked for an illegal step       a bug
      RemoteProtocolError    the peer broke its protocol
      RequestRejectedError   a client's request cannot be served as asked
      NetError               a connection could not be made, or broke
      AttestationError
        EvidenceError        our own TEE gave no evidence
        AppraiserError       the judge could not be asked
        UntrustedPeerError   the peer was judged, and refused

Every error carries an `ErrorCode`; it is the same word in the log, in the HTTP body,
in the `x-tng-error` header and in the exit message.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tng.verdict import Verdict


class ErrorCode(enum.StrEnum):
    """What went wrong, in one word a script can match."""

    CONFIG_INVALID = "config_invalid"
    START_FAILED = "start_failed"
    INTERNAL = "internal_error"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    NOT_A_TNG_PEER = "not_a_tng_peer"
    EVIDENCE_UNAVAILABLE = "evidence_unavailable"
    EVIDENCE_MISSING = "evidence_missing"
    EVIDENCE_MALFORMED = "evidence_malformed"
    BINDING_MISMATCH = "binding_mismatch"
    QUOTE_INVALID = "quote_invalid"
    UNKNOWN_ROOT = "unknown_root"
    TCB_NOT_ACCEPTED = "tcb_not_accepted"
    DEBUG_TD = "debug_td"
    COLLATERAL_UNAVAILABLE = "collateral_unavailable"
    COLLATERAL_EXPIRED = "collateral_expired"
    REVOKED = "revoked"
    EVENT_LOG_MISMATCH = "event_log_mismatch"
    AS_UNREACHABLE = "as_unreachable"
    AS_REJECTED = "as_rejected"
    AS_BAD_TOKEN = "as_bad_token"  # noqa: S105 - not a password
    POLICY_DENIED = "policy_denied"
    STALE = "stale"
    SIMULATED_EVIDENCE = "simulated_evidence"
    REQUEST_REJECTED = "request_rejected"
    SHUTTING_DOWN = "shutting_down"


HTTP_STATUS: Final[dict[ErrorCode, int]] = {
    ErrorCode.REQUEST_REJECTED: 400,
    ErrorCode.INTERNAL: 500,
    ErrorCode.EVIDENCE_UNAVAILABLE: 503,
    ErrorCode.COLLATERAL_UNAVAILABLE: 503,
    ErrorCode.AS_UNREACHABLE: 503,
    ErrorCode.SHUTTING_DOWN: 503,
}
"""HTTP status an ingress answers with; every code not listed here is a 502."""

RETRYABLE: Final = frozenset(
    {
        ErrorCode.UPSTREAM_UNREACHABLE,
        ErrorCode.EVIDENCE_UNAVAILABLE,
        ErrorCode.COLLATERAL_UNAVAILABLE,
        ErrorCode.AS_UNREACHABLE,
        ErrorCode.SHUTTING_DOWN,
    }
)
"""Codes after which the same request may succeed without anybody changing anything."""


class TngError(Exception):
    """Base of everything this package raises on purpose.

    Args:
        message: lower case, no full stop, no secret: what was expected, what was seen, where.
        code: the word for it; each class has its usual one.
    """

    code: ErrorCode = ErrorCode.INTERNAL
    exit_status: int = 1
    """Process exit status when this error ends a command."""

    def __init__(self, message: str, *, code: ErrorCode | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code

    @property
    def http_status(self) -> int:
        """Status of the HTTP answer when this error ends a request."""
        return HTTP_STATUS.get(self.code, 502)

    @property
    def retryable(self) -> bool:
        """Whether trying again later can help."""
        return self.code in RETRYABLE


class ConfigError(TngError):
    """The configuration, or the command line, is wrong.

    Attributes:
        problems: every fault found, one line each, `path: expected ..., got ...`.
    """

    code = ErrorCode.CONFIG_INVALID
    exit_status = 2

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class StartError(TngError):
    """The process cannot do its work at all: a port in use, a file that cannot be written."""

    code = ErrorCode.START_FAILED


class LocalProtocolError(TngError):
    """Our own caller asked for a step that the protocol does not allow: a bug of ours."""


class RemoteProtocolError(TngError):
    """The peer sent what its protocol does not allow, or ended in the middle of it."""

    code = ErrorCode.NOT_A_TNG_PEER


class RequestRejectedError(TngError):
    """A client's request cannot be served as asked.

    Args:
        message: see TngError.
        status: the HTTP status of the answer, 400-599.
    """

    code = ErrorCode.REQUEST_REJECTED

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status

    @property
    def http_status(self) -> int:
        """The status chosen where the error was raised."""
        return self.status


class NetError(TngError):
    """A connection could not be made, or broke."""

    code = ErrorCode.UPSTREAM_UNREACHABLE


class AttestationError(TngError):
    """Remote attestation did not succeed."""


class EvidenceError(AttestationError):
    """Our own TEE, or the agent that speaks for it, gave no evidence."""

    code = ErrorCode.EVIDENCE_UNAVAILABLE


class AppraiserError(AttestationError):
    """The attestation service could not be asked, or its answer is no verdict."""

    code = ErrorCode.AS_UNREACHABLE


class UntrustedPeerError(AttestationError):
    """The peer was judged, and refused.  Never retried with the same evidence.

    Attributes:
        verdict: every check that was made, in order; None where judging never began.
    """

    code = ErrorCode.EVIDENCE_MISSING

    def __init__(
        self, message: str, *, code: ErrorCode | None = None, verdict: Verdict | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.verdict = verdict
