"""Simulated platforms, the attestation service that knows one of them, gateways that use both."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator

from stage.evidence_server import evidence_server
from stage.gateways import free_port
from stage.processes import Process, running
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.clock import SystemClock

REFERENCE = pathlib.Path(__file__).resolve().parents[3] / ".reference" / "bin" / "tng"
"""The other make, if it is installed."""

Parts = tuple[dict[str, object], dict[str, object]]


@dataclasses.dataclass(frozen=True)
class Vouchers:
    """What entries name: an attestation service, and platforms with their REST servers.

    Attributes:
        service: address of the attestation service.
        ca: its certificate authority.
        platforms: whether it knows the platform, to folder and address.
    """

    service: str
    ca: pathlib.Path
    platforms: dict[bool, tuple[pathlib.Path, str]]

    def attest(self, who: str, *, known: bool = True, passport: bool = False) -> dict[str, object]:
        folder, server = self.platforms[known]
        if who == "ours":
            found: dict[str, object] = {"aa_type": "simulated", "simulated_platform": str(folder)}
        else:
            found = {"aa_provider": "coco_asr", "asr_addr": server}
        if passport:
            found |= {"model": "passport", "as_addr": self.service, "policy_ids": ["default"]}
        return found

    def verify(self, who: str, **changes: object) -> dict[str, object]:
        found: dict[str, object] = {"as_addr": self.service, "policy_ids": ["default"], **changes}
        return found | ({"allow_simulated": True} if who == "ours" else {})

    def parts(self, setup: str, ingress: str, egress: str, *, known: bool = True) -> Parts:
        """The parts of an ingress and an egress entry that say who is to be trusted."""
        match setup:
            case "no_ra":
                return {"no_ra": True}, {"no_ra": True}
            case "background_check":
                far = {"attest": self.attest(egress, known=known)}
                return {"verify": self.verify(ingress)}, far
            case "passport":
                far = {"attest": self.attest(egress, known=known, passport=True)}
                return {"verify": self.verify(ingress, model="passport")}, far
            case "mutual":
                near = {"verify": self.verify(ingress), "attest": self.attest(ingress)}
                return near, {"verify": self.verify(egress), "attest": self.attest(egress)}
            case "reverse_passport":
                near = {"attest": self.attest(ingress, known=known, passport=True)}
                return near, {"verify": self.verify(egress, model="passport")}
        near = {"attest": self.attest(ingress, known=known)}
        return near, {"verify": self.verify(egress)}


@contextlib.contextmanager
def vouchers(folder: pathlib.Path) -> Iterator[Vouchers]:
    """Everything that vouches, for the block; the attestation service is a process of its own."""
    now = int(SystemClock().now())
    homes = {known: folder / ("known" if known else "stranger") for known in (True, False)}
    port = free_port()
    with contextlib.ExitStack() as stack:
        platforms = {
            known: (
                home,
                stack.enter_context(evidence_server(SimulatedPlatform.create(home, now=now))),
            )
            for known, home in homes.items()
        }
        words = ["--listen", f"127.0.0.1:{port}", "--state", str(folder / "state")]
        words += ["--allow-simulated", str(homes[True])]
        process = stack.enter_context(running(folder, "trustee", "-m", "tng", "trustee", *words))
        process.await_http(port, "/as/certificate")
        yield Vouchers(f"http://127.0.0.1:{port}/as/", folder / "state" / "ca.pem", platforms)


@contextlib.contextmanager
def gateway(
    folder: pathlib.Path, who: str, name: str, config: dict[str, object]
) -> Iterator[tuple[Process, int]]:
    """A gateway of either make, started but perhaps not ready, and its control port."""
    control = free_port()
    restful = {"restful": {"host": "127.0.0.1", "port": control}}
    launch = ["launch", "--config-content", json.dumps({**config, "control_interface": restful})]
    if who == "ours":
        context = running(folder, name, "-m", "tng", *launch)
    else:
        context = running(folder, name, *launch, program=str(REFERENCE))
    with context as process:
        yield process, control
