"""What is measured: pairs of an ingress and an egress on loopback, in front of cheap backends.

In: which implementation, multiplexed or not, attested or not.  Out: a running pair, ready.  The
ingress is an HTTP proxy reached by CONNECT, the egress maps one port to each backend; of OHTTP
pairs the ingress maps ports as well.  Both implementations get the same configuration except for
what their kind needs.  Two systems are no pairs: no gateway at all, and a bare forwarder, one
process of C that takes a CONNECT and passes octets on: the least that any pair does as well.
Invariant: `multiplex` is written only where the kind says so; everything else has its default.
"""

from __future__ import annotations

import enum
import json
import pathlib
import sys
from dataclasses import dataclass
from typing import Final

from bench.load import build
from bench.processes import HOST, Process, Stage, StartFailed, choose_ports

ROOT: Final = pathlib.Path(__file__).parents[1]
REFERENCE: Final = ROOT / ".reference" / "bin" / "tng"
BACKENDS: Final = ("bulk", "http", "sse")
_WORKERS: Final = 2
"""Processes of a side that has workers: as many as the smallest machine has processors."""


class System(enum.Enum):
    """A pair of gateways, or what stands in its place."""

    DIRECT = "no gateway"
    FORWARDER = "bare forwarder"
    OURS = "ours"
    OURS_RAW = "ours raw"
    REFERENCE = "reference"
    REFERENCE_MULTIPLEXED = "reference multiplexed"
    OURS_ATTESTED = "ours attested"
    REFERENCE_ATTESTED = "reference attested"
    REFERENCE_ATTESTED_MULTIPLEXED = "reference attested multiplexed"
    OURS_OHTTP = "ours OHTTP"
    OURS_OHTTP_WORKERS = "ours OHTTP 2 workers"
    REFERENCE_OHTTP = "reference OHTTP"

    @property
    def is_reference(self) -> bool:
        """Whether it runs the reference's binary."""
        return self.value.startswith("reference")

    @property
    def is_attested(self) -> bool:
        """Whether the egress shows evidence and the ingress has it judged."""
        return "attested" in self.value

    @property
    def is_ohttp(self) -> bool:
        """Whether HTTP requests are carried one by one, instead of streams."""
        return "OHTTP" in self.value

    @property
    def multiplex(self) -> bool | None:
        """What both ends have for `multiplex`; None when nothing is written."""
        if self is System.OURS_RAW:
            return False
        return True if "multiplexed" in self.value else None


@dataclass(frozen=True, slots=True)
class Judges:
    """What attested pairs need beside them, the same for both implementations.

    Attributes:
        evidence: port of the API server that hands out simulated TDX evidence.
        trustee: port of the attestation service that judges it.
    """

    evidence: int
    trustee: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A running pair; for `System.DIRECT` nothing runs, for `System.FORWARDER` one process.

    Attributes:
        system: which.
        proxy: port of the ingress, or of the forwarder; 0 where no proxy is.
        ports: backend to the port that stands for it at the egress; where the ingress maps ports,
            at the ingress; its own port where no pair runs.
        processes: egress and ingress, the forwarder, or none.
        start_s: seconds from start to ready, of each gateway.
        base_memory: resident octets of all processes before the first connection.
    """

    system: System
    proxy: int
    ports: dict[str, int]
    processes: tuple[Process, ...]
    start_s: tuple[float, ...]
    base_memory: int

    def cpu_s(self) -> float:
        """CPU seconds so far, all processes."""
        return sum(process.cpu_s() for process in self.processes)

    def memory(self) -> int:
        """Resident octets, all processes."""
        return sum(process.memory() for process in self.processes)

    def stop(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.stop()

    def words(self, backend: str) -> list[str]:
        """Arguments of the load generator that lead through this pair."""
        words = ["-p", str(self.ports[backend]), "-x", str(self.proxy)]
        return [*words, "-r"] if self.system.is_ohttp else words


def start_backends(stage: Stage) -> dict[str, int]:
    """Start all backends; name to port."""
    binary = str(build())
    ports = {}
    for name in BACKENDS:
        process = stage.start(f"backend {name}", [binary, "serve", name])
        ports[name] = int(process.await_line(""))
    return ports


def start_judges(stage: Stage) -> Judges:
    """Start an API server with simulated evidence and an attestation service that trusts it."""
    platform = str(stage.folder / "platform")
    evidence = stage.start("evidence", [sys.executable, "-m", "bench.evidence", platform])
    evidence_port = int(evidence.await_line("listening on "))
    trustee = stage.start(
        "trustee",
        [
            *(sys.executable, "-m", "tng", "trustee", "--listen", f"{HOST}:0"),
            *("--state", str(stage.folder / "trustee"), "--allow-simulated", platform),
        ],
    )
    address = trustee.await_line("listening on ")
    return Judges(evidence_port, int(address.rpartition(":")[2].strip("/")))


def start_pair(
    stage: Stage, system: System, backends: dict[str, int], judges: Judges | None
) -> Pair:
    """Start one pair, or what stands in its place, and wait until all of it is ready.

    Raises:
        StartFailed: a process did not become ready.
    """
    if system is System.DIRECT:
        return Pair(system, 0, backends, (), (), 0)
    if system is System.FORWARDER:
        return _start_forwarder(stage, backends)
    proxy, *controls = choose_ports(3 + 2 * len(backends))
    egress_ports = dict(zip(backends, controls[2 : 2 + len(backends)], strict=True))
    ports = egress_ports
    ingress = _ingress(system, proxy, judges)
    if system.is_ohttp:
        proxy, ports = 0, dict(zip(backends, controls[2 + len(backends) :], strict=True))
        ingress = _mapping(ports, egress_ports) | {"ohttp": {}, "no_ra": True}
    configs: tuple[dict[str, object], dict[str, object]] = (
        {"add_egress": [_egress(system, backends, egress_ports, judges)]},
        {"add_ingress": [ingress]},
    )
    processes: list[Process] = []
    start_s: list[float] = []
    for side, config, control in zip(("egress", "ingress"), configs, controls[:2], strict=True):
        full = {**config, "control_interface": {"restful": {"host": HOST, "port": control}}}
        process = stage.start(f"{system.value} {side}", _launch(system, full))
        processes.append(process)
        start_s.append(process.await_ready(control))
    memory = sum(process.memory() for process in processes)
    return Pair(system, proxy, ports, tuple(processes), tuple(start_s), memory)


def _start_forwarder(stage: Stage, backends: dict[str, int]) -> Pair:
    process = stage.start(System.FORWARDER.value, [str(build()), "forward"])
    proxy = int(process.await_line(""))
    return Pair(System.FORWARDER, proxy, backends, (process,), (), process.memory())


def _launch(system: System, config: dict[str, object]) -> list[str]:
    program = [str(REFERENCE)] if system.is_reference else [sys.executable, "-m", "tng"]
    workers = ["--workers", str(_WORKERS)] if system is System.OURS_OHTTP_WORKERS else []
    return [*program, "launch", *workers, "--config-content", json.dumps(config)]


def _ingress(system: System, proxy: int, judges: Judges | None) -> dict[str, object]:
    entry: dict[str, object] = {"http_proxy": {"proxy_listen": {"host": HOST, "port": proxy}}}
    if system.is_attested:
        verify: dict[str, object] = {
            "model": "background_check",
            "as_addr": f"http://{HOST}:{_needed(judges).trustee}/",
            "policy_ids": ["default"],
        }
        if not system.is_reference:
            verify["allow_simulated"] = True  # an extension of ours
        return _with_transport(system, {**entry, "verify": verify})
    return _with_transport(system, {**entry, "no_ra": True})


def _egress(
    system: System, backends: dict[str, int], listen: dict[str, int], judges: Judges | None
) -> dict[str, object]:
    entry = _mapping(listen, backends)
    if system.is_attested:
        attest = {
            "model": "background_check",
            "aa_provider": "coco_asr",
            "asr_addr": f"http://{HOST}:{_needed(judges).evidence}",
        }
        return _with_transport(system, {**entry, "attest": attest})
    return _with_transport(system, {**entry, "no_ra": True})


def _mapping(listen: dict[str, int], targets: dict[str, int]) -> dict[str, object]:
    """Each backend's port to its target."""
    rules = [
        {
            "in": {"host": HOST, "port": listen[name]},
            "out": {"host": HOST, "port": targets[name]},
        }
        for name in listen
    ]
    return {"mapping": {"rules": rules}}


def _with_transport(system: System, entry: dict[str, object]) -> dict[str, object]:
    if system.is_ohttp:
        return {**entry, "ohttp": {}}
    if system.multiplex is None:
        return entry
    return {**entry, "rats_tls": {"multiplex": system.multiplex}}


def _needed(judges: Judges | None) -> Judges:
    if judges is None:
        raise StartFailed("an attested pair needs the judges")
    return judges
