"""The netfilter_udp ways in and out in one process; the kernel's rules are left out here."""

from __future__ import annotations

import json
import os

import pytest
import trio

from stage.datagrams import Client, echo
from tng.clock import SystemClock
from tng.config.loader import prepare_config
from tng.endpoint import Endpoint
from tng.errors import ConfigError, StartError
from tng.gateway.app import Gateway
from tng.gateway.datagrams import Door
from tng.gateway.egress import netfilter_udp as way_out
from tng.gateway.egress.datagram_sessions import DatagramEgress
from tng.gateway.ingress import netfilter_udp as way_in
from tng.gateway.ingress.datagram_clients import DatagramIngress
from tng.gateway.netfilter.datagrams import CapturedDatagrams
from tng.observe.metrics import EntryMeter
from tng.tunnel.quic.client import QuicClient
from tng.tunnel.quic.sockets import CapturedPeer

MARK = 7
NO_RA = {"no_ra": True}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets and marks need root")


def door(mode: str, target: Endpoint) -> Door:
    """As the mode's own, but every datagram counts as captured, and has one target."""
    return Door(
        mode,
        lambda: CapturedDatagrams(Endpoint("127.0.0.1", 0), MARK, lambda _to, _own: False),
        lambda _: target,
        MARK,
    )


@needs_root
async def test_sessions_are_answered_through_the_raw_socket_at_both_ends() -> None:
    meters = EntryMeter(), EntryMeter()
    async with echo() as service, trio.open_nursery() as nursery:
        to_service = door("netfilter_udp", Endpoint("127.0.0.1", service.port))
        egress = DatagramEgress(to_service, None, None, SystemClock(), 30, None, meters[0])
        to_egress = door("netfilter_udp", Endpoint(*egress.bind().getsockname()[:2]))
        client = QuicClient(None, None, SystemClock(), 30, MARK)
        ingress = DatagramIngress(to_egress, client, 30, None, meters[1])
        port = ingress.bind().getsockname()[1]
        await nursery.start(egress.run)
        await nursery.start(ingress.run)
        async with Client(port) as one, Client(port) as other:
            for size in (1, 0, 1300):
                assert await one.ask(b"x" * size) == b"x" * size
            assert await other.ask(b"other") == b"other"
        assert [meter.cx_active for meter in meters] == [2, 2]
        nursery.cancel_scope.cancel()


@needs_root
@pytest.mark.parametrize(("side", "host"), [("ingress", "127.0.0.1"), ("egress", "0.0.0.0")])
def test_where_rules_lead_to_is_open_to_whom_they_lead_there(side: str, host: str) -> None:
    entry = {"netfilter_udp": {"capture_dst": {"port": 9}, "so_mark": 3}, **NO_RA}
    config = prepare_config(json.dumps({f"add_{side}": [entry]}))
    made = (
        way_in.door(config.add_ingress[0].netfilter_udp)
        if side == "ingress"
        else way_out.door(config.add_egress[0].netfilter_udp)
    )
    assert (made.mode, made.mark) == ("netfilter_udp", 3)
    assert made.target_of(CapturedPeer("192.0.2.1", 1, "192.0.2.2", 2)) == Endpoint("192.0.2.2", 2)
    sock = made.make_socket()
    try:
        assert sock.getsockname()[0] == host
    finally:
        sock.close()


def test_both_sides_are_made_from_a_configuration_and_named_by_their_listener() -> None:
    capture = {"capture_dst": {"port": 9}}
    entries = {
        "add_ingress": [{"netfilter_udp": {**capture, "listen_port": 5001}, **NO_RA}],
        "add_egress": [{"netfilter_udp": {**capture, "listen_port": 5002}, **NO_RA}],
    }
    gateway = Gateway(prepare_config(json.dumps(entries)), SystemClock())
    assert [type(entry.datagrams) for entry in gateway.entries] == [DatagramIngress, DatagramEgress]
    assert [entry.mode for entry in gateway.entries] == ["netfilter_udp"] * 2
    labels = [" ".join(entry.meter.labels.values()) for entry in gateway.entries]
    assert "5001" in labels[0]
    assert "5002" in labels[1]


def test_a_mark_that_rules_give_to_captured_packets_is_refused() -> None:
    entry = {"netfilter_udp": {"so_mark": 0x540001}, **NO_RA}
    with pytest.raises(ConfigError, match="so_mark"):
        Gateway(prepare_config(json.dumps({"add_ingress": [entry]})), SystemClock())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open raw sockets")
def test_without_the_capability_the_socket_says_which_it_needs() -> None:
    with pytest.raises(StartError, match="CAP_NET_RAW"):
        CapturedDatagrams(Endpoint("127.0.0.1", 0), MARK, lambda _to, _own: False)
