"""Rules between entries: ports, and files."""

from __future__ import annotations

import json
import pathlib

import pytest

from tng.config.check import check_config, check_files
from tng.config.loader import parse_config
from tng.config.model import TngConfig
from tng.errors import ConfigError


def proxy(host: str, port: int) -> dict[str, object]:
    return {"http_proxy": {"proxy_listen": {"host": host, "port": port}}, "no_ra": True}


def mapping(host: str, port: int, port_end: int | None = None) -> dict[str, object]:
    listen = {"host": host, "port": port, "port_end": port_end}
    return {
        "mapping": {"in": listen, "out": {"host": "h", "port": port, "port_end": port_end}},
        "no_ra": True,
    }


def problems(**config: object) -> list[str]:
    return check_config(TngConfig.model_validate(config))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("::", "::1"),
        ("::1", "0:0:0:0:0:0:0:1"),
    ],
)
def test_two_listeners_of_one_port_are_named_both(one: str, other: str) -> None:
    (line,) = problems(add_ingress=[proxy(one, 9)], add_egress=[mapping(other, 8, 10)])
    assert line == (
        f"add_egress[0].mapping.rules[0].in: {other} port 9 (tcp) is already taken by "
        "add_ingress[0].http_proxy.proxy_listen"
    )


@pytest.mark.parametrize(
    ("one", "other"), [("127.0.0.1", "127.0.0.2"), ("0.0.0.0", "::"), ("127.0.0.1", "::1")]
)
def test_listeners_of_other_addresses_may_share_a_port(one: str, other: str) -> None:
    assert problems(add_ingress=[proxy(one, 9), proxy(other, 9)]) == []


def test_neighbouring_ranges_do_not_conflict() -> None:
    assert problems(add_egress=[mapping("::1", 5, 8), mapping("::1", 9, 9)]) == []


def test_the_control_interface_is_a_listener_too() -> None:
    (line,) = problems(
        control_interface={"restful": {"port": 9}}, add_ingress=[proxy("127.0.0.1", 9)]
    )
    assert line.endswith("is already taken by control_interface.restful")


def test_udp_and_tcp_do_not_conflict_and_captured_ports_count() -> None:
    udp = {"in": {"port": 9}, "out": {"host": "h", "port": 9}}
    capture = {"capture_dst": {"port": 80}, "listen_port": 9}
    assert problems(add_ingress=[proxy("::1", 9), {"mapping_udp": udp, "no_ra": True}]) == []
    found = problems(
        add_ingress=[
            {"mapping_udp": udp, "no_ra": True},
            {"netfilter": capture, "no_ra": True},
            {"netfilter_udp": capture, "no_ra": True},
        ],
        add_egress=[
            {"netfilter": capture, "no_ra": True},
            {"netfilter_udp": capture, "no_ra": True},
            {
                **mapping("127.0.0.1", 10),
                "ohttp": {
                    "key": {
                        "source": "peer_shared",
                        "rotation_interval": 1,
                        "no_ra": True,
                        "port": 9,
                    }
                },
            },
        ],
    )
    assert [line.partition(":")[0] for line in found] == [
        "add_ingress[2].netfilter_udp.listen_port",
        "add_egress[0].netfilter.listen_port",
        "add_egress[1].netfilter_udp.listen_port",
        "add_egress[2].ohttp.key",
    ]


def test_more_ports_than_the_limit_are_refused_and_the_limit_is_not() -> None:
    assert problems(add_egress=[mapping("::1", 1, 2048), mapping("::1", 4001, 6048)]) == []
    assert problems(add_egress=[mapping("::1", 1, 2048), mapping("::1", 4001, 6049)]) == [
        "configuration: expected at most 4096 listening ports, got 4097"
    ]


def test_every_named_file_is_looked_for(tmp_path: pathlib.Path) -> None:
    gone = str(tmp_path / "gone")
    config = TngConfig.model_validate(
        {
            "add_ingress": [
                {
                    **{k: v for k, v in mapping("::1", 1).items() if k != "no_ra"},
                    "ohttp": {"tls_ca_certs": [gone]},
                    "verify": {
                        "as_type": "builtin",
                        "attestation_policy": {"type": "path", "path": gone},
                        "reference_values": [
                            {"type": "sample", "payload": {"type": "path", "path": gone}}
                        ],
                    },
                }
            ],
            "add_egress": [
                {**mapping("::1", 2), "ohttp": {"key": {"source": "file", "path": gone}}}
            ],
        }
    )
    assert [line.partition(":")[0] for line in check_files(config)] == [
        "add_ingress[0].verify.attestation_policy.path",
        "add_ingress[0].verify.reference_values[0].payload.path",
        "add_ingress[0].ohttp.tls_ca_certs[0]",
        "add_egress[0].ohttp.key.path",
    ]
    (tmp_path / "gone").write_text("")
    assert check_files(config) == []


def test_a_path_that_no_system_call_takes_does_not_exist() -> None:
    entry = {
        "http_proxy": {"proxy_listen": {"port": 1}},
        "verify": {
            "model": "passport",
            "policy_ids": ["p"],
            "trusted_certs_paths": ["x" * 4096],
        },
    }
    with pytest.raises(ConfigError, match="does not exist"):
        parse_config(json.dumps({"add_ingress": [entry]}))


def test_the_socket_of_an_agent_is_not_looked_for() -> None:
    entry = {
        "mapping": {"in": {"port": 1}, "out": {"host": "h", "port": 1}},
        "attest": {"aa_addr": "unix:///nowhere/to/be/found.sock"},
    }
    parse_config(json.dumps({"add_egress": [entry]}))
