"""A rule that would take our own questions to a service over gRPC is a mistake."""

from __future__ import annotations

import json

import pytest

from tng.config.loader import parse_config
from tng.config.model import TngConfig
from tng.config.unmarked import captured_services
from tng.errors import ConfigError

AA = {"aa_addr": "unix:///run/aa.sock"}


def problems(
    rule: dict[str, object], url: str, *, as_type: str = "grpc", mode: str = "netfilter"
) -> list[str]:
    verify = {"as_type": as_type, "as_addr": url, "policy_ids": ["p"]}
    config = {"add_ingress": [{mode: {"capture_dst": rule}, "verify": verify}]}
    return list(captured_services(TngConfig.model_validate(config)))


CAPTURED = [
    ({"host": "10.0.0.0/8"}, "http://10.1.2.3:50004"),
    ({"host": "10.1.2.3"}, "http://10.1.2.3:50004"),
    ({"host": "10.0.0.0/8", "port": 50000, "port_end": 50004}, "https://10.1.2.3:50004"),
    ({"port": 50004}, "http://10.1.2.3:50004"),
    ({"port": 443}, "HTTPS://10.1.2.3"),
    ({"port": 80}, "http://10.1.2.3"),
]


@pytest.mark.parametrize(("rule", "url"), CAPTURED)
def test_a_rule_that_has_the_address_is_named_beside_the_service(
    rule: dict[str, object], url: str
) -> None:
    (line,) = problems(rule, url)
    at = "add_ingress[0].netfilter.capture_dst[0]"
    assert line.startswith(f"add_ingress[0].verify.as_addr: {at} captures connections to it")
    assert not problems(rule, url, as_type="restful")
    assert not problems(rule, url, mode="netfilter_udp")


@pytest.mark.parametrize(
    ("rule", "url"),
    [
        ({"host": "10.0.0.0/8"}, "http://11.1.2.3:50004"),
        ({"host": "10.0.0.0/8"}, "http://[::1]:50004"),
        ({"port": 50004}, "http://as.example:50004"),
        ({"port": 50004}, "http://127.0.0.1:50004"),
        ({"host": "10.0.0.0/8", "port": 50003}, "http://10.1.2.3:50004"),
        ({"port": 50000, "port_end": 50003}, "http://10.1.2.3:50004"),
        ({"port": 50004}, "http://[::1]:50004"),
        ({"ipset": "s"}, "http://10.1.2.3:50004"),
    ],
)
def test_any_other_rule_is_none_of_this_ones_business(rule: dict[str, object], url: str) -> None:
    assert not problems(rule, url)


@pytest.mark.parametrize("key", ["capture_cgroup", "nocapture_cgroup"])
def test_who_is_captured_by_control_group_is_for_the_operator_to_know(key: str) -> None:
    verify = {"as_type": "grpc", "as_addr": "http://10.1.2.3:50004", "policy_ids": ["p"]}
    capture = {"capture_dst": {"port": 50004}, key: ["/a"]}
    config = {"add_ingress": [{"netfilter": capture, "verify": verify}]}
    assert not list(captured_services(TngConfig.model_validate(config)))


@pytest.mark.parametrize(
    ("is_local", "host", "count"),
    [(True, "127.0.0.1", 1), (False, "127.0.0.1", 0), (True, "10.1.2.3", 0)],
)
def test_an_egress_takes_our_questions_only_on_this_machine(
    host: str, count: int, *, is_local: bool
) -> None:
    passport = {"model": "passport", "as_type": "grpc", "as_addr": f"http://{host}:50004"}
    capture = {"capture_dst": {"port": 50004}, "capture_local_traffic": is_local}
    config = {"add_egress": [{"netfilter": capture, "attest": {**AA, **passport}}]}
    found = list(captured_services(TngConfig.model_validate(config)))
    assert len(found) == count


@pytest.mark.parametrize(("protocol", "count"), [("grpc", 1), ("http/protobuf", 0)])
def test_a_collector_over_grpc_is_such_a_service(protocol: str, count: int) -> None:
    exporter = {"type": "oltp", "protocol": protocol, "endpoint": "http://10.1.2.3:4317", "step": 9}
    netfilter = {"capture_dst": {"host": "10.0.0.0/8"}}
    config = {
        "add_ingress": [{"netfilter": netfilter, "no_ra": True}],
        "metric": {"exporters": [exporter]},
    }
    found = list(captured_services(TngConfig.model_validate(config)))
    assert len(found) == count
    for line in found:
        assert line.startswith("metric.exporters[0].endpoint: add_ingress[0].netfilter.")
        assert line.endswith('or use "protocol": "http/protobuf"')


def test_such_a_configuration_is_refused_as_a_whole() -> None:
    verify = {"as_type": "grpc", "as_addr": "http://10.1.2.3:50004", "policy_ids": ["p"]}
    netfilter = {"capture_dst": {"host": "10.0.0.0/8"}}
    config = {"add_ingress": [{"netfilter": netfilter, "verify": verify}]}
    with pytest.raises(ConfigError, match="cannot be marked as our own"):
        parse_config(json.dumps(config), look_for_files=False)
