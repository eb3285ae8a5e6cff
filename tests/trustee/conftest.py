"""A running attestation service in a thread, and requests to it."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.clock import Clock, FixedClock
from tng.endpoint import Endpoint
from tng.trustee.decisions import Decision
from tng.trustee.server import TrusteeSettings, serve

NOW = 1_795_000_000
CLAIMS = {"pubkey-hash": "gg" + "A" * 46}


class Trustee:
    """One service in a thread of its own."""

    def __init__(self, settings: TrusteeSettings, clock: Clock) -> None:
        self.settings = settings
        self.error: Exception | None = None
        self.url = ""
        self.decisions: list[Decision] = []
        self._clock = clock
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._up.wait(20)
        if self.error is not None:
            self._thread.join()
            raise self.error
        self.http = httpx.Client(base_url=self.url, timeout=20, trust_env=False)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as exc:  # noqa: BLE001 - shown to the test that starts it
            self.error = exc
        self._up.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await serve(
            self.settings,
            self._clock,
            ready=self._ready,
            stop=self._stop,
            decided=self.decisions.append,
        )

    def _ready(self, url: str) -> None:
        self.url = url
        self._up.set()

    def stop(self) -> None:
        self.http.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()


@dataclasses.dataclass
class Requests:
    """Bodies of `POST /attestation`, in both dialects."""

    claims: dict = dataclasses.field(default_factory=lambda: dict(CLAIMS))

    @property
    def digest(self) -> bytes:
        text = json.dumps(self.claims, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha384(text.encode()).digest()

    def one(self, tee: str, evidence: bytes, /, **changes: object) -> dict:
        return {
            "tee": tee,
            "evidence": base64.urlsafe_b64encode(evidence).rstrip(b"=").decode(),
            "runtime_data": {"structured": self.claims},
            "init_data": None,
            "runtime_data_hash_algorithm": "sha384",
            **changes,
        }

    def listed(
        self, tee: str, evidence: bytes, policy: str = "default", /, **changes: object
    ) -> dict:
        return {
            "verification_requests": [self.one(tee, evidence, **changes)],
            "policy_ids": [policy],
        }

    def flat(
        self, tee: str, evidence: bytes, policy: str = "default", /, **changes: object
    ) -> dict:
        extra = {"init_data_hash_algorithm": None, "policy_ids": [policy]}
        return {**self.one(tee, evidence, **changes), **extra}

    def sample(self, **changes: object) -> bytes:
        members = {
            "measure_register": "00" * 32,
            "report_data": base64.b64encode(self.digest).decode(),
            "svn": "1",
        }
        return json.dumps({**members, **changes}).encode()


@pytest.fixture
def requests() -> Requests:
    return Requests()


@pytest.fixture(scope="session")
def platform_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("simulated") / "platform"
    SimulatedPlatform.create(directory, now=NOW)
    return directory


@pytest.fixture(scope="session")
def platform(platform_directory: Path) -> SimulatedPlatform:
    return SimulatedPlatform.load(platform_directory)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Trustee]]:
    """Start a service; it is stopped after the test."""
    running: list[Trustee] = []

    def make(clock: Clock | None = None, **changes: object) -> Trustee:
        settings = TrusteeSettings(Endpoint("127.0.0.1", 0), tmp_path / "state")
        settings = dataclasses.replace(settings, **changes)
        running.append(Trustee(settings, clock or FixedClock(NOW)))
        return running[-1]

    yield make
    for trustee in running:
        if trustee._thread.is_alive():
            trustee.stop()


@pytest.fixture(scope="module")
def start_for_module(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Trustee]]:
    """Start a service; it is stopped after the last test of the file."""
    running: list[Trustee] = []

    def make(**changes: object) -> Trustee:
        state = tmp_path_factory.mktemp("service") / "state"
        settings = TrusteeSettings(Endpoint("127.0.0.1", 0), state)
        running.append(Trustee(dataclasses.replace(settings, **changes), FixedClock(NOW)))
        return running[-1]

    yield make
    for service in running:
        service.stop()


@pytest.fixture(scope="module")
def trustee(
    tmp_path_factory: pytest.TempPathFactory, platform_directory: Path
) -> Iterator[Trustee]:
    """A service that takes simulated and sample evidence; one for all tests of a file."""
    settings = TrusteeSettings(
        Endpoint("127.0.0.1", 0),
        tmp_path_factory.mktemp("trustee") / "state",
        simulated=platform_directory,
        allow_sample=True,
    )
    running = Trustee(settings, FixedClock(NOW))
    yield running
    running.stop()
