"""Evidence of the `sample` TEE, which anybody can make: for tests of everything around a TEE.

Source: the sample attester of openanolis/trustee 1.9, `{"measure_register", "report_data",
"svn"}`. Served only when the operator asks for it.  Invariant: the report data compare exactly;
nothing else about this evidence means anything.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import Final

from tng.attest.strict_json import Json, parse_object
from tng.errors import ErrorCode, UntrustedPeerError
from tng.trustee.appraised import AppraisedEvidence
from tng.trustee.dialects import VerificationRequest

_MEMBERS: Final = frozenset({"cc_eventlog", "measure_register", "report_data", "svn"})
_REGISTER: Final = re.compile(r"[0-9a-f]{64}")
_MAX_REPORT_DATA: Final = 64


class SampleVerifier:
    """Takes sample evidence at its word."""

    async def verify(self, request: VerificationRequest) -> AppraisedEvidence:
        """Claims of sample evidence.

        Raises:
            UntrustedPeerError: not sample evidence, or bound to something else.
        """
        members = _parse(request.evidence)
        report_data = _report_data(members)
        if request.init_data is not None:
            raise _malformed("carries no init data, but the request expects some")
        expected = request.runtime_data
        if expected is not None and not hmac.compare_digest(report_data, expected.report_data):
            raise UntrustedPeerError(
                f"sample evidence has report data {report_data.hex()},"
                f" the request expects {expected.report_data.hex()}",
                code=ErrorCode.BINDING_MISMATCH,
            )
        claims: dict[str, object] = {
            "sample": {"measure_register": members["measure_register"], "svn": members["svn"]},
            "report_data": members["report_data"],
        }
        return AppraisedEvidence(claims=claims, checks=(), simulated=False)


def _parse(evidence: bytes) -> dict[str, Json]:
    try:
        members = parse_object(evidence)
    except ValueError as exc:
        raise _malformed(f"is not JSON: {str(exc)[:200]}") from exc
    if members.keys() - _MEMBERS:
        raise _malformed(f"has other members than {', '.join(sorted(_MEMBERS))}")
    if members.get("cc_eventlog") is not None:
        raise _malformed("with an event log is not available in this version")
    register = members.get("measure_register")
    if not isinstance(register, str) or not _REGISTER.fullmatch(register):
        raise _malformed("needs measure_register, 64 hexadecimal digits")
    if members.get("svn") != "1":
        raise _malformed('needs svn, the text "1"')
    return members


def _report_data(members: dict[str, Json]) -> bytes:
    text = members.get("report_data")
    if not isinstance(text, str):
        raise _malformed("needs report_data, base64")
    try:
        report_data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise _malformed("has report_data that is not base64") from exc
    if len(report_data) > _MAX_REPORT_DATA:
        raise _malformed(f"has more than {_MAX_REPORT_DATA} octets of report data")
    return report_data


def _malformed(problem: str) -> UntrustedPeerError:
    return UntrustedPeerError(f"sample evidence {problem}", code=ErrorCode.EVIDENCE_MALFORMED)
