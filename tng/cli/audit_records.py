"""What an audit log says: one record per decision, of a gateway or of the attestation service.

Decisions in, records for `observe.audit` out.  `opened` is the log that they go to.

Invariant: a record holds digests, names and verdicts; what looks like a credential is masked.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from tng import __version__
from tng.observe.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tng.attest.verifier.judgements import Judged
    from tng.clock import Clock
    from tng.gateway.entries import Trust
    from tng.observe.audit import AuditLog
    from tng.observe.audit_chain import Json, Record
    from tng.trustee.decisions import Decision


@contextlib.contextmanager
def opened(path: Path, clock: Clock, command: str) -> Iterator[AuditLog]:
    """The audit log at `path`, for the block; begin and end are records of their own.

    Args:
        path: of the file.
        clock: the time of day.
        command: who writes, e.g. "launch".

    Raises:
        StartError: it cannot be opened, or ends with a line that was altered.
    """
    from tng.observe.audit import AuditLog

    with AuditLog(path, clock) as audit:
        audit.write(_life("started", command, clock))
        try:
            yield audit
        finally:
            audit.write(_life("stopped", command, clock))


@contextlib.contextmanager
def audited(path: Path | None, clock: Clock, command: str) -> Iterator[Trust]:
    """What makes a gateway's judges, for the block: they write into the audit log, if there is one.

    Args:
        path: of the file; None for no audit log.
        clock: the time of day.
        command: who writes, e.g. "launch".

    Raises:
        StartError: as `opened`.
    """
    from tng.cli.collateral import judge_with_surroundings
    from tng.gateway.entries import Trust

    if path is None:
        yield Trust(make_verifier=judge_with_surroundings)
        return
    with opened(path, clock, command) as audit:
        make = functools.partial(judge_with_surroundings, on_decision=on_judgement(audit))
        yield Trust(make_verifier=make)


def judgement(judged: Judged) -> Record:
    """The record of a peer's examination."""
    from tng.attest.verifier.explain import as_json

    return {
        "kind": "judgement",
        "at": judged.verdict.judged_at,
        "peer": redact(judged.peer),
        "shown": judged.shown.hex(),
        "reason": redact(judged.reason),
        "verdict": _masked(as_json(judged.verdict)),
    }


def decision(decided: Decision) -> Record:
    """The record of a decision of the attestation service or of the key broker."""
    return {
        "kind": "decision",
        "at": decided.at,
        "act": decided.act.value,
        "granted": decided.granted,
        "subject": redact(decided.subject),
        "target": redact(decided.target),
        "code": decided.code,
        "simulated": decided.simulated,
        "client": decided.client,
    }


def on_judgement(audit: AuditLog) -> Callable[[Judged], None]:
    """Writes judgements there."""
    return lambda judged: audit.write(judgement(judged))


def on_decision(audit: AuditLog) -> Callable[[Decision], None]:
    """Writes decisions there."""
    return lambda decided: audit.write(decision(decided))


def _life(what: str, command: str, clock: Clock) -> Record:
    return {"kind": what, "at": clock.now(), "command": command, "version": __version__}


def _masked(value: Json) -> Json:
    match value:
        case str():
            return redact(value)
        case list():
            return [_masked(each) for each in value]
        case dict():
            return {name: _masked(each) for name, each in value.items()}
    return value
