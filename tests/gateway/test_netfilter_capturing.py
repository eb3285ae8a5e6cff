"""Rules from start to stop, against a machine that keeps them as the kernel does."""

from __future__ import annotations

import copy
import json
import logging
import os
import pathlib
import re
import socket
from collections.abc import Iterator, Sequence

import pytest
import trio

from tng.config.loader import prepare_config
from tng.errors import ConfigError, StartError
from tng.gateway.netfilter import capturing
from tng.gateway.netfilter.capturing import Captures, captures_of, has_net_admin
from tng.gateway.netfilter.commands import Commands, Done
from tng.gateway.netfilter.rules import SLOTS, Capture, Captured, ruleset
from tng.gateway.netfilter.slot import Slot, take_slot

BUILT_IN = ("INPUT", "OUTPUT", "PREROUTING")
ALL = "iptables iptables-nft iptables-legacy"

Tables = dict[str, dict[str, list[str]]]


class Machine:
    """What `iptables-save`, `iptables-restore` and `ip` do, on tables kept here.

    Args:
        programs: names of iptables that are installed.
        refuses: parts of rules that a kind refuses.
    """

    def __init__(self, programs: str = ALL, refuses: dict[str, str] | None = None) -> None:
        self.programs = programs.split()
        self.refuses = refuses or {}
        self.has_ip = True
        self.kinds: dict[str, Tables] = {kind: fresh() for kind in ("nf_tables", "legacy")}
        self.rules = ["0:\tfrom all lookup local", "32766:\tfrom all lookup main"]
        self.routes: list[str] = []
        self.fail_next = 0

    def find(self, name: str) -> str | None:
        if name == "ip":
            return "/sbin/ip" if self.has_ip else None
        return f"/sbin/{name}" if name.rpartition("-")[0] in self.programs else None

    async def run(self, arguments: Sequence[str], text: str) -> Done:
        await trio.lowlevel.checkpoint()
        name = pathlib.Path(arguments[0]).name
        kind = "legacy" if name.startswith("iptables-legacy") else "nf_tables"
        if name == "ip":
            return self.ip(list(arguments[2:]))
        if arguments[1:] == ["--version"]:
            return Done(0, f"iptables v1.8.9 ({kind})\n", "")
        if name.endswith("-save"):
            return Done(0, dump(self.kinds[kind]), "")
        if self.fail_next:
            self.fail_next -= 1
            return Done(4, "", "somebody else was faster")
        return self.restore(kind, text)

    def restore(self, kind: str, text: str) -> Done:
        tables = self.kinds[kind]
        after = copy.deepcopy(tables)
        table = ""
        for line in text.splitlines():
            if line == "COMMIT":
                tables[table] = after[table]
            elif line.startswith("*"):
                table = line[1:]
            elif self.refuses.get(kind, "\n") in line:
                return Done(2, "", f"iptables-restore: {line!r} refused\nline 3 failed")
            else:
                change(after[table], line)
        return Done(0, "", "")

    def ip(self, words: list[str]) -> Done:
        match words:
            case ["rule", "show"]:
                return Done(0, "".join(line + "\n" for line in self.rules), "")
            case ["rule", "add", "pref", preference, "fwmark", mark, "table", table]:
                self.rules.append(f"{preference}:\tfrom all fwmark {mark} lookup {table}")
            case ["rule", "del", "pref", preference, "fwmark", mark, "table", table]:
                self.rules.remove(f"{preference}:\tfrom all fwmark {mark} lookup {table}")
            case ["route", "replace", *route]:
                self.routes.append(" ".join(route))
            case ["route", "flush", "table", table]:
                self.routes = [line for line in self.routes if not line.endswith(f" {table}")]
            case _:
                return Done(255, "", f"what is {words}")
        return Done(0, "", "")


def fresh() -> Tables:
    return {table: {chain: [] for chain in BUILT_IN} for table in ("mangle", "nat")}


def change(chains: dict[str, list[str]], line: str) -> None:
    """One line of a ruleset; a KeyError or ValueError where the kernel would refuse it."""
    verb, _, rest = line.partition(" ")
    name, _, rule = rest.partition(" ")
    match verb:
        case "-A":
            chains[name].append(rule)
        case "-I":
            chains[name].insert(0, rule.removeprefix("1 "))
        case "-D":
            chains[name].remove(rule)
        case "-X":
            assert not chains[name], "a chain with rules cannot be removed"
            used = {word for rules in chains.values() for one in rules for word in one.split()}
            assert name not in used, "a chain that is led to cannot be removed"
            del chains[name]
        case _:
            assert verb.startswith(":"), line
            chains[verb[1:]] = []


def dump(tables: Tables) -> str:
    lines = []
    for table, chains in tables.items():
        lines += [f"*{table}", *(f":{name} - [0:0]" for name in chains)]
        lines += [f"-A {name} {rule}" for name, rules in chains.items() for rule in rules]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


@pytest.fixture
def legacy(tmp_path: pathlib.Path) -> pathlib.Path:
    """The kernel's list of legacy tables in use."""
    path = tmp_path / "ip_tables_names"
    path.write_text("mangle\nnat\n")
    return path


@pytest.fixture
def status(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "status"
    path.write_text("Name:\tpython\nCapEff:\t0000000000001000\n")
    return path


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def captures(
    machine: Machine, legacy: pathlib.Path, side: str = "egress", **more: object
) -> Captures:
    options = {"capture_dst": [{"port": 80}], **more}
    config = {f"add_{side}": [{"netfilter": options, "no_ra": True}]}
    return made(machine, legacy, config)


def made(machine: Machine, legacy: pathlib.Path, config: dict[str, object]) -> Captures:
    import json

    commands = Commands(machine.run, machine.find, legacy)
    return Captures(captures_of(prepare_config(json.dumps(config))), commands)


def led(captures: Captures, listener: socket.socket, path: str = "add_egress[0].netfilter") -> None:
    captures.led_to(path, listener)


def slots(machine: Machine) -> set[str]:
    text = "".join(dump(tables) for tables in machine.kinds.values())
    return set(re.findall(r"TNG_S[0-9]+", text)) | {
        line for line in machine.rules if "fwmark" in line
    }


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="transparent sockets need root")


async def test_rules_come_and_go(legacy, listener) -> None:
    machine = Machine()
    one = captures(machine, legacy)
    led(one, listener)
    await one.apply()
    port = listener.getsockname()[1]
    (jump,) = machine.kinds["nf_tables"]["nat"]["PREROUTING"]
    (_, redirect) = machine.kinds["nf_tables"]["nat"][jump.split()[-1]]
    assert redirect.endswith(f"REDIRECT --to-ports {port}")
    assert machine.routes == []
    await one.remove()
    await one.remove()
    assert machine.kinds == Machine().kinds


@needs_root
async def test_an_ingress_has_a_route_and_a_transparent_listener(legacy, listener) -> None:
    machine = Machine()
    one = captures(machine, legacy, "ingress")
    led(one, listener, "add_ingress[0].netfilter")
    assert listener.getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT) == 1
    await one.apply()
    assert len(machine.routes) == 1
    assert len(machine.rules) == 3
    await one.remove()
    assert machine.kinds == Machine().kinds
    assert (machine.rules, machine.routes) == (Machine().rules, [])


async def test_another_path_is_no_business_of_ours(legacy, listener) -> None:
    one = captures(Machine(), legacy)
    led(one, listener, "add_ingress[0].mapping")
    assert listener.getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT) == 0


async def test_without_captures_nothing_is_run(tmp_path, legacy) -> None:
    machine = Machine(programs="")
    mapping = {"mapping": {"in": {"port": 9}, "out": {"host": "h", "port": 1}}, "no_ra": True}
    one = made(machine, legacy, {"add_ingress": [mapping]})
    one.check()
    await one.apply()
    await one.remove()
    assert one.own_mark is None


async def test_what_others_have_stays(legacy, listener) -> None:
    machine = Machine()
    chains = machine.kinds["nf_tables"]["nat"]
    chains["PREROUTING"] = ["-p tcp -j KUBE"]
    chains["KUBE"] = ["-j RETURN"]
    before = copy.deepcopy(machine.kinds)
    one = captures(machine, legacy)
    led(one, listener)
    await one.apply()
    await one.remove()
    assert machine.kinds == before


def leave_behind(machine: Machine, kind: str, slot: int) -> None:
    """Rules and a route as a killed gateway leaves them."""
    model = Capture("ingress", 0, "tcp", prepare_capture())
    assert machine.restore(kind, ruleset(slot, "", [Captured(model, 9)])).status == 0
    mark = f"{0x540000 | slot << 8:#x}/0xffff00"
    machine.rules.append(f"{5400 + slot}:\tfrom all fwmark {mark} lookup {5400 + slot}")
    machine.routes.append(f"local default dev lo table {5400 + slot}")


def prepare_capture():
    config = '{"add_ingress": [{"netfilter": {"capture_dst": {"port": 1}}, "no_ra": true}]}'
    return prepare_config(config).add_ingress[0].netfilter


def dead_slot() -> int:
    """A high number that nobody holds."""
    for number in reversed(range(SLOTS)):
        slot = take_slot(number)
        if slot is not None:
            slot.release()
            return number
    raise AssertionError("all slots of this machine are taken")


@pytest.mark.parametrize("kind", ["nf_tables", "legacy"])
async def test_left_overs_of_a_killed_process_are_removed(legacy, listener, kind, caplog) -> None:
    machine = Machine()
    leave_behind(machine, kind, dead_slot())
    one = captures(machine, legacy)
    led(one, listener)
    with caplog.at_level(logging.WARNING):
        await one.apply()
    assert "removed the rules of a gateway that was killed" in caplog.text
    await one.remove()
    assert machine.kinds == Machine().kinds
    assert (machine.rules, machine.routes) == (Machine().rules, [])


async def test_rules_of_a_process_that_lives_stay(legacy, listener) -> None:
    machine = Machine()
    held = take_slot(dead_slot())
    assert held is not None
    try:
        leave_behind(machine, "nf_tables", held.number)
        before = slots(machine)
        one = captures(machine, legacy)
        led(one, listener)
        await one.apply()
        await one.remove()
        assert slots(machine) == before
    finally:
        held.release()


@pytest.mark.parametrize("side", ["egress", pytest.param("ingress", marks=needs_root)])
@pytest.mark.parametrize("kind", ["nf_tables", "legacy"])
async def test_a_restart_takes_the_place_of_what_the_slot_has(
    legacy, listener, kind, side, monkeypatch
) -> None:
    machine = Machine()
    number = dead_slot()
    leave_behind(machine, kind, number)
    monkeypatch.setattr(capturing, "take_free_slot", lambda: take_slot(number))
    one = captures(machine, legacy, side)
    led(one, listener, f"add_{side}[0].netfilter")
    await one.apply()
    assert len({line for line in machine.rules if "fwmark" in line}) == (side == "ingress")
    assert slots(machine) - set(machine.rules) == {f"TNG_S{number}"}
    assert machine.kinds["legacy"] == fresh(), "they are in the default back end now"
    await one.remove()
    assert machine.kinds == Machine().kinds
    assert machine.rules == Machine().rules


async def test_a_back_end_that_refuses_is_followed_by_the_other(legacy, listener) -> None:
    machine = Machine(refuses={"nf_tables": "REDIRECT"})
    one = captures(machine, legacy)
    led(one, listener)
    await one.apply()
    assert machine.kinds["nf_tables"] == fresh()
    assert machine.kinds["legacy"] != fresh()
    await one.remove()
    assert machine.kinds == Machine().kinds


async def test_rules_that_no_back_end_takes_are_an_error_and_leave_nothing(
    legacy, listener
) -> None:
    machine = Machine(refuses={"nf_tables": "REDIRECT", "legacy": "REDIRECT"})
    one = captures(
        machine,
        legacy,
        capture_cgroup=["/group"],
        capture_dst=[{"ipset": "services"}],
    )
    led(one, listener)
    with pytest.raises(StartError) as caught:
        await one.apply()
    words = str(caught.value)
    for word in ("refused", "(nf_tables)", "(legacy)", "exist: /group", "exist: services"):
        assert word in words
    assert machine.kinds == Machine().kinds


async def test_a_tool_that_is_missing_is_named(legacy, listener) -> None:
    one = captures(Machine(programs=""), legacy)
    led(one, listener)
    with pytest.raises(StartError, match="install the package iptables"):
        await one.apply()


@needs_root
async def test_an_ingress_needs_the_command_ip_and_an_egress_does_not(legacy, listener) -> None:
    machine = Machine()
    machine.has_ip = False
    one = captures(machine, legacy)
    led(one, listener)
    await one.apply()
    await one.remove()
    two = captures(machine, legacy, "ingress")
    led(two, listener, "add_ingress[0].netfilter")
    with pytest.raises(StartError, match="install the package iproute2"):
        await two.apply()
    assert machine.kinds == Machine().kinds


async def test_removing_is_tried_again_and_a_failure_is_told(legacy, listener, caplog) -> None:
    machine = Machine()
    one = captures(machine, legacy)
    led(one, listener)
    await one.apply()
    machine.fail_next = 2
    await one.remove()
    assert machine.kinds == Machine().kinds
    await one.apply()
    machine.fail_next = 3
    await one.remove()
    assert "rules of slot" in caplog.text
    assert "somebody else was faster" in caplog.text


async def test_rules_go_even_when_the_gateway_is_cancelled(legacy, listener) -> None:
    machine = Machine()
    one = captures(machine, legacy)
    led(one, listener)
    with trio.CancelScope() as scope:
        try:
            await one.apply()
            scope.cancel()
            await trio.sleep_forever()
        finally:
            await one.remove()
    assert scope.cancelled_caught
    assert machine.kinds == Machine().kinds


async def test_a_process_without_the_capability_is_told_what_to_do(legacy, status) -> None:
    config = '{"add_egress": [{"netfilter": {"capture_dst": {"port": 1}}, "no_ra": true}]}'
    wanted = captures_of(prepare_config(config))
    Captures(wanted, status=status).check()
    status.write_text("CapEff:\t000001ffffffefff\n")
    with pytest.raises(
        StartError, match=r"CAP_NET_ADMIN.*mapping, http_proxy, socks5, or `tng exec`"
    ):
        Captures(wanted, status=status).check()
    assert not has_net_admin("Name:\tpython\n")


def test_a_listener_that_cannot_be_transparent_is_an_error(legacy) -> None:
    one = captures(Machine(), legacy, "ingress")
    with socket.socket(socket.AF_UNIX) as unix, pytest.raises(StartError, match="CAP_NET_ADMIN"):
        one.led_to("add_ingress[0].netfilter", unix)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"so_mark": 0}, r"add_egress\[0\].netfilter.so_mark: expected a mark other than 0"),
        ({"so_mark": 0x540000}, "got 0x540000"),
        ({"capture_dst": [{"host": "2001:db8::/32"}]}, r"capture_dst\[0\].host: expected IPv4"),
    ],
)
def test_what_cannot_be_captured_is_an_error_of_the_configuration(legacy, options, words) -> None:
    with pytest.raises(ConfigError, match=words):
        captures(Machine(), legacy, **options)


def test_both_protocols_of_both_sides_are_captured_in_their_order() -> None:
    no_ra = {"no_ra": True}
    udp, tcp = {"netfilter_udp": {}, **no_ra}, {"netfilter": {"capture_dst": {"port": 1}}, **no_ra}
    other = {"mapping_udp": {"in": {"port": 9}, "out": {"host": "127.0.0.1", "port": 8}}, **no_ra}
    config = {"add_ingress": [tcp, other, udp], "add_egress": [udp, tcp]}
    wanted = captures_of(prepare_config(json.dumps(config)))
    assert [(capture.path, capture.protocol) for capture in wanted] == [
        ("add_ingress[0].netfilter", "tcp"),
        ("add_ingress[2].netfilter_udp", "udp"),
        ("add_egress[0].netfilter_udp", "udp"),
        ("add_egress[1].netfilter", "tcp"),
    ]
    assert [capture.keeps_destination for capture in wanted] == [True, True, True, False]


def test_the_number_of_captures_is_bounded() -> None:
    one = Capture("ingress", 0, "tcp", prepare_capture())
    with pytest.raises(ConfigError, match="at most 256 netfilter entries, got 257"):
        Captures([one] * 257)


def test_the_first_mark_is_that_of_connections_of_no_entry(legacy) -> None:
    assert captures(Machine(), legacy, so_mark=7).own_mark == 7


@pytest.mark.parametrize(
    ("text", "warns"),
    [
        ("00000000000000000000000000000001 01 80 10 80 lo\n", False),
        ("fe80000000000000 02 40 20 80 eth0\n20010db8 02 40 00 80 eth0\n", True),
        (None, False),
    ],
)
async def test_a_machine_with_ipv6_is_warned_about(
    legacy, listener, tmp_path, monkeypatch, caplog, text, warns
) -> None:
    path = tmp_path / "if_inet6"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(capturing, "_IPV6_ADDRESSES", path)
    one = captures(Machine(), legacy)
    led(one, listener)
    await one.apply()
    await one.remove()
    assert ("IPv6 connections are not captured" in caplog.text) is warns


def test_a_slot_is_held_once_and_free_when_its_holder_ends() -> None:
    number = dead_slot()
    first = take_slot(number)
    assert isinstance(first, Slot)
    assert take_slot(number) is None
    first.release()
    again = take_slot(number)
    assert again is not None
    again.release()


def test_when_all_slots_are_taken_it_is_said(monkeypatch) -> None:
    from tng.gateway.netfilter import slot

    monkeypatch.setattr(slot, "take_slot", lambda _number: None)
    with pytest.raises(StartError, match=r"64 gateways .* already"):
        slot.take_free_slot()


async def test_left_overs_are_not_looked_for_in_tables_that_nobody_uses(tmp_path) -> None:
    machine = Machine(programs="iptables-legacy")
    names = tmp_path / "ip_tables_names"
    commands = Commands(machine.run, machine.find, names)
    (backend,) = await commands.backends()
    assert backend.kind == "legacy"
    assert await commands.saved(backend) == ""
    names.write_text("")
    assert await commands.saved(backend) == ""
    names.write_text("nat\n")
    assert "*nat" in await commands.saved(backend)
