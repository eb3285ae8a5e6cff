"""A vendor, a machine and a guest in software, whose every part a test can replace."""

from __future__ import annotations

import base64
import dataclasses
import json
from dataclasses import dataclass

import pytest

from tng.attest.tdx.appraisal import TdxAppraisal, judge_tdx
from tng.attest.tdx.collateral import Collateral
from tng.attest.tdx.simulator.authority import Authority
from tng.attest.tdx.simulator.collateral import make_collateral
from tng.attest.tdx.simulator.eventlog import SimulatedEventLog, make_boot_log
from tng.attest.tdx.simulator.host import SimulatedHost
from tng.attest.tdx.simulator.profile import HostProfile, TrustDomain

NOW = 1_767_225_600
REPORT_DATA = b"report data of a test".ljust(64, b"\0")


@dataclass
class Workshop:
    """Everything needed to make good evidence, and to make it slightly wrong."""

    authority: Authority
    host: SimulatedHost
    log: SimulatedEventLog
    domain: TrustDomain
    collateral: Collateral
    now: int = NOW

    def quote(self, *, version: int = 4, **domain: object) -> bytes:
        changed = dataclasses.replace(self.domain, **domain)
        return self.host.quote(REPORT_DATA, changed, version=version)

    def other_host(self, *, authority: Authority | None = None, **profile: object) -> SimulatedHost:
        changed = dataclasses.replace(HostProfile(), **profile)
        return SimulatedHost.create(authority or self.authority, changed, NOW)

    def with_members(self, **members: object) -> Collateral:
        return dataclasses.replace(self.collateral, **members)

    def signed_tcb_info(self, statement: dict[str, object]) -> Collateral:
        text, signature = self.authority.sign_json(statement)
        return self.with_members(tcb_info=text, tcb_info_signature=signature)

    def signed_qe_identity(self, statement: dict[str, object]) -> Collateral:
        text, signature = self.authority.sign_json(statement)
        return self.with_members(qe_identity=text, qe_identity_signature=signature)

    def evidence(self, quote: bytes, **members: object) -> bytes:
        log = base64.b64encode(self.log.to_bytes()).decode()
        whole = {"quote": base64.b64encode(quote).decode(), "cc_eventlog": log} | members
        return json.dumps(whole).encode()

    def judge(
        self, quote: bytes, collateral: Collateral | None = None, **arguments: object
    ) -> TdxAppraisal:
        given = {
            "expected_report_data": REPORT_DATA,
            "collateral": collateral or self.collateral,
            "now": self.now,
            "root_ca_der": self.authority.root_der,
        } | arguments
        return judge_tdx(self.evidence(quote), **given)


@pytest.fixture(scope="session")
def workshop() -> Workshop:
    authority = Authority.create(NOW)
    log = make_boot_log()
    return Workshop(
        authority=authority,
        host=SimulatedHost.create(authority, HostProfile(), NOW),
        log=log,
        domain=TrustDomain(log.registers),
        collateral=make_collateral(authority, NOW),
    )
