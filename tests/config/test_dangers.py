# ruff: noqa: E501 - tables of cases, one case a line
"""Dangerous settings are named, and safe ones are not."""

from __future__ import annotations

import json

import pytest

from tng.config.dangers import dangers
from tng.config.loader import parse_config

MAPPING = {"mapping": {"in": {"port": 9}, "out": {"host": "127.0.0.1", "port": 9}}}
AS = {"as_addr": "https://as.example", "policy_ids": ["default"]}
PEER = {"source": "peer_shared", "rotation_interval": 5, "no_ra": True}


def lines(config: dict[str, object]) -> list[str]:
    return dangers(parse_config(json.dumps(config), look_for_files=False))


def in_(**keys: object) -> dict[str, object]:
    return {"add_ingress": [{**MAPPING, **keys}]}


def out(**keys: object) -> dict[str, object]:
    return {"add_egress": [{**MAPPING, **keys}]}


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (in_(no_ra=True), "add_ingress[0].no_ra"),
        (in_(verify={**AS, "skip_as_token_cert_verify": True}), "add_ingress[0].verify.skip_as_token_cert_verify"),
        (in_(verify={**AS, "allow_simulated": True}), "add_ingress[0].verify.allow_simulated"),
        (in_(verify=[{**AS, "as_addr": "http://as.example"}]), "add_ingress[0].verify[0].as_addr"),
        (in_(verify={**AS, "as_addr": "http://10.0.0.1/as/"}), "add_ingress[0].verify.as_addr"),
        (in_(verify={"as_type": "builtin", "attestation_policy": {"type": "trust_all"}}), "add_ingress[0].verify.attestation_policy.type"),
        (out(attest={"aa_type": "simulated", "simulated_platform": "p"}), "add_egress[0].attest.aa_type"),
        (out(verify=AS, direct_forward=[{"http_path": "^/health$"}, {"http_path": "/.*"}]), "add_egress[0].direct_forward[1].http_path"),
        (out(verify=AS, ohttp={"allow_non_tng_traffic_regexes": ["^/x$", ".*"]}), "add_egress[0].ohttp.allow_non_tng_traffic_regexes[1]"),
        (out(verify=AS, ohttp={"key": PEER}), "add_egress[0].ohttp.key.no_ra"),
        (in_(verify=AS) | {"admin_bind": {"port": 8}}, "configuration.admin_bind"),
    ],
)  # fmt: skip
def test_a_danger_is_named_with_its_path(config: dict[str, object], path: str) -> None:
    (line,) = lines(config)
    assert line.startswith(f"{path.removeprefix('configuration.')}: ")


@pytest.mark.parametrize(
    "config",
    [
        in_(verify=AS),
        in_(verify={**AS, "as_addr": "http://127.0.0.1:8080/"}),
        in_(verify={**AS, "as_addr": "http://[::1]:8080/"}),
        in_(verify={**AS, "as_addr": "http://localhost/"}),
        in_(verify={**AS, "as_addr": "http://as.example", "trusted_certs_paths": ["/pem"]}),
        in_(verify={"model": "passport", "policy_ids": ["p"], "trusted_certs_paths": ["/pem"]}),
        in_(verify={"as_type": "builtin", "attestation_policy": {"type": "hardware_only"}}),
        out(attest={"aa_type": "tsm"}),
        out(verify=AS, direct_forward=[{"http_path": "^/health$"}]),
        out(verify=AS, ohttp={}),
    ],
)
def test_a_safe_configuration_has_no_dangers(config: dict[str, object]) -> None:
    assert lines(config) == []
