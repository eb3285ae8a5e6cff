"""The attestation service as a running server: what it is made of, and its life.

`serve(settings, ...)` builds every part, listens, and returns after `stop` is set.  It runs in
an asyncio loop of its own.

Invariants: at most MAX_CONNECTIONS clients; a client that sends nothing, or slowly, is let go;
the state directory is locked from before the first key is read until after the last answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
from aiohttp import web

from tng.attest.devices import NVIDIA, SAMPLE_DEVICE
from tng.attest.reference_values.factory import load_keys
from tng.attest.tdx.appraisal import DEFAULT_TCB_STATUSES
from tng.attest.tdx.collateral import INTEL_PCS_URL
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.errors import StartError
from tng.trustee.app import REQUEST_DEADLINE_S, Parts, make_app
from tng.trustee.attestation import AttestationService
from tng.trustee.challenge import Challenger
from tng.trustee.collateral import CachedCollateral, pccs_fetcher
from tng.trustee.decisions import Decided, forget
from tng.trustee.device_evidence import DeviceVerifier
from tng.trustee.grpc_endpoint import GrpcParts, grpc_endpoint
from tng.trustee.kbs.admin_gate import AdminGate, read_admin_key
from tng.trustee.kbs.broker import KeyBroker
from tng.trustee.kbs.broker import Parts as BrokerParts
from tng.trustee.kbs.database import Database
from tng.trustee.kbs.reference_values import ReferenceValues
from tng.trustee.kbs.release import Releaser
from tng.trustee.kbs.resource_policy import ResourcePolicy
from tng.trustee.kbs.resources import Resources
from tng.trustee.kbs.sealed_directory import SealedDirectory
from tng.trustee.policies import Policies
from tng.trustee.problems import TrusteeRequestError
from tng.trustee.rego_process import LIMIT_S, RegoProcess
from tng.trustee.sample_evidence import SampleVerifier
from tng.trustee.state import StateDirectory
from tng.trustee.status import collateral_dependency, signer_dependency, status_body
from tng.trustee.tdx_evidence import TdxVerifier

if TYPE_CHECKING:
    from tng.attest.policy.base import References
    from tng.attest.signer_identity import SignerIdentity
    from tng.clock import Clock
    from tng.endpoint import Endpoint
    from tng.trustee.appraised import TeeVerifier
    from tng.trustee.kbs.resources import SecretService

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 128
"""Clients at once: gateways keep one connection each; a body may take 16 MiB of memory."""

IDLE_S: Final = 60.0
"""Seconds from a connection's start, or its last answer, to the end of the next request's head;
also those in which a client must take something of an answer."""

MAX_HEADER_FIELD: Final = 64 * 1024
"""Octets of one header field: clients of the key broker may show a token in one, and the token of a
guest with a long event log has 55,000."""

MAX_HEADERS: Final = 64
"""Header fields of one request: with a proxy in front there are some twenty."""

_LINGER_S: Final = 2.0  # for reading on after an early refusal, so that the client sees the answer
_DRAIN_S: Final = 5.0  # for requests that are under way when the service stops


@dataclass(frozen=True, slots=True)
class TrusteeSettings:
    """What the operator chose.

    Attributes:
        listen: address and port; port 0 for any free one.
        state: directory of keys and policies.
        pccs: base address of the service that gives collateral.
        simulated: directory of the simulated platform that is trusted beside Intel; None for none.
        allow_sample: whether `sample` evidence is taken, which proves nothing.
        allowed_tcb_status: accepted TCB statuses, in Intel's words.
        admin_key: file of the administrator's public key; None for no administration, and then
            no secrets are given out.
        resource_key: file of the key that secrets at rest are sealed with; None for one in `state`.
        release_to_simulated: whether simulated and sample evidence gets secrets, too.
        grpc: address and port of the gRPC interface, port 0 for any free one; None for none.
        reference_keys: files of public keys that are trusted to sign reference values.
        deadline_s: seconds for one request.
        idle_s: see `IDLE_S`.
        rego_limit_s: seconds for one evaluation of Rego.
    """

    listen: Endpoint
    state: Path
    pccs: str = INTEL_PCS_URL
    simulated: Path | None = None
    allow_sample: bool = False
    allowed_tcb_status: frozenset[str] = DEFAULT_TCB_STATUSES
    admin_key: Path | None = None
    resource_key: Path | None = None
    release_to_simulated: bool = False
    grpc: Endpoint | None = None
    reference_keys: tuple[Path, ...] = ()
    deadline_s: float = REQUEST_DEADLINE_S
    idle_s: float = IDLE_S
    rego_limit_s: float = LIMIT_S


def dangers(settings: TrusteeSettings) -> list[str]:
    """One sentence for every switch that weakens the service."""
    found = []
    if settings.simulated is not None:
        found.append(
            f"SIMULATED TDX evidence of the platform in {settings.simulated} is accepted:"
            " no hardware stands behind it"
        )
    if settings.allow_sample:
        found.append("sample evidence is accepted: anybody can make it")
    if settings.release_to_simulated:
        found.append("secrets are released to SIMULATED evidence, too: anybody may get them")
    found += [
        f"listening on {listen}, which other machines may reach:"
        " there is neither TLS nor authentication here"
        for listen in (settings.listen, settings.grpc)
        if listen is not None and not _is_loopback(listen.host)
    ]
    if extra := sorted(settings.allowed_tcb_status - DEFAULT_TCB_STATUSES):
        found.append(f"platforms with TCB status {', '.join(extra)} are accepted")
    return found


async def serve(
    settings: TrusteeSettings,
    clock: Clock,
    *,
    ready: Callable[[str], None],
    stop: asyncio.Event,
    decided: Decided = forget,
    secret_services: Mapping[tuple[str, str], SecretService] | None = None,
) -> None:
    """Run the service.

    Args:
        settings: what the operator chose.
        clock: dates everything.
        ready: called once with the base URL when requests are answered, on both interfaces.
        stop: set it to end the service; requests under way get 5 seconds.
        decided: told of every decision.
        secret_services: key management services, by the repository and type that they answer for.

    Raises:
        StartError: the address, the state directory or the simulated platform cannot be used.
        ConfigError: a key of reference values cannot be used, or gRPC is asked for and not
            installed.
        EvidenceError: the simulated platform cannot be read or made.
    """
    for sentence in dangers(settings):
        log.warning("%s", sentence)
    async with contextlib.AsyncExitStack() as stack:
        state = stack.enter_context(StateDirectory.open(settings.state))
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=10.0))
        database = stack.enter_context(Database.open(settings.state / "broker.sqlite"))
        rego = stack.enter_context(RegoProcess(settings.rego_limit_s))
        keys = load_keys([str(path) for path in settings.reference_keys])
        references = ReferenceValues(database, keys)
        service = _make_service(settings, clock, _Stores(state, references, rego), client, decided)
        resources = Resources(
            SealedDirectory(
                settings.state / "resources", state.resource_key(settings.resource_key)
            ),
            secret_services,
        )
        policy = _resource_policy(database, rego)
        broker = _make_broker(settings, service, resources, policy, decided)
        parts = _make_parts(settings, service, broker)
        url = await stack.enter_async_context(_http_endpoint(settings, parts))
        if settings.grpc is not None:
            await stack.enter_async_context(grpc_endpoint(settings.grpc, _grpc_parts(parts)))
        log.info("trustee listening url=%s state=%s", url, settings.state)
        ready(url)
        await stop.wait()
        log.info("trustee stopping url=%s", url)


@dataclass(frozen=True, slots=True)
class _Stores:
    """What the attestation service reads, and what evaluates the Rego in it."""

    state: StateDirectory
    references: ReferenceValues
    rego: RegoProcess


@dataclass(frozen=True, slots=True)
class _Service:
    """The attestation service, and what it is made of."""

    attestation: AttestationService
    identity: SignerIdentity
    challenger: Challenger
    policies: Policies
    references: ReferenceValues
    collateral: CachedCollateral
    clock: Clock


def _make_service(
    settings: TrusteeSettings,
    clock: Clock,
    stores: _Stores,
    client: httpx.AsyncClient,
    decided: Decided,
) -> _Service:
    identity = stores.state.identity(clock.now())
    challenger = Challenger(stores.state.challenge_key())
    policies = Policies(stores.state, stores.rego.engine)
    collateral = CachedCollateral(pccs_fetcher(client, settings.pccs), clock)
    platform = (
        SimulatedPlatform.load_or_create(settings.simulated, int(clock.now()))
        if settings.simulated is not None
        else None
    )
    verifiers: dict[str, TeeVerifier] = {
        "tdx": TdxVerifier(collateral, platform, settings.allowed_tcb_status, clock),
        NVIDIA: DeviceVerifier(clock, allow_sample=False),
    }
    if settings.allow_sample:
        verifiers["sample"] = SampleVerifier()
        verifiers[SAMPLE_DEVICE] = DeviceVerifier(clock, allow_sample=True)

    async def references() -> References:
        return await stores.references.query(clock.now())

    attestation = AttestationService(
        identity, challenger, policies, verifiers, clock, decided, references
    )
    return _Service(
        attestation, identity, challenger, policies, stores.references, collateral, clock
    )


def _resource_policy(database: Database, rego: RegoProcess) -> ResourcePolicy:
    try:
        return ResourcePolicy(database, rego.engine)
    except TrusteeRequestError as exc:
        raise StartError(f"stored resource policy: {exc}") from exc


def _make_broker(
    settings: TrusteeSettings,
    service: _Service,
    resources: Resources,
    policy: ResourcePolicy,
    decided: Decided,
) -> KeyBroker:
    key = read_admin_key(settings.admin_key) if settings.admin_key is not None else None
    releaser = Releaser(
        service.identity,
        resources,
        policy,
        service.clock,
        decided,
        to_simulated=settings.release_to_simulated,
    )
    return KeyBroker(
        BrokerParts(
            service.attestation,
            releaser,
            resources,
            policy,
            service.references,
            AdminGate(key),
            service.clock,
            decided,
        )
    )


def _make_parts(settings: TrusteeSettings, service: _Service, broker: KeyBroker) -> Parts:
    def status() -> dict[str, object]:
        dependencies = [
            signer_dependency(service.identity.not_after, service.clock.now()),
            collateral_dependency(settings.pccs, service.collateral.last_error),
        ]
        return status_body(dependencies, dangers(settings))

    return Parts(
        service.attestation,
        service.challenger,
        service.policies,
        service.identity,
        status,
        service.clock,
        broker,
        settings.deadline_s,
    )


def _grpc_parts(parts: Parts) -> GrpcParts:
    return GrpcParts(
        parts.attestation, parts.challenger, parts.status, parts.clock, parts.deadline_s
    )


@contextlib.asynccontextmanager
async def _http_endpoint(settings: TrusteeSettings, parts: Parts) -> AsyncIterator[str]:
    """Answer over HTTP for the block; yields the base URL."""
    runner = web.AppRunner(
        make_app(parts),
        access_log=None,
        handle_signals=False,
        keepalive_timeout=settings.idle_s,
        lingering_time=_LINGER_S,
        auto_decompress=False,
        max_field_size=MAX_HEADER_FIELD,
        max_headers=MAX_HEADERS,
        shutdown_timeout=_DRAIN_S,
    )
    await runner.setup()
    try:
        server = await _listen(runner, settings.listen, settings.idle_s)
        try:
            address, port = server.sockets[0].getsockname()[:2]
            yield f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
        finally:
            server.close()
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, listen: Endpoint, idle_s: float) -> asyncio.Server:
    server = runner.server
    assert server is not None  # setup() has run

    try:
        return await asyncio.get_running_loop().create_server(
            lambda: _Gate(server, idle_s), listen.host, listen.port, backlog=MAX_CONNECTIONS
        )
    except OSError as exc:
        raise StartError(f"cannot listen on {listen}: {exc.strerror or exc}") from exc


class _Gate(asyncio.Protocol):
    """First protocol of a connection: lets it through to HTTP, or closes it above the limit."""

    def __init__(self, server: web.Server, idle_s: float) -> None:
        self._server = server
        self._idle_s = idle_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Decide.  Here and not at accept: accepted connections come in batches, uncounted."""
        if len(self._server.connections) >= MAX_CONNECTIONS:
            log.warning("connection refused: %d are open", MAX_CONNECTIONS)
            transport.close()
            return
        # Answers that are not taken hold a place here, and HTTP has no time limit for them.
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(self._idle_s * 1000))
        )
        handler = self._server()
        transport.set_protocol(handler)
        handler.connection_made(transport)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
