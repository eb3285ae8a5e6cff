"""Refusals of the key broker, in its own words: `{"type": ".../kbs/errors/KIND", "detail": ...}`.

A `Problem` goes in, status and members come out.  Kinds and statuses are those that clients of
the key broker know; the other members of problem details stay.  Evidence that is refused is 401
here, by which clients know that the handshake failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tng.trustee.problems import ProblemCode

if TYPE_CHECKING:
    from tng.trustee.problems import Problem

TYPE_PREFIX: Final = "https://github.com/confidential-containers/kbs/errors/"
"""What every type begins with."""

_KINDS: Final[dict[ProblemCode, str]] = {
    ProblemCode.KBS_TOKEN: "TokenVerifierError",
    ProblemCode.KBS_ADMIN: "AdminAuth",
    ProblemCode.NOT_ALLOWED: "AdminAuth",
    ProblemCode.KBS_POLICY: "PolicyDeny",
    ProblemCode.KBS_RESOURCE: "ResourceNotFound",
    ProblemCode.NOT_FOUND: "InvalidRequestPath",
    ProblemCode.METHOD_NOT_ALLOWED: "InvalidRequestPath",
    ProblemCode.NOT_IMPLEMENTED: "ParsePolicyError",
    ProblemCode.INTERNAL_ERROR: "PluginInternalError",
}
_ATTESTATION: Final = "AttestationError"
_EVIDENCE_REFUSED: Final = 422


def is_broker_path(path: str) -> bool:
    """Whether a path belongs to the key broker."""
    return path.startswith(("/kbs/", "/as/kbs/"))


def as_broker_error(problem: Problem) -> tuple[int, dict[str, object]]:
    """Status and members of the answer."""
    status = 401 if problem.status == _EVIDENCE_REFUSED else problem.status
    kind = _KINDS.get(problem.code, _ATTESTATION)
    return status, problem.as_json() | {"type": TYPE_PREFIX + kind, "status": status}
