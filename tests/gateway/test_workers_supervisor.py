"""The supervisor, with workers that are played by tasks of the test."""

from __future__ import annotations

import json
import os
import pathlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stage.gateways import free_port, http_proxy, listen, mapping
from stage.judges import Absent, Judge
from tng.clock import SystemClock
from tng.errors import ConfigError, StartError, TngError
from tng.gateway.entries import Trust
from tng.gateway.netfilter.capturing import has_net_admin
from tng.gateway.workers.frames import dump_frame
from tng.gateway.workers.link import Link
from tng.gateway.workers.reports import COUNTERS
from tng.gateway.workers.slot import END_TIMEOUT_S
from tng.gateway.workers.supervisor import DRAIN_GRACE_S, Supervisor


def server(key: str) -> dict[str, object]:
    return {"url": "http://127.0.0.1:5/", "server_public_key": key}


def report(count: int, *reasons: str, servers: Sequence[object] = ()) -> dict[str, object]:
    numbers = dict.fromkeys(COUNTERS, count)
    shard = {"id": 0, "active_streams": 1}
    endpoint = {"endpoint": "10.0.0.1:1", "shard_count": 1, "cooling_shards": 0, "shards": [shard]}
    pool = {"overflowed_streams": 1, "endpoints": [endpoint]}
    entry = {"numbers": {**numbers, "cx_active": 1}, "pool": pool, "servers": list(servers)}
    return {"not_ready": list(reasons), "entries": {"add_ingress[0]": entry}}


class Played:
    """A worker process that is a task: answers as its script says."""

    def __init__(self, cast: Cast, number: int, link: int) -> None:
        self.pid = number
        self.asked: list[str] = []
        self.carried: dict[str, object] = {}
        self._cast = cast
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(_dup(link)))
        self._status: int | None = None
        self._ended = trio.Event()

    async def live(self) -> None:
        link = Link(self._stream, self._answer)
        if self._cast.garbage:
            await self._stream.send_all(dump_frame({"no": "such message"}))
        try:
            await link.run()
        finally:
            if not self._cast.is_stubborn:
                self.end(0)

    async def _answer(self, question: str, carried: dict[str, object]) -> dict[str, object]:
        self.asked.append(question)
        if question == "start":
            self.carried = carried
            if self._cast.start_error is not None:
                raise self._cast.start_error
        if question in self._cast.silent_about:
            await trio.sleep_forever()
        if question in self._cast.errors:
            raise self._cast.errors[question]
        if question == "report" and carried["servers"]:
            own = {"url": f"http://127.0.0.1:{self.pid}/"}
            return report(10, *self._cast.reasons, servers=[server(f"{self.pid:02x}"), own])
        return report(10, *self._cast.reasons) if question == "report" else {}

    async def wait(self) -> int:
        await self._ended.wait()
        assert self._status is not None
        return self._status

    def kill(self) -> None:
        self.end(-9)

    def end(self, status: int) -> None:
        if self._status is None:
            self._status = status
            self._ended.set()


class Cast:
    """All the processes of a test."""

    def __init__(self) -> None:
        self.processes: list[Played] = []
        self.silent_about: set[str] = set()
        self.reasons: tuple[str, ...] = ()
        self.start_error: TngError | None = None
        self.errors: dict[str, TngError] = {}
        self.descriptors = 1
        self.garbage = False
        self.is_stubborn = False
        self.cannot_start = False
        self.nursery: trio.Nursery | None = None

    async def start(self, link: int, listening: Sequence[int]) -> Played:
        if self.cannot_start:
            raise StartError("no more processes")
        process = Played(self, len(self.processes), link)
        self.processes.append(process)
        assert len(listening) == self.descriptors
        assert self.nursery is not None
        self.nursery.start_soon(process.live)
        return process


def _dup(descriptor: int) -> socket.socket:
    return socket.socket(fileno=os.dup(descriptor))


def make_config(**more: object) -> dict[str, object]:
    verify = {"as_addr": "http://127.0.0.1:1/", "policy_ids": ["default"]}
    return {"add_ingress": [{**http_proxy(free_port()), "verify": verify}], **more}


@asynccontextmanager
async def supervised(
    cast: Cast, workers: int = 2, judge: Judge | None = None, **more: object
) -> AsyncIterator[Supervisor]:
    trust = Trust(make_verifier=lambda _verify, _clock: judge or Judge())
    supervisor = Supervisor(
        json.dumps(make_config(**more)), workers, cast.start, SystemClock(), trust
    )
    async with trio.open_nursery() as nursery:
        cast.nursery = nursery
        try:
            await nursery.start(supervisor.serve)
            yield supervisor
        finally:
            nursery.cancel_scope.cancel()


def total(supervisor: Supervisor) -> tuple[int, int]:
    meter = supervisor.entries[0].meter
    return meter.cx_total, meter.cx_active


def is_about_deaths(group: ExceptionGroup[Exception]) -> bool:
    """Whether everything in the group says why the supervisor ends."""
    known, other = group.split(StartError)
    return other is None and "5 workers died within 10 s" in repr(known)


async def test_ready_when_all_workers_serve(autojump_clock: trio.testing.MockClock) -> None:
    cast = Cast()
    async with supervised(cast) as supervisor:
        assert supervisor.not_ready() == []
        assert len(cast.processes) == 2
        assert {"http_proxy"} <= set(
            json.loads(str(cast.processes[0].carried["config"]))["add_ingress"][0]
        )
        cast.reasons = ("add_egress[0]: no certificate",)
        await supervisor.refresh()
        assert supervisor.not_ready()[0] == "worker 0: add_egress[0]: no certificate"


async def test_not_ready_before_the_start_and_without_a_judge(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Away(Absent):
        @property
        def not_ready(self) -> str | None:
            return "away"

    trust = Trust(make_verifier=lambda _verify, _clock: Away())
    unstarted = Supervisor(json.dumps(make_config()), 1, Cast().start, SystemClock(), trust)
    assert unstarted.not_ready() == ["starting"]
    async with supervised(Cast(), judge=Away()) as supervisor:
        assert supervisor.not_ready() == ["add_ingress[0]: away"]


async def test_counts_are_summed_and_survive_a_death(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cast = Cast()
    async with supervised(cast) as supervisor:
        await trio.testing.wait_all_tasks_blocked()
        await supervisor.refresh()
        assert total(supervisor) == (20, 2)
        cast.processes[0].kill()
        await trio.testing.wait_all_tasks_blocked()
        await supervisor.refresh()
        assert total(supervisor) == (20, 1)
        assert [reason[-11:] for reason in supervisor.not_ready()] == ["not running"]
        await trio.sleep(0.5)
        await supervisor.refresh()
        assert total(supervisor) == (30, 2)
        assert supervisor.not_ready() == []
    assert len(cast.processes) == 3


async def test_sums_are_reported_once_for_all_workers_and_a_last_time_at_the_end(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cast = Cast()
    metric = {"exporters": [{"type": "stdout", "step": 10}]}
    async with supervised(cast, metric=metric) as supervisor:
        await trio.sleep(25)
        assert caplog.text.count("current metrics live=1") == 2
        assert caplog.text.count("cx_total=20 cx_active=2") == 2
        await supervisor.drain()
        assert cast.processes[0].asked[-1] == "report"  # what was counted while draining
        assert caplog.text.count("current metrics live=1") == 3


async def test_pools_are_merged_and_shards_say_whose_they_are(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with supervised(Cast()) as supervisor:
        await supervisor.refresh()
        pool = supervisor.pool_status(supervisor.entries[0])
    assert pool is not None
    assert pool["overflowed_streams"] == 2
    assert pool["endpoints"] == [
        {
            "endpoint": "10.0.0.1:1",
            "shard_count": 2,
            "cooling_shards": 0,
            "shards": [
                {"id": 0, "active_streams": 1, "worker": 0},
                {"id": 0, "active_streams": 1, "worker": 1},
            ],
        }
    ]


async def test_a_worker_that_does_not_answer_is_not_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cast = Cast()
    async with supervised(cast, 1) as supervisor:
        cast.silent_about = {"report"}
        await supervisor.refresh()
        assert "does not answer" in supervisor.not_ready()[0]
        cast.silent_about = set()
        await supervisor.refresh()
        assert supervisor.not_ready() == []


async def test_five_deaths_within_ten_seconds_end_the_supervisor(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cast = Cast()
    cast.start_error = StartError("no memory")
    with pytest.raises(ExceptionGroup, check=is_about_deaths):
        async with supervised(cast):
            raise AssertionError
    assert len(cast.processes) <= 6


async def test_processes_that_cannot_be_started_count_as_dead(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cast = Cast()
    cast.cannot_start = True
    with pytest.raises(ExceptionGroup, check=is_about_deaths):
        async with supervised(cast):
            raise AssertionError


async def test_deaths_now_and_then_are_healed_with_the_shortest_pause(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cast = Cast()
    async with supervised(cast, 1) as supervisor:
        for _ in range(7):
            await trio.sleep(12)
            cast.processes[-1].kill()
            await trio.sleep(0.2)
            assert supervisor.not_ready() == []
    assert len(cast.processes) == 8


async def test_a_worker_that_talks_nonsense_is_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cast = Cast()
    async with supervised(cast, 1) as supervisor:
        cast.garbage, cast.is_stubborn = True, True
        cast.processes[0].kill()
        await trio.sleep(1)
        assert supervisor.not_ready() != []
        cast.garbage = False
        await trio.sleep(END_TIMEOUT_S + 1)
        assert supervisor.not_ready() == []


async def test_draining_waits_for_every_worker_and_restarts_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cast = Cast()
    async with supervised(cast) as supervisor:
        await supervisor.drain()
        assert supervisor.not_ready() == ["stopping"]
        assert all(process.asked[-1] == "drain" for process in cast.processes)
        cast.processes[0].end(0)
        await trio.sleep(30)
    assert len(cast.processes) == 2


async def test_a_worker_in_its_pause_is_not_started_again_by_a_drain(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cast = Cast()
    async with supervised(cast) as supervisor:
        cast.processes[0].kill()
        await trio.testing.wait_all_tasks_blocked()
        await supervisor.drain()
        await trio.sleep(30)
    assert len(cast.processes) == 2


async def test_draining_has_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    cast = Cast()
    cast.silent_about = {"drain"}
    async with supervised(cast, drain_timeout_secs=3) as supervisor:
        began = trio.current_time()
        await supervisor.drain()
        assert trio.current_time() - began == pytest.approx(3 + DRAIN_GRACE_S)


async def test_a_worker_that_does_not_end_is_killed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cast = Cast()
    cast.is_stubborn = True
    async with supervised(cast, 1):
        began = trio.current_time()
    assert await cast.processes[0].wait() == -9
    assert trio.current_time() - began >= END_TIMEOUT_S


@pytest.mark.slow
async def test_the_control_interface_speaks_for_all_workers() -> None:
    control = free_port()
    cast = Cast()
    more = {"control_interface": {"restful": listen(control)}}
    async with supervised(cast, **more), httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{control}"
        assert (await client.get(f"{url}/readyz")).text == "ok"
        metrics = (await client.get(f"{url}/metrics")).text
        assert any(
            line.startswith("tng_cx_total{") and line.endswith(" 20")
            for line in metrics.splitlines()
        )
        pool = (await client.get(f"{url}/status/ingress/0/rats_tls/pool")).json()
        assert pool["endpoints"][0]["shard_count"] == 2
        cast.silent_about = {"report"}
        assert (await client.get(f"{url}/livez")).status_code == 200
        assert (await client.get(f"{url}/readyz")).status_code == 503


async def test_a_port_in_use_is_an_error_before_any_process_starts() -> None:
    cast = Cast()
    config = make_config()
    port = config["add_ingress"][0]["http_proxy"]["proxy_listen"]["port"]
    with socket.create_server(("127.0.0.1", port), reuse_port=True):
        supervisor = Supervisor(json.dumps(config), 2, cast.start, SystemClock())
        with pytest.raises(StartError, match="in use"):
            await supervisor.serve()
    assert cast.processes == []


async def test_a_missing_capability_is_an_error_before_any_process_starts(tmp_path) -> None:
    cast, status = Cast(), tmp_path / "status"
    status.write_text("CapEff:\t0000000000000000\n", encoding="ascii")
    entries = [{"netfilter": {"capture_dst": [{"port": port}]}, "no_ra": True} for port in (80, 81)]
    text = json.dumps({"add_ingress": entries})
    supervisor = Supervisor(text, 2, cast.start, SystemClock())
    supervisor._plan._captures._status = status
    with pytest.raises(StartError, match="CAP_NET_ADMIN"):
        await supervisor.serve()
    assert cast.processes == []


@pytest.mark.skipif(
    not has_net_admin(pathlib.Path("/proc/self/status").read_text(encoding="ascii")),
    reason="SO_MARK needs CAP_NET_ADMIN",
)
async def test_what_the_supervisor_asks_is_not_captured_by_the_workers() -> None:
    cast = Cast()
    cast.descriptors = 2
    entries = [{"netfilter": {"capture_dst": [{"port": port}]}, "no_ra": True} for port in (80, 81)]
    async with supervised(cast, add_ingress=entries):
        with trio.socket.socket() as question:
            assert question.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 565
        sockets = cast.processes[0].carried["sockets"]
        assert isinstance(sockets, dict)
        assert [len(each) for each in sockets.values()] == [2]


def test_udp_modes_are_refused_with_what_to_do() -> None:
    udp = {"mapping_udp": {"in": listen(9), "out": listen(8)}, "no_ra": True}
    config = json.dumps(make_config(add_egress=[udp]))
    with pytest.raises(ConfigError, match=r"add_egress\[0\]\.mapping_udp: .*leave out --workers"):
        Supervisor(config, 2, Cast().start, SystemClock())


# -- OHTTP ---------------------------------------------------------------------------------


def ohttp_ingress() -> dict[str, object]:
    return {"add_ingress": [{**http_proxy(free_port()), "ohttp": {}, "no_ra": True}]}


def ohttp_egress(**key: object) -> dict[str, object]:
    attest = {"aa_type": "simulated", "simulated_platform": "/nowhere"}
    entry = {**mapping(free_port(), 1), "ohttp": {"key": key} if key else {}, "attest": attest}
    return {"add_ingress": [], "add_egress": [entry]}


async def test_egresses_known_to_any_worker_are_shown_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cast = Cast()
    async with supervised(cast, **ohttp_ingress()) as supervisor:
        [entry] = supervisor.entries
        assert supervisor.keys_status(entry) == {"servers": []}
        await supervisor.refresh()
        status = supervisor.keys_status(entry)
        assert status is not None
        known = status["servers"]
        assert isinstance(known, list)
        assert sorted(one["url"] for one in known) == [
            f"http://127.0.0.1:{port}/" for port in (0, 1, 5)
        ]
        cast.processes[0].kill()
        await trio.testing.wait_all_tasks_blocked()
        status = supervisor.keys_status(entry)
        assert status == {"servers": [server("01"), {"url": "http://127.0.0.1:1/"}]}


async def test_an_entry_of_another_transport_has_no_keys() -> None:
    async with supervised(Cast()) as supervisor:
        assert supervisor.keys_status(supervisor.entries[0]) is None


async def test_workers_of_an_egress_get_keys_and_a_table_before_they_start(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cast = Cast()
    cast.descriptors = 2
    async with supervised(cast, **ohttp_egress()) as supervisor:
        assert [process.asked[:2] for process in cast.processes] == [["keys", "start"]] * 2
        tables = {process.carried["table"] for process in cast.processes}
        assert len(tables) == 1
        table = tables.pop()
        assert isinstance(table, int)
        assert os.fstat(table).st_size > 0
        status = supervisor.keys_status(supervisor.entries[0])
        assert status is not None
        assert status["key_manager_type"] == "self_generated"
        await trio.sleep(301)  # by the clock of the tasks alone: the keys stay
        assert cast.processes[0].asked.count("keys") == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(table)


async def test_a_worker_that_does_not_take_its_keys_is_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cast = Cast()
    cast.descriptors, cast.errors = 2, {"keys": TngError("cannot be read")}
    with pytest.raises(ExceptionGroup, check=is_about_deaths):
        async with supervised(cast, 1, **ohttp_egress()):
            raise AssertionError


async def test_a_worker_that_takes_no_further_keys_is_ended(
    autojump_clock: trio.testing.MockClock, tmp_path: pathlib.Path
) -> None:
    cast = Cast()
    cast.descriptors = 2
    path = write_key(tmp_path / "key")
    async with supervised(cast, 1, **ohttp_egress(source="file", path=path)):
        cast.errors = {"keys": TngError("cannot be read")}
        write_key(tmp_path / "key")
        await trio.sleep(1.2)  # the file is looked at every second
        assert await cast.processes[0].wait() == -9


def write_key(path: pathlib.Path) -> str:
    private = X25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem)
    path.chmod(0o600)
    return str(path)


async def test_a_file_that_holds_no_key_is_an_error_before_any_process_starts(
    tmp_path: pathlib.Path,
) -> None:
    cast = Cast()
    (tmp_path / "key").write_text("no key")
    config = ohttp_egress(source="file", path=str(tmp_path / "key"))
    with pytest.raises(ExceptionGroup) as caught:
        async with supervised(cast, **config):
            raise AssertionError
    assert caught.group_contains(ConfigError, match="cannot use")
    assert cast.processes == []
