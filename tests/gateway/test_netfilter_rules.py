"""Rulesets as text: what is captured, what is left alone, and that a change removes what was."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.config.capture import EgressNetfilter, EgressNetfilterUdp, Netfilter, NetfilterUdp
from tng.gateway.netfilter.rules import (
    SLOTS,
    Capture,
    Captured,
    is_capture_mark,
    ruleset,
    slot_mark,
    slots_in,
)

PORT = {"capture_dst": [{"port": 80}]}


def ingress(number: int = 0, port: int = 5000, **options: object) -> Captured:
    model = Netfilter.model_validate(options or PORT)
    return Captured(Capture("ingress", number, "tcp", model), port)


def egress(number: int = 0, port: int = 4000, **options: object) -> Captured:
    model = EgressNetfilter.model_validate(options or PORT)
    return Captured(Capture("egress", number, "tcp", model), port)


def lines(*captured: Captured, slot: int = 0, saved: str = "") -> list[str]:
    return ruleset(slot, saved, captured).splitlines()


def test_an_ingress_marks_what_programs_send_and_takes_what_is_marked() -> None:
    wanted = {"capture_dst": [{"host": "10.0.0.0/8", "port": 80}, {"port": 90, "port_end": 99}]}
    assert lines(ingress(**wanted)) == [
        "*mangle",
        ":TNG_S0_I0_PICK - [0:0]",
        ":TNG_S0_I0_PRE - [0:0]",
        ":TNG_S0_I0_OUT - [0:0]",
        "-A TNG_S0_I0_PICK -p tcp -d 10.0.0.0/8 --dport 80:80 -j MARK --set-mark 0x540000/0xffffff",
        "-A TNG_S0_I0_PICK -p tcp --dport 90:99 -j MARK --set-mark 0x540000/0xffffff",
        "-A TNG_S0_I0_PRE -p tcp -m mark --mark 0x540000/0xffffff"
        " -j TPROXY --on-ip 127.0.0.1 --on-port 5000 --tproxy-mark 0x540000/0xffffff",
        "-A TNG_S0_I0_OUT -m mark --mark 0x540000/0xffc000 -j RETURN",
        "-A TNG_S0_I0_OUT -m mark --mark 0x235 -j RETURN",
        "-A TNG_S0_I0_OUT -m addrtype --dst-type LOCAL -j RETURN",
        "-A TNG_S0_I0_OUT -m addrtype ! --dst-type UNICAST -j RETURN",
        "-A TNG_S0_I0_OUT -m addrtype ! --src-type LOCAL -j RETURN",
        "-A TNG_S0_I0_OUT -m conntrack --ctdir REPLY -j RETURN",
        "-A TNG_S0_I0_OUT -j TNG_S0_I0_PICK",
        "-I OUTPUT 1 -p tcp -j TNG_S0_I0_OUT",
        "-I PREROUTING 1 -p tcp -j TNG_S0_I0_PRE",
        "COMMIT",
    ]


def test_an_egress_redirects_what_other_machines_send() -> None:
    assert lines(egress()) == [
        "*nat",
        ":TNG_S0_E0_PRE - [0:0]",
        "-A TNG_S0_E0_PRE -m addrtype ! --dst-type LOCAL -j RETURN",
        "-A TNG_S0_E0_PRE -p tcp --dport 80:80 -j REDIRECT --to-ports 4000",
        "-I PREROUTING 1 -p tcp -j TNG_S0_E0_PRE",
        "COMMIT",
    ]


def test_an_egress_may_redirect_local_traffic_but_never_its_own() -> None:
    text = lines(egress(**PORT, capture_local_traffic=True, so_mark=7))
    assert "-I OUTPUT 1 -p tcp -j TNG_S0_E0_OUT" in text
    own = text.index("-A TNG_S0_E0_OUT -m mark --mark 0x7 -j RETURN")
    assert own < text.index("-A TNG_S0_E0_OUT -j TNG_S0_E0_PICK")


def test_control_groups_select_senders_on_this_machine() -> None:
    groups = {"capture_cgroup": ["/a"], "nocapture_cgroup": ["/a/b"]}
    out = [line for line in lines(ingress(**groups)) if line.startswith("-A TNG_S0_I0_OUT")]
    assert out[-2:] == [
        '-A TNG_S0_I0_OUT -m cgroup --path "/a/b" -j RETURN',
        '-A TNG_S0_I0_OUT -m cgroup --path "/a" -j TNG_S0_I0_PICK',
    ]
    assert "-A TNG_S0_I0_PICK -p tcp -j MARK --set-mark 0x540000/0xffffff" in lines(
        ingress(**groups)
    )
    for text in (lines(egress(**groups)), lines(egress(**groups, **PORT))):
        inside = [line for line in text if "cgroup" in line]
        assert all(line.startswith("-A TNG_S0_E0_OUT ") for line in inside), (
            "the kernel refuses control groups in what PREROUTING leads to"
        )
        assert len(inside) == 2
    assert not any("PREROUTING" in line for line in lines(egress(**groups)))


def test_udp_is_taken_by_tproxy_on_both_sides() -> None:
    options = NetfilterUdp.model_validate({})
    text = lines(Captured(Capture("ingress", 1, "udp", options), 5000))
    assert "-A TNG_S0_I1_PICK -p udp -j MARK --set-mark 0x540000/0xffffff" in text
    assert Capture("ingress", 1, "udp", options).path == "add_ingress[1].netfilter_udp"
    for local in (False, True):
        model = EgressNetfilterUdp.model_validate({**PORT, "capture_local_traffic": local})
        text = lines(Captured(Capture("egress", 0, "udp", model), 4000))
        assert ("-A TNG_S0_E0_PRE -m addrtype --src-type LOCAL -j RETURN" in text) is not local
        assert text[-3].startswith("-A TNG_S0_E0_PRE -p udp --dport 80:80 -j TPROXY ")
        spared = [
            "-A TNG_S0_E0_PRE -m mark --mark 0x235 -j RETURN",
            "-A TNG_S0_E0_PRE -m addrtype --src-type LOCAL -m conntrack --ctdir REPLY -j RETURN",
        ]
        assert (text[-5:-3] == spared) is local, "ours, and what services answer us"


def test_all_entries_know_the_marks_of_all_and_the_first_decides_first() -> None:
    text = lines(ingress(0, so_mark=1, **PORT), ingress(1, so_mark=2, **PORT), egress(), slot=3)
    for chain in ("I0", "I1"):
        assert f"-A TNG_S3_{chain}_OUT -m mark --mark 0x1 -j RETURN" in text
        assert f"-A TNG_S3_{chain}_OUT -m mark --mark 0x2 -j RETURN" in text
    inserted = [line.split()[-1] for line in text if line.startswith("-I OUTPUT")]
    assert inserted == ["TNG_S3_I1_OUT", "TNG_S3_I0_OUT"], "the last one inserted is on top"
    assert any("--set-mark 0x540301/0xffffff" in line for line in text)
    assert text.count("COMMIT") == 2


SAVED = """# Generated
*filter
:INPUT ACCEPT [0:0]
-A INPUT -j TNG_S1_I0_OUT
COMMIT
*mangle
:OUTPUT ACCEPT [9:9]
:OTHER - [0:0]
:TNG_INGRESS_0_OUTPUT - [0:0]
:TNG_S1_I0_OLD - [0:0]
:TNG_S1_I0_OUT - [0:0]
:TNG_S11_I0_OUT - [0:0]
-A OUTPUT -p tcp -j TNG_S1_I0_OUT
-A OUTPUT -p tcp -j TNG_S1_I0_OUT
-A OUTPUT -p tcp -j TNG_S11_I0_OUT
-A OUTPUT -m comment --comment "-j TNG_S1_I0_OUT" -j OTHER
-A OTHER -g TNG_S1_I0_OLD
-A TNG_S1_I0_OUT -j TNG_S1_I0_OLD
COMMIT
"""


def test_removing_takes_away_what_one_slot_has_and_nothing_else() -> None:
    assert ruleset(1, SAVED).splitlines() == [
        "*mangle",
        ":TNG_S1_I0_OLD - [0:0]",
        ":TNG_S1_I0_OUT - [0:0]",
        "-D OUTPUT -p tcp -j TNG_S1_I0_OUT",
        "-D OUTPUT -p tcp -j TNG_S1_I0_OUT",
        "-D OTHER -g TNG_S1_I0_OLD",
        "-X TNG_S1_I0_OLD",
        "-X TNG_S1_I0_OUT",
        "COMMIT",
    ]
    assert slots_in(SAVED) == {1, 11}
    assert ruleset(2, SAVED) == ""


def test_replacing_removes_and_adds_in_one_change() -> None:
    text = lines(ingress(), slot=1, saved=SAVED)
    assert text.count("*mangle") == 1
    assert "-X TNG_S1_I0_OUT" not in text, "it is emptied and used again"
    assert text.index("-X TNG_S1_I0_OLD") < text.index("-I OUTPUT 1 -p tcp -j TNG_S1_I0_OUT")


@given(st.text(min_size=1, max_size=50).filter(str.isprintable))
def test_a_text_of_the_operator_is_one_word_and_nothing_more(text: str) -> None:
    (line,) = [x for x in lines(ingress(capture_cgroup=[text])) if "--path" in x]
    assert shlex.split(line)[:6] == ["-A", "TNG_S0_I0_OUT", "-m", "cgroup", "--path", text]
    assert shlex.split(line)[6:] == ["-j", "TNG_S0_I0_PICK"]


def test_an_ipset_is_matched_by_its_destination() -> None:
    text = lines(ingress(capture_dst=[{"ipset": 'a "b"', "port": 1}]))
    assert any(r'-p tcp -m set --match-set "a \"b\"" dst --dport 1:1 -j MARK' in x for x in text)


@pytest.mark.parametrize("slot", [0, 1, SLOTS - 1])
def test_marks_of_a_slot_are_its_own(slot: int) -> None:
    mark, mask = slot_mark(slot)
    assert is_capture_mark(mark)
    assert {other for other in range(SLOTS) if slot_mark(other)[0] & mask == mark} == {slot}


@pytest.mark.parametrize("mark", [1, 565, 566, 0x53FFFF, 0x544000, 0xFFFFFF])
def test_other_marks_are_free_for_everybody(mark: int) -> None:
    assert not is_capture_mark(mark)
