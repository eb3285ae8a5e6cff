"""Judges whose verdict is known beforehand, in place of one that asks an attestation service."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import trio

from tng.attest.statement import Statement
from tng.errors import AppraiserError, ErrorCode, UntrustedPeerError
from tng.verdict import AttestedPeer, Check, Outcome, Verdict

FAR_FUTURE = 4102444800.0


def verdict(*, accepted: bool, valid_until: float = FAR_FUTURE) -> Verdict:
    """A verdict of one check."""
    outcome = Outcome.PASS if accepted else Outcome.FAIL
    return Verdict(
        accepted=accepted,
        code=None if accepted else ErrorCode.POLICY_DENIED,
        checks=(Check(1, "what the test wants", outcome, "decided beforehand"),),
        tee="tdx",
        simulated=True,
        policy_ids=("default",),
        peer=hashlib.sha256(b"peer").hexdigest(),
        judged_at=0.0,
        valid_until=valid_until if accepted else 0.0,
    )


class Judge:
    """Accepts everybody; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        self.asked += 1
        return AttestedPeer(verdict(accepted=True), "token")

    def judged_nowait(self, certificate_der: bytes) -> AttestedPeer | None:
        return None

    async def judge_statement(self, statement: Statement, peer: str) -> AttestedPeer:
        return await self.judge(statement.fingerprint(), peer)

    def judged_statement_nowait(self, statement: Statement) -> AttestedPeer | None:
        return None

    async def challenge(self) -> str:
        return "challenge"

    @property
    def models(self) -> tuple[str, ...]:
        return ("background_check",)

    async def aclose(self) -> None:
        """There is nothing to close."""

    async def run(self) -> None:
        await trio.sleep_forever()

    @property
    def not_ready(self) -> str | None:
        return None

    def verdicts(self) -> Mapping[str, Verdict]:
        return {}


class Refusing(Judge):
    """Finds everybody untrustworthy."""

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        self.asked += 1
        raise UntrustedPeerError(
            "the test refuses", code=ErrorCode.POLICY_DENIED, verdict=verdict(accepted=False)
        )


class Absent(Judge):
    """Cannot be reached."""

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        self.asked += 1
        raise AppraiserError("http://as.example is away")


class Broken(Judge):
    """Fails in a way that nobody foresaw."""

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        self.asked += 1
        raise ZeroDivisionError


class Undecided(Judge):
    """Never comes to a verdict."""

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        self.asked += 1
        await trio.sleep_forever()
        raise AssertionError
