"""Evidence of the TEEs `sample` and `sampledevice`, which anybody can make: for tests and trials.

Evidence as an attestation agent returns it goes in, claims as a Trustee's token carries them come
out.  Source: the sample attesters of openanolis/trustee 1.9: `{"cc_eventlog", "measure_register",
"report_data", "svn": "1"}`, where the event log's SHA-256 digests of register index 1 replay to
the register, and `{"report_data", "svn": "2"}`.

Invariant: report data compare exactly and a log replays to its register; nothing else about this
evidence means anything.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from tng.attest.evidence_text import evidence_members, malformed, member_octets
from tng.attest.strict_json import Json
from tng.attest.tdx.eventlog import HashAlgorithm, parse_event_log
from tng.errors import ErrorCode, UntrustedPeerError

_WHAT: Final = "sample evidence"
_MEMBERS: Final = frozenset({"cc_eventlog", "measure_register", "report_data", "svn"})
_DEVICE_MEMBERS: Final = frozenset({"report_data", "svn"})
_REGISTER: Final = re.compile(r"[0-9a-f]{64}")
_REGISTER_INDEX: Final = 1
_MAX_REPORT_DATA: Final = 64


def judge_sample(evidence: bytes, *, expected_report_data: bytes | None) -> dict[str, object]:
    """Claims of sample evidence: `{"sample": {...}, "report_data": base64}`.

    Args:
        evidence: JSON text; at most 4 MiB.
        expected_report_data: compared exactly; None to skip that.

    Raises:
        UntrustedPeerError: not such evidence (evidence_malformed), bound to something else
            (binding_mismatch), or its log tells another story (event_log_mismatch).
    """
    members = _parse(evidence, _MEMBERS, "1")
    register = members.get("measure_register")
    if not isinstance(register, str) or not _REGISTER.fullmatch(register):
        raise malformed(f"{_WHAT} needs measure_register, 64 hexadecimal digits")
    _check_report_data(members, expected_report_data)
    log = members.get("cc_eventlog")
    if log is not None:
        _check_log(member_octets(members, "cc_eventlog", _WHAT), bytes.fromhex(register))
    claims = {"cc_eventlog": log, "measure_register": register, "svn": members["svn"]}
    return {"sample": claims, "report_data": members["report_data"]}


def judge_sample_device(
    evidence: bytes, *, expected_report_data: bytes | None
) -> dict[str, object]:
    """Claims of a sample device: `{"sampledevice": {"svn": "2"}}`; arguments as `judge_sample`.

    Raises:
        UntrustedPeerError: not such evidence, or bound to something else.
    """
    members = _parse(evidence, _DEVICE_MEMBERS, "2")
    _check_report_data(members, expected_report_data)
    return {"sampledevice": {"svn": members["svn"]}}


def _parse(evidence: bytes, allowed: frozenset[str], svn: str) -> dict[str, Json]:
    members = evidence_members(evidence, _WHAT)
    if members.keys() - allowed:
        raise malformed(f"{_WHAT} has other members than {', '.join(sorted(allowed))}")
    if members.get("svn") != svn:
        raise malformed(f"{_WHAT} needs svn, the text {svn!r}")
    return members


def _check_report_data(members: dict[str, Json], expected: bytes | None) -> None:
    seen = member_octets(members, "report_data", _WHAT)
    if len(seen) > _MAX_REPORT_DATA:
        raise malformed(f"{_WHAT} has more than {_MAX_REPORT_DATA} octets of report data")
    if expected is not None and not hmac.compare_digest(seen, expected):
        raise UntrustedPeerError(
            f"sample evidence has report data {seen.hex()}, expected {expected.hex()}",
            code=ErrorCode.BINDING_MISMATCH,
        )


def _check_log(log: bytes, register: bytes) -> None:
    replayed = bytes(len(register))
    for position, entry in enumerate(parse_event_log(log)):
        if entry.index != _REGISTER_INDEX:
            continue
        digest = entry.digest(HashAlgorithm.SHA256)
        if digest is None:
            raise _mismatch(f"entry {position} of the event log has no SHA-256 digest")
        replayed = hashlib.sha256(replayed + digest).digest()
    if not hmac.compare_digest(replayed, register):
        raise _mismatch(
            f"the event log replays to {replayed.hex()}, measure_register is {register.hex()}"
        )


def _mismatch(message: str) -> UntrustedPeerError:
    return UntrustedPeerError(message, code=ErrorCode.EVENT_LOG_MISMATCH)
