"""The key source `directory` beside the reference's `tools key-sync`, which fills the folder."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Iterator

import pytest
import trio

from stage.evidence_server import evidence_server
from stage.gateways import free_port
from stage.processes import Process, running
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.clock import SystemClock
from tng.tunnel.ohttp.keyring import Key
from tng.tunnel.ohttp.keys_directory import DirectoryKeys

REFERENCE = pathlib.Path(__file__).resolve().parents[2] / ".reference" / "bin" / "tng"

INTERVAL_S = 2

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(
        not REFERENCE.exists(), reason="the reference is not there: tools/reference"
    ),
]


@contextlib.contextmanager
def key_sync(folder: pathlib.Path, out: pathlib.Path) -> Iterator[Process]:
    """A cluster of one node of the reference, which is judged by `tng trustee`."""
    port, home = free_port(), folder / "platform"
    with contextlib.ExitStack() as stack:
        platform = SimulatedPlatform.create(home, now=int(SystemClock().now()))
        server = stack.enter_context(evidence_server(platform))
        words = ["--listen", f"127.0.0.1:{port}", "--state", str(folder / "state")]
        words += ["--allow-simulated", str(home)]
        trustee = stack.enter_context(running(folder, "trustee", "-m", "tng", "trustee", *words))
        trustee.await_http(port, "/as/certificate")
        attest = {"model": "background_check", "aa_provider": "coco_asr", "asr_addr": server}
        verify = {
            "model": "background_check",
            "as_provider": "coco",
            "as_type": "restful",
            "as_addr": f"http://127.0.0.1:{port}/as/",
            "policy_ids": ["default"],
        }
        words = ["tools", "key-sync", "--host", "127.0.0.1", "--port", str(free_port())]
        words += ["--rotation-interval", str(INTERVAL_S), "--out-dir", str(out)]
        words += ["--attest", json.dumps(attest), "--verify", json.dumps(verify)]
        yield stack.enter_context(running(folder, "key-sync", *words, program=str(REFERENCE)))


async def test_keys_that_the_reference_writes_are_followed(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, clock = tmp_path / "keys", SystemClock()
    out.mkdir()
    with key_sync(tmp_path, out) as process, trio.fail_after(40):
        source = DirectoryKeys(str(out), clock, "key.path")
        async with trio.open_nursery() as nursery:
            await nursery.start(source.run)
            while source.not_ready is not None:
                assert process.popen.poll() is None, process.log
                await trio.sleep(0.05)
            offered: set[bytes] = set()
            while len(offered) < 4:
                key: Key | None = source.keyring.active(clock.now())
                assert key is not None, "between two keys there was none"
                assert key.expire_at - key.actived_at == pytest.approx(2 * INTERVAL_S)
                offered.add(key.public_key)
                await trio.sleep(0.05)
            assert 2 <= len(source.keyring) <= 5
            nursery.cancel_scope.cancel()
    assert "left out" not in caplog.text
    assert "chmod" not in caplog.text
