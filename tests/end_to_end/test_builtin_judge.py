"""The builtin service judges a platform in software: gateways, and `tng verify`."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from stage.gateways import free_port, mapping, serving
from stage.octet_service import octet_service, octets
from stage.processes import get

pytestmark = pytest.mark.slow

Section = dict[str, object]


def section(platform: pathlib.Path | None, *, allow_simulated: bool = True) -> Section:
    """A `verify` section with the builtin service, and perhaps the platform that it knows."""
    named = {} if platform is None else {"simulated_platform": str(platform)}
    return {"as_type": "builtin", "allow_simulated": allow_simulated, **named}


Variant = Callable[[pathlib.Path], Section | list[Section]]
ACCEPTING: dict[str, Variant] = {
    "the platform": section,
    "the second of two": lambda platform: [section(None), section(platform)],
}
REFUSING: dict[str, Variant] = {
    "simulated evidence is not allowed": lambda p: section(p, allow_simulated=False),
    "the platform is not named": lambda _: section(None),
    "another platform": lambda p: section(p.with_name("another")),
    "a policy that asks for values that nobody gave": lambda p: {
        **section(p),
        "attestation_policy": {"type": "hardware_strict_with_reference_values"},
    },
}


@asynccontextmanager
async def egress(platform: pathlib.Path, service: int) -> AsyncIterator[int]:
    """The port of an egress that shows evidence of the platform."""
    port = free_port()
    attest = {"aa_type": "simulated", "simulated_platform": str(platform)}
    config = {"add_egress": [{**mapping(port, service), "attest": attest}]}
    async with serving(config) as gateway:
        with trio.fail_after(10):
            while gateway.not_ready():
                await trio.sleep(0.01)
        yield port


@pytest.mark.parametrize("name", [*ACCEPTING, *REFUSING])
async def test_traffic_flows_if_the_platform_is_known_and_simulated_evidence_allowed(
    tmp_path: pathlib.Path, name: str
) -> None:
    platform, entrance = tmp_path / "platform", free_port()
    verify = (ACCEPTING | REFUSING)[name](platform)
    with octet_service() as service:
        async with egress(platform, service.port) as port:
            config = {"add_ingress": [{**mapping(entrance, port), "verify": verify}]}
            async with serving(config):
                seen = await trio.to_thread.run_sync(get, entrance, "/octets/1000")
    assert seen == ((200, octets(1000)) if name in ACCEPTING else (None, b""))


@pytest.mark.parametrize("name", [*ACCEPTING, *REFUSING])
async def test_the_command_line_says_the_same(tmp_path: pathlib.Path, name: str) -> None:
    platform = tmp_path / "platform"
    verify = json.dumps((ACCEPTING | REFUSING)[name](platform))
    async with egress(platform, 1) as port:
        command = [sys.executable, "-m", "tng", "verify", f"127.0.0.1:{port}", "--verify", verify]
        done = await trio.run_process(
            command, capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )
    said = done.stdout.decode()
    assert done.returncode == (0 if name in ACCEPTING else 1), said
    assert "simulated" in said.lower()
    assert "Traceback" not in said
