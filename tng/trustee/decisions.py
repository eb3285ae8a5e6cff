"""What the service decided, one value per decision: the seam to an audit log.

A `Decision` is made where something is granted or refused: evidence judged, a secret released,
something changed by an administrator.  Whoever keeps records passes a callable.

Invariant: no decision holds a secret, a token or evidence.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Act(enum.StrEnum):
    """What was decided about."""

    APPRAISE = "appraise"
    RELEASE = "release"
    ADMINISTER = "administer"


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision.

    Attributes:
        act: what it is about.
        granted: the answer.
        at: Unix time, seconds.
        subject: who asked: SHA-256 of the TEE's key, hexadecimal; "admin"; "" if unknown.
        target: what was asked for, e.g. "kbs:///default/test/key" or "policy default".
        code: why not, as a `ProblemCode`; "" when granted.
        simulated: no hardware stands behind the evidence.
        client: address of who asked; "" if unknown.
    """

    act: Act
    granted: bool
    at: float
    subject: str
    target: str
    code: str = ""
    simulated: bool = False
    client: str = ""


Decided = Callable[[Decision], None]
"""Receives every decision, in order; must not block and must not raise."""


def forget(decision: Decision) -> None:
    """Keep no record; the log lines of the service remain."""
