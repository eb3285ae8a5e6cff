"""What a worker tells of the egresses whose keys it knows."""

from __future__ import annotations

import json

from tng.clock import SystemClock
from tng.config.loader import prepare_config
from tng.gateway.app import Gateway
from tng.gateway.workers.frames import MAX_FRAME, dump_frame
from tng.gateway.workers.reports import (
    MAX_SERVERS,
    MAX_TOKEN,
    dump_report,
    merge_servers,
    parse_report,
)


def gateway(*known: list[dict[str, object]]) -> Gateway:
    """A gateway with an OHTTP ingress for each list of egresses that it knows, and others."""
    proxy = {"http_proxy": {"proxy_listen": {"host": "127.0.0.1", "port": 0}}, "no_ra": True}
    target = {"host": "127.0.0.1", "port": 1}
    ingresses = [{**proxy, "ohttp": {}} for _ in known]
    for number, one in enumerate(ingresses):
        one["http_proxy"] = {"proxy_listen": {"host": "127.0.0.1", "port": 10 + number}}
    plain = {"http_proxy": {"proxy_listen": {"host": "127.0.0.1", "port": 9}}, "no_ra": True}
    egress = {"mapping": {"in": {**target, "port": 8}, "out": target}, "ohttp": {}, "no_ra": True}
    config = {"add_ingress": [*ingresses, plain], "add_egress": [egress]}
    made = Gateway(prepare_config(json.dumps(config)), SystemClock())
    for entry, servers in zip(made.entries, known, strict=False):
        entry.keys_status = lambda servers=servers: {"servers": servers}
    return made


def server(number: int, token: str = "a.b.c") -> dict[str, object]:
    return {"url": f"http://127.0.0.1:{number}/", "server_attestation": token}


def test_egresses_are_told_of_only_when_they_are_asked_for() -> None:
    told = gateway([server(1)], [server(2), server(3)])
    with_servers = parse_report(dump_report(told, servers=True))
    assert [len(part.servers) for part in with_servers.entries.values()] == [1, 2, 0, 0]
    without = parse_report(dump_report(told))
    assert [len(part.servers) for part in without.entries.values()] == [0, 0, 0, 0]


def test_however_many_egresses_are_known_a_report_fits_in_a_frame() -> None:
    many = [server(number, "x" * MAX_TOKEN) for number in range(MAX_SERVERS)]
    told = gateway(many[:-1], many)
    report = dump_report(told, servers=True)
    parts = parse_report(report).entries
    counts = [len(parts[path].servers) for path in ("add_ingress[0]", "add_ingress[1]")]
    assert counts == [MAX_SERVERS - 1, 1]
    assert len(dump_frame({"id": 1, "answer": report})) < MAX_FRAME


def test_a_token_of_unusual_size_is_left_out() -> None:
    told = gateway([server(1, "x" * (MAX_TOKEN + 1)), server(2, "x" * MAX_TOKEN)])
    long, fitting = parse_report(dump_report(told, servers=True)).entries["add_ingress[0]"].servers
    assert long == {"url": "http://127.0.0.1:1/"}
    assert fitting == server(2, "x" * MAX_TOKEN)


def test_of_two_workers_that_know_an_egress_the_later_counts() -> None:
    merged = merge_servers([[server(1, "old"), server(2)], [server(1, "new")], ["no server"]])
    assert merged == {"servers": [server(1, "new"), server(2)]}
