# ruff: noqa: E501 - tables of cases, one case a line
"""The grammar, object by object: what is taken, and the nearest thing that is not."""

from __future__ import annotations

import json
import pathlib

import pytest

from tng.config.loader import parse_config
from tng.config.model import Egress, Ingress
from tng.endpoint import Endpoint
from tng.errors import ConfigError

MAPPING = {"mapping": {"in": {"port": 9}, "out": {"host": "127.0.0.1", "port": 9}}}
LISTEN = {"proxy_listen": {"port": 9}}
AS = {"as_addr": "http://127.0.0.1:1", "policy_ids": ["default"]}
AA = {"aa_addr": "unix:///run/aa.sock"}


def ingress(**keys: object) -> Ingress:
    return parse_config(json.dumps({"add_ingress": [keys]})).add_ingress[0]


def egress(**keys: object) -> Egress:
    return parse_config(json.dumps({"add_egress": [keys]})).add_egress[0]


def refusals(config: dict[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(json.dumps(config))
    return caught.value.problems


def in_(**keys: object) -> dict[str, object]:
    return {"add_ingress": [{**MAPPING, **keys}]}


def out(**keys: object) -> dict[str, object]:
    return {"add_egress": [{**MAPPING, **keys}]}


def mode_in(**mode: object) -> dict[str, object]:
    return {"add_ingress": [{**mode, "no_ra": True}]}


def mode_out(**mode: object) -> dict[str, object]:
    return {"add_egress": [{**mode, "no_ra": True}]}


def filter_(**entry: object) -> dict[str, object]:
    return mode_in(http_proxy={**LISTEN, "dst_filters": [entry]})


def rule(listen: dict[str, object], target: dict[str, object]) -> dict[str, object]:
    return {"rules": [{"in": listen, "out": {"host": "h", **target}}]}


REFUSED: list[tuple[dict[str, object], str]] = [
    # entries
    (in_(), "add_ingress[0]: at least one of 'attest' and 'verify' field and '\"no_ra\": true' should be set for 'add_ingress'"),
    (out(), "add_egress[0]: at least one of 'attest' and 'verify' field and '\"no_ra\": true' should be set for 'add_egress'"),
    (in_(no_ra=True, verify=AS), "add_ingress[0].no_ra: the 'no_ra: true' flag should not be used with 'verify' field"),
    (out(no_ra=True, attest=AA), "add_egress[0].no_ra: the 'no_ra: true' flag should not be used with 'attest' field"),
    (in_(no_ra="true"), 'add_ingress[0].no_ra: expected true or false, got the string "true"'),
    (in_(no_ra=1), "add_ingress[0].no_ra: expected true or false, got the integer 1"),
    ({"add_ingress": [{"no_ra": True}]}, "add_ingress[0]: expected exactly one of mapping, http_proxy, socks5, netfilter, netfilter_udp, hook, mapping_udp, got none"),
    ({"add_egress": [{"no_ra": True}]}, "add_egress[0]: expected exactly one of mapping, netfilter, netfilter_udp, hook, mapping_udp, got none"),
    (in_(no_ra=True, http_proxy=LISTEN), "add_ingress[0]: expected exactly one of mapping, http_proxy, socks5, netfilter, netfilter_udp, hook, mapping_udp, got mapping and http_proxy"),
    (mode_in(http_prox=LISTEN), 'add_ingress[0]: unknown key "http_prox", did you mean "http_proxy"? (known: '),
    (mode_out(socks5=LISTEN), 'add_egress[0]: unknown key "socks5" (known: '),
    (in_(no_ra=True, web_page_inject={}), "add_ingress[0]: the `web_page_inject` field is not supported"),
    (in_(no_ra=True, ohttp={}, rats_tls={}), "add_ingress[0]: cannot specify both `ohttp` and `rats_tls`: they are mutually exclusive"),
    (in_(no_ra=True, ohttp={}, encap_in_http={}), 'add_ingress[0]: "encap_in_http" is another name of "ohttp": give one'),
    (in_(no_ra=True, decap_from_http={}), 'add_ingress[0]: unknown key "decap_from_http"'),
    (in_(no_ra=True, direct_forward=[]), 'add_ingress[0]: unknown key "direct_forward"'),
    ({"add_ingress": {}}, "add_ingress: expected a list, got an object"),
    ({"add_ingress": [1]}, "add_ingress[0]: expected an object, got the integer 1"),
    ({"add_ingress": [None] * 257}, "add_ingress: expected at most 256 items, got more"),
    (in_(no_ra=True) | {"drain_timeout_secs": 3601}, "drain_timeout_secs: expected a number 0-3600 (seconds), got the integer 3601"),
    (in_(no_ra=True) | {"drain_timeout_secs": -0.5}, "drain_timeout_secs: expected a number 0-3600 (seconds), got the number -0.5"),
    (in_(no_ra=True) | {"drain_timeout_secs": True}, "drain_timeout_secs: expected a number 0-3600 (seconds), got true"),
    (in_(no_ra=True) | {"drain_timeout_secs": 10**400}, "drain_timeout_secs: expected a number 0-3600 (seconds), got the integer 1000"),
    # rats_tls, quic, direct_forward
    (in_(no_ra=True, rats_tls={"multiplx": True}), 'add_ingress[0].rats_tls: unknown key "multiplx", did you mean "multiplex"?'),
    (in_(no_ra=True, rats_tls={"multiplex_max_connections": 1}), "add_ingress[0].rats_tls: `multiplex_max_streams_per_connection` and `multiplex_max_connections` require `rats_tls.multiplex: true`"),
    (in_(no_ra=True, rats_tls={"multiplex": True, "multiplex_max_connections": 0}), "add_ingress[0].rats_tls.multiplex_max_connections: expected an integer 1-4294967295, got the integer 0"),
    (out(no_ra=True, rats_tls={"multiplex": True, "multiplex_max_connections": 2}), "add_egress[0].rats_tls: limits of multiplexing are for add_ingress"),
    (in_(no_ra=True, quic={"max_datagram_size": 0}), "add_ingress[0].quic.max_datagram_size: expected an integer 1-65535 (octets), got the integer 0"),
    (out(no_ra=True, direct_forward=[{"http_path": "*"}]), 'add_egress[0].direct_forward[0].http_path: expected a regular expression (RE2 syntax), got the string "*"'),
    (out(no_ra=True, direct_forward={"http_path": "/"}), "add_egress[0].direct_forward: expected a list, got an object"),
    (out(no_ra=True, direct_forward=[{"http_path": "/"}], ohttp={"allow_non_tng_traffic_regexes": ["/"]}), "add_egress[0].ohttp.allow_non_tng_traffic_regexes: is the old form of `direct_forward`"),
    # mapping
    (mode_in(mapping={}), "add_ingress[0].mapping.rules: required key is missing"),
    (mode_in(mapping={"rules": []}), "add_ingress[0].mapping.rules: expected at least 1 item, got an empty list"),
    (mode_in(mapping={"in": {"port": 9}}), "add_ingress[0].mapping.out: required key is missing"),
    (mode_in(mapping={"in": {"port": 9}, "out": {"port": 9}}), "add_ingress[0].mapping.out.host: out.host is required"),
    (mode_in(mapping={**MAPPING["mapping"], "rules": []}), "add_ingress[0].mapping: expected either `rules`, or `in` and `out`, got an object: both are there"),
    (mode_in(mapping={**MAPPING["mapping"], "zz": 1}), 'add_ingress[0].mapping: unknown key "zz" (known: rules)'),
    (mode_in(mapping={"in": {"port": 9, "zz": 1}, "out": {"host": "h", "port": 9}}), 'add_ingress[0].mapping.in: unknown key "zz" (known: host, port, port_end)'),
    (mode_in(mapping=rule({"port": 70000}, {"port": 9})), "add_ingress[0].mapping.rules[0].in.port: expected an integer 1-65535, got the integer 70000"),
    (mode_in(mapping=rule({"port": 0}, {"port": 9})), "add_ingress[0].mapping.rules[0].in.port: expected an integer 1-65535, got the integer 0"),
    (mode_in(mapping=rule({"port": "80"}, {"port": 9})), 'add_ingress[0].mapping.rules[0].in.port: expected an integer 1-65535, got the string "80"'),
    (mode_in(mapping=rule({"port": True}, {"port": 9})), "add_ingress[0].mapping.rules[0].in.port: expected an integer 1-65535, got true"),
    (mode_in(mapping=rule({"port": 80.0}, {"port": 9})), "add_ingress[0].mapping.rules[0].in.port: expected an integer 1-65535, got the number 80.0"),
    (mode_in(mapping=rule({"port": None}, {"port": 9})), "add_ingress[0].mapping.rules[0].in.port: expected an integer 1-65535, got null"),
    (mode_in(mapping=rule({"port": []}, {"port": 9})), "add_ingress[0].mapping.rules[0].in.port: expected an integer 1-65535, got a list"),
    (mode_in(mapping=rule({"port": 9, "host": "name"}, {"port": 9})), 'add_ingress[0].mapping.rules[0].in.host: expected an IP address to listen on, got the string "name"'),
    (mode_in(mapping=rule({"port": 9, "port_end": 11}, {"port": 9, "port_end": 10})), "add_ingress[0].mapping.rules[0].in.port_end: in port range size (3) != out port range size (2)"),
    (mode_in(mapping=rule({"port": 9, "port_end": 11}, {"port": 9})), "add_ingress[0].mapping.rules[0].in.port_end: in port range size (3) != out port range size (1)"),
    (mode_in(mapping=rule({"port": 9, "port_end": 1}, {"port": 9})), "add_ingress[0].mapping.rules[0].in.port_end: port_end (1) must be >= port (9)"),
    (mode_in(mapping=rule({"port": 9}, {"port": 9, "port_end": 8})), "add_ingress[0].mapping.rules[0].out.port_end: port_end (8) must be >= port (9)"),
    (mode_in(mapping_udp={"in": {"port": 9}, "out": {"port": 9}}), "add_ingress[0].mapping_udp.out.host: out.host is required"),
    (mode_in(mapping_udp={"in": {"port": 9, "port_end": 10}, "out": {"host": "h", "port": 9}}), "add_ingress[0].mapping_udp.in.port_end: mapping_udp takes one port, not a range"),
    (mode_in(mapping_udp={"in": {"port": 9}, "out": {"host": "h", "port": 9}, "idle_timeout_secs": 0}), "add_ingress[0].mapping_udp.idle_timeout_secs: expected an integer 1-86400 (seconds), got the integer 0"),
    # proxies and filters
    (mode_in(http_proxy={}), "add_ingress[0].http_proxy.proxy_listen: required key is missing"),
    (mode_in(http_proxy={"proxy_listen": {"port": 9, "zz": 1}}), 'add_ingress[0].http_proxy.proxy_listen: unknown key "zz" (known: host, port)'),
    (mode_in(http_proxy={**LISTEN, "dst_filterz": []}), 'add_ingress[0].http_proxy: unknown key "dst_filterz", did you mean "dst_filters"? (known: proxy_listen, dst_filters)'),
    (mode_in(http_proxy={**LISTEN, "dst_filters": [], "dst_filter": []}), 'add_ingress[0].http_proxy: "dst_filter" is another name of "dst_filters": give one'),
    (mode_in(http_proxy={**LISTEN, "dst_filter": {"port": "x"}}), 'add_ingress[0].http_proxy.dst_filter.port: expected an integer 1-65535, got the string "x"'),
    (mode_in(http_proxy={**LISTEN, "dst_filters": {"domian": "x"}}), 'add_ingress[0].http_proxy.dst_filters: unknown key "domian", did you mean "domain"?'),
    (mode_in(http_proxy={**LISTEN, "dst_filters": "x"}), 'add_ingress[0].http_proxy.dst_filters: expected a list, got the string "x"'),
    (filter_(domain="a.*.b"), 'add_ingress[0].http_proxy.dst_filters[0].domain: expected a domain, with * at the start or end, got the string "a.*.b"'),
    (filter_(domain="*a*"), 'add_ingress[0].http_proxy.dst_filters[0].domain: expected a domain'),
    (filter_(domain=""), 'add_ingress[0].http_proxy.dst_filters[0].domain: expected a domain'),
    (filter_(domain_regex="("), 'add_ingress[0].http_proxy.dst_filters[0].domain_regex: expected a regular expression (RE2 syntax), got the string "("'),
    (filter_(domain_regex=r"(a)\1"), 'add_ingress[0].http_proxy.dst_filters[0].domain_regex: expected a regular expression (RE2 syntax)'),
    (filter_(ip="1.2.3"), 'add_ingress[0].http_proxy.dst_filters[0].ip: expected an IP address, got the string "1.2.3"'),
    (filter_(ip_cidr="10.0.0.1/24"), 'add_ingress[0].http_proxy.dst_filters[0].ip_cidr: expected an address range such as 10.0.0.0/8, got the string "10.0.0.1/24": 10.0.0.1/24 has host bits set'),
    (filter_(port_end=5), "add_ingress[0].http_proxy.dst_filters[0].port_end: `port_end` requires `port` to be specified"),
    (filter_(port=9, port_end=5), "add_ingress[0].http_proxy.dst_filters[0].port_end: `port_end` (5) must be >= `port` (9)"),
    (filter_(domain="a", ip="1.2.3.4"), "add_ingress[0].http_proxy.dst_filters[0]: expected one of domain, domain_regex, ip, ip_cidr, got domain and ip"),
    (mode_in(socks5={**LISTEN, "dst_filter": []}), 'add_ingress[0].socks5: unknown key "dst_filter", did you mean "dst_filters"?'),
    (mode_in(socks5={**LISTEN, "dst_filters": {}}), "add_ingress[0].socks5.dst_filters: expected a list, got an object"),
    (mode_in(socks5={**LISTEN, "auth": {"username": "x"}}), "add_ingress[0].socks5.auth.password: required key is missing"),
    (mode_in(socks5={**LISTEN, "auth": {"username": "x", "password": ""}}), "add_ingress[0].socks5.auth.password: expected a string of 1-16384 characters, got ***"),
    # captured traffic
    (mode_in(netfilter={}), "add_ingress[0].netfilter: at least one of capture_dst, capture_cgroup must be set and not empty"),
    (mode_out(netfilter={}), "add_egress[0].netfilter: at least one of capture_dst, capture_cgroup must be set and not empty"),
    (mode_in(netfilter={"capture_dst": {}}), "add_ingress[0].netfilter.capture_dst: one of host, ipset, port must be specified"),
    (mode_in(netfilter={"capture_dst": [{"host": "1.2.3.4", "ipset": "x"}]}), "add_ingress[0].netfilter.capture_dst[0].ipset: only one of host or ipset can be specified"),
    (mode_in(netfilter={"capture_dst": [{"port": 9, "port_end": 3}]}), "add_ingress[0].netfilter.capture_dst[0].port_end: `port_end` (3) must be >= `port` (9)"),
    (mode_in(netfilter={"capture_dst": [{"host": "name"}]}), 'add_ingress[0].netfilter.capture_dst[0].host: expected an address range such as 10.0.0.0/8, got the string "name"'),
    (mode_in(netfilter={"capture_dst": [{"port": 9}], "capture_local_traffic": True}), 'add_ingress[0].netfilter: unknown key "capture_local_traffic"'),
    (out(netfilter_udp={"capture_cgroup": ["a.slice"]}, no_ra=True), "add_egress[0].netfilter_udp.capture_cgroup: expected none at an egress"),
    (mode_in(netfilter_udp={"capture_dst": [{"port": 50, "port_end": 60}], "listen_port": 55}), "add_ingress[0].netfilter_udp.listen_port: `listen_port` (55) must not overlap capture_dst[0] (50-60)"),
    (mode_in(hook={}), "add_ingress[0].hook: 'hook' mode but no capture_dst entries"),
    (mode_in(hook={"capture_dst": {"host": "1.2.3.4"}}), "add_ingress[0].hook.capture_dst.port: 'port' is required"),
    (mode_out(hook={"capture_listen": [{}]}), "add_egress[0].hook.capture_listen[0].port: 'port' is required"),
    (mode_out(hook={"capture_listen": [{"port": 1, "redirect_to_port_end": 3}]}), "add_egress[0].hook.capture_listen[0].redirect_to_port_end: requires 'redirect_to_port' to be specified"),
    (mode_out(hook={"capture_listen": [{"port": 1, "port_end": 2, "redirect_to_port": 3}]}), "add_egress[0].hook.capture_listen[0].redirect_to_port_end: 'redirect_to_port_end' must be set"),
    (mode_out(hook={"capture_listen": [{"port": 1, "port_end": 2, "redirect_to_port": 3, "redirect_to_port_end": 3}]}), "add_egress[0].hook.capture_listen[0].redirect_to_port_end: port range length (2) must match redirect range length (1)"),
    # attest
    (out(attest={}), 'add_egress[0].attest.aa_addr: required key is missing (it goes with "aa_type": "uds")'),
    (out(attest={"aa_addr": "http://x"}), 'add_egress[0].attest.aa_addr: expected an address unix:///path/of/the.sock, got the string "http://x": it must start with unix:///'),
    (out(attest={"aa_addr": "unix:///"}), "add_egress[0].attest.aa_addr: expected an address unix:///path/of/the.sock"),
    (out(attest={**AA, "model": "bogus"}), 'add_egress[0].attest.model: expected one of "background_check", "passport", got the string "bogus"'),
    (out(attest={**AA, "aa_type": "tmsm"}), 'add_egress[0].attest.aa_type: expected one of "uds", "builtin", "tsm", "simulated", got the string "tmsm", did you mean "tsm"?'),
    (out(attest={**AA, "aa_type": "tsm"}), 'add_egress[0].attest.aa_addr: does not go with "aa_type": "tsm"; it is for "aa_type": "uds"'),
    (out(attest={"aa_type": "simulated"}), 'add_egress[0].attest.simulated_platform: required key is missing (it goes with "aa_type": "simulated")'),
    (out(attest={**AA, "simulated_platform": "p"}), 'add_egress[0].attest.simulated_platform: does not go with "aa_type": "uds"'),
    (out(attest={**AA, "asr_addr": "http://x"}), 'add_egress[0].attest.asr_addr: goes with "aa_provider": "coco_asr" or "ita_asr" only'),
    (out(attest={"aa_provider": "ita", "aa_type": "tsm"}), 'add_egress[0].attest.aa_type: "tsm" goes with "aa_provider": "coco" only'),
    (out(attest={"aa_provider": "coco_asr"}), 'add_egress[0].attest.asr_addr: required key is missing with "coco_asr"'),
    (out(attest={"aa_provider": "coco_asr", "asr_addr": "nourl"}), 'add_egress[0].attest.asr_addr: expected a URL (http or https), got the string "nourl"'),
    (out(attest={"aa_provider": "coco_asr", "asr_addr": "http://x", **AA}), 'add_egress[0].attest.aa_addr: does not go with "aa_provider": "coco_asr"'),
    (out(attest={"aa_provider": "coco_asr", "asr_addr": "http://x", "aa_type": "tsm"}), 'add_egress[0].attest.aa_type: does not go with "aa_provider": "coco_asr"'),
    (out(attest={**AA, "refresh_interval": -1}), "add_egress[0].attest.refresh_interval: expected an integer 0-31536000 (seconds), got the integer -1"),
    (out(attest={**AA, "as_addr": "http://x"}), 'add_egress[0].attest.as_addr: goes with "model": "passport" only'),
    (out(attest={**AA, "model": "passport"}), 'add_egress[0].attest.as_addr: required key is missing with "model": "passport"'),
    (out(attest={**AA, "model": "passport", "as_addr": "http://x", "as_provider": "ita", "as_type": "grpc"}), 'add_egress[0].attest.as_type: does not go with "as_provider": "ita"'),
    (out(attest={**AA, "model": "passport", "as_addr": "http://x", "api_key": "k"}), 'add_egress[0].attest.api_key: goes with "as_provider": "ita" only'),
    (out(attest={**AA, "model": "passport", "as_type": "builtin", "as_headers": {"a": "b"}}), "add_egress[0].attest.as_headers: 'as_headers' cannot be set without 'as_addr'"),
    # verify
    (in_(verify={"policy_ids": ["default"]}), "add_ingress[0].verify.as_addr: required key is missing"),
    (in_(verify={"as_address": "http://x", "policy_ids": ["default"]}), 'add_ingress[0].verify: unknown key "as_address", did you mean "as_addr"? (known: model, '),
    (in_(verify={"as_addr": "http://x"}), "add_ingress[0].verify.policy_ids: required key is missing: at least one policy id"),
    (in_(verify={"as_addr": "http://x", "policy_ids": []}), "add_ingress[0].verify.policy_ids: required key is missing: at least one policy id"),
    (in_(verify={"as_addr": "http://x", "policy_ids": "default"}), 'add_ingress[0].verify.policy_ids: expected a list, got the string "default"'),
    (in_(verify={**AS, "as_addr": "127.0.0.1:8080"}), 'add_ingress[0].verify.as_addr: expected a URL (http or https), got the string "127.0.0.1:8080"'),
    (in_(verify={**AS, "as_type": "bogus"}), 'add_ingress[0].verify.as_type: expected one of "restful", "grpc", "builtin", got the string "bogus"'),
    (in_(verify={**AS, "attestation_policy": {"type": "default"}}), 'add_ingress[0].verify.attestation_policy: goes with "as_type": "builtin" only'),
    (in_(verify={**AS, "api_key": "k"}), 'add_ingress[0].verify.api_key: goes with "as_provider": "ita" only'),
    (in_(verify={"policy_ids": ["default"], "model": "passport"}), "add_ingress[0].verify: at least one of 'as_addr' or 'trusted_certs_paths' must be set"),
    (in_(verify={**AS, "skip_as_token_cert_verify": True, "trusted_certs_paths": ["/x"]}), "add_ingress[0].verify.trusted_certs_paths: 'trusted_certs_paths' cannot be set when"),
    (in_(verify={**AS, "model": "passport", "skip_as_token_cert_verify": True}), "add_ingress[0].verify.as_addr: 'as_addr' cannot be set in Passport mode when"),
    (in_(verify={"model": "passport", "policy_ids": ["p"], "trusted_certs_paths": ["/x"], "as_headers": {"a": "b"}}), "add_ingress[0].verify.as_headers: 'as_headers' cannot be set without 'as_addr'"),
    (in_(verify={**AS, "as_headers": {"a b": "c"}}), "add_ingress[0].verify.as_headers: expected an object of up to 64 names of HTTP headers with printable strings, got ***"),
    (in_(verify={**AS, "as_headers": {"a": "b\nc"}}), "add_ingress[0].verify.as_headers: expected an object of up to 64 names"),
    (in_(verify={**AS, "as_headers": {"a": 1}}), "add_ingress[0].verify.as_headers: expected an object of up to 64 names"),
    (in_(verify={**AS, "as_headers": {"": "b"}}), "add_ingress[0].verify.as_headers: expected an object of up to 64 names"),
    (in_(verify={**AS, "as_headers": [1]}), "add_ingress[0].verify.as_headers: expected an object of up to 64 names"),
    (in_(verify={"as_type": "builtin", "as_addr": "http://x"}), 'add_ingress[0].verify.as_addr: does not go with "as_type": "builtin"'),
    (in_(verify={"as_type": "builtin", "model": "passport"}), "add_ingress[0].verify.as_type: a builtin attestation service cannot verify a passport"),
    (in_(verify={"as_type": "builtin", "attestation_policy": {"type": "zzz"}}), 'add_ingress[0].verify.attestation_policy.type: expected one of "default"'),
    (in_(verify={"as_type": "builtin", "attestation_policy": {"type": "inline"}}), 'add_ingress[0].verify.attestation_policy.content: required key is missing (it goes with "type": "inline")'),
    (in_(verify={"as_type": "builtin", "attestation_policy": {"type": "default", "path": "/x"}}), 'add_ingress[0].verify.attestation_policy.path: does not go with "type": "default"; it is for "type": "path"'),
    (in_(verify={"as_type": "builtin", "reference_values": [{"type": "sample"}]}), "add_ingress[0].verify.reference_values[0].payload: required key is missing"),
    (in_(verify={"as_type": "builtin", "reference_values": [{"type": "sample", "payload": {"type": "path"}}]}), 'add_ingress[0].verify.reference_values[0].payload.path: required key is missing (it goes with "type": "path")'),
    (in_(verify={"as_type": "builtin", "reference_values": [{"type": "sample", "payload": {"type": "path", "path": "/x"}, "trusted_keys_paths": ["/k"]}]}), 'add_ingress[0].verify.reference_values[0].trusted_keys_paths: goes with "type": "slsa" or "release_manifest" only'),
    (in_(verify={"as_type": "builtin", "reference_values": [{"type": "slsa", "payload": {"type": "path", "path": "/x"}, "trusted_keys_paths": ["/k"] * 17}]}), "add_ingress[0].verify.reference_values[0].trusted_keys_paths: expected at most 16 items"),
    (in_(verify={**AS, "simulated_platform": "/x"}), 'add_ingress[0].verify.simulated_platform: goes with "as_type": "builtin" only'),
    (in_(verify={"as_provider": "ita", "simulated_platform": "/x"}), 'add_ingress[0].verify.simulated_platform: goes with "as_provider": "coco" only'),
    (in_(verify={"as_provider": "ita", "as_type": "grpc"}), 'add_ingress[0].verify.as_type: does not go with "as_provider": "ita"'),
    (in_(verify={"as_provider": "ita", "skip_as_token_cert_verify": True}), 'add_ingress[0].verify.skip_as_token_cert_verify: goes with "as_provider": "coco" only'),
    (in_(verify=[]), "add_ingress[0].verify: expected at least 1 item, got an empty list"),
    (in_(verify="x"), 'add_ingress[0].verify: expected an object, got the string "x"'),
    (in_(verify=[AS, {"as_address": 1}]), 'add_ingress[0].verify[1]: unknown key "as_address", did you mean "as_addr"?'),
    # ohttp
    (in_(no_ra=True, ohttp={"path_rewrite": []}), 'add_ingress[0].ohttp: unknown key "path_rewrite", did you mean "path_rewrites"?'),
    (in_(no_ra=True, encap_in_http={"tls": 1}), "add_ingress[0].encap_in_http.tls: expected true or false, got the integer 1"),
    (in_(no_ra=True, ohttp={"path_rewrites": [{"match_regex": "(", "substitution": ""}]}), 'add_ingress[0].ohttp.path_rewrites[0].match_regex: expected a regular expression'),
    (in_(no_ra=True, ohttp={"path_default": "zz"}), 'add_ingress[0].ohttp.path_default: expected one of "root", "original", got the string "zz"'),
    (in_(no_ra=True, ohttp={"header_passthrough": {"request_headers": "some"}}), 'add_ingress[0].ohttp.header_passthrough.request_headers: expected a list of header names, or "all", got the string "some"'),
    (in_(no_ra=True, ohttp={"header_passthrough": {"request_headers": ["a b"]}}), 'add_ingress[0].ohttp.header_passthrough.request_headers[0]: expected the name of an HTTP header, got the string "a b"'),
    (out(no_ra=True, ohttp={"cors": {"zz": 1}}), 'add_egress[0].ohttp.cors: unknown key "zz"'),
    (out(no_ra=True, ohttp={"key": {}}), "add_egress[0].ohttp.key.source: required key is missing"),
    (out(no_ra=True, ohttp={"key": {"source": "self_generated"}}), "add_egress[0].ohttp.key.rotation_interval: required key is missing"),
    (out(no_ra=True, ohttp={"key": {"source": "file"}}), "add_egress[0].ohttp.key.path: required key is missing"),
    (out(no_ra=True, ohttp={"key": {"source": "self_generated", "rotation_interval": 5, "peers": []}}), 'add_egress[0].ohttp.key.peers: does not go with "source": "self_generated"; it is for "source": "peer_shared"'),
    (out(no_ra=True, ohttp={"key": {"source": "peer_shared", "rotation_interval": 5}}), "add_egress[0].ohttp.key: at least one of 'attest' and 'verify' field"),
    (out(no_ra=True, ohttp={"key": {"source": "file", "path": "/nope.pem"}}), 'add_egress[0].ohttp.key.path: key file does not exist: "/nope.pem" (No such file)'),
    # watching
    (in_(no_ra=True) | {"control_interface": {}}, "control_interface: at least one control interface `restful` or `ttrpc` must be specified"),
    (in_(no_ra=True) | {"control_interface": {"ttrpc": {"path": "/x"}}}, "control_interface.ttrpc: the ttrpc control interface is not supported"),
    (in_(no_ra=True) | {"control_interface": {"restfull": {}}}, 'control_interface: unknown key "restfull", did you mean "restful"?'),
    (in_(no_ra=True) | {"admin_bind": {"zz": 1}}, 'admin_bind: unknown key "zz" (known: host, port)'),
    (in_(no_ra=True) | {"metric": {"exporters": [{"type": "otlp"}]}}, 'metric.exporters[0].type: expected one of "stdout", "falcon", "oltp", got the string "otlp", did you mean "oltp"?'),
    (in_(no_ra=True) | {"metric": {"exporters": [{"type": "oltp", "protocol": "grpc", "endpoint": "http://x"}]}}, 'metric.exporters[0].step: required key is missing (it goes with "type": "oltp")'),
    (in_(no_ra=True) | {"metric": {"exporters": [{"type": "stdout"}, {"type": "stdout"}]}}, "metric.exporters: expected at most 1 items, got more"),
    (in_(no_ra=True) | {"metric": {"exporters": [{"type": "falcon", "server_url": "http://x", "endpoint": "me", "tags": {"a": 1}}]}}, "metric.exporters[0].tags: expected an object of up to 64 names with printable strings, got an object"),
    (in_(no_ra=True) | {"trace": {"exporters": [{"type": "oltp"}]}}, 'trace.exporters[0].protocol: required key is missing (it goes with "type": "oltp")'),
    (in_(no_ra=True) | {"trace": {"exporters": [{"type": "stdout", "endpoint": "x"}]}}, 'trace.exporters[0].endpoint: does not go with "type": "stdout"; it is for "type": "oltp"'),
]  # fmt: skip


@pytest.mark.parametrize(("config", "start"), REFUSED, ids=[start[:70] for _, start in REFUSED])
def test_a_wrong_configuration_gives_the_line_that_names_it(
    config: dict[str, object], start: str
) -> None:
    found = refusals(config)
    assert any(line.startswith(start) for line in found), found
    assert not any("function-" in line or "<one>" in line or "<many>" in line for line in found)


def test_a_mapping_range_leads_port_by_port() -> None:
    entry = ingress(
        mapping=rule({"port": 8000, "port_end": 8002}, {"port": 9000, "port_end": 9002}), no_ra=True
    )
    assert entry.mapping is not None
    assert entry.mapping.rules[0].pairs() == [
        (Endpoint("0.0.0.0", 8000), Endpoint("h", 9000)),
        (Endpoint("0.0.0.0", 8001), Endpoint("h", 9001)),
        (Endpoint("0.0.0.0", 8002), Endpoint("h", 9002)),
    ]


def test_the_short_form_of_a_mapping_is_one_rule_and_takes_a_range_too() -> None:
    entry = ingress(
        mapping={
            "in": {"host": "::1", "port": 5, "port_end": 6},
            "out": {"host": "2001:db8::1", "port": 7, "port_end": 8},
        },
        no_ra=True,
    )
    assert entry.mapping is not None
    (one,) = entry.mapping.rules
    assert one.pairs()[1] == (Endpoint("::1", 6), Endpoint("2001:db8::1", 8))


def test_localhost_is_listened_on_at_its_address() -> None:
    entry = ingress(http_proxy={"proxy_listen": {"host": "localhost", "port": 9}}, no_ra=True)
    assert entry.http_proxy is not None
    assert entry.http_proxy.proxy_listen.host == "127.0.0.1"


@pytest.mark.parametrize("key", ["dst_filters", "dst_filter"])
@pytest.mark.parametrize("wrap", [True, False])
def test_filters_have_an_older_name_and_a_short_form(key: str, wrap: bool) -> None:
    one = {"domain": "*.example.com", "port": 1, "port_end": 2}
    entry = ingress(http_proxy={**LISTEN, key: [one] if wrap else one}, no_ra=True)
    assert entry.http_proxy is not None
    (parsed,) = entry.http_proxy.dst_filters
    assert (parsed.domain, parsed.port, parsed.port_end) == ("*.example.com", 1, 2)


@pytest.mark.parametrize(
    "entry",
    [
        {"domain": "*"},
        {"domain": "api.*"},
        {"domain_regex": r"^a\.b$"},
        {"ip": "10.0.0.1"},
        {"ip": "2001:db8::1"},
        {"ip_cidr": "10.0.0.0/8"},
        {"ip_cidr": "10.0.0.1"},
        {"ip_cidr": "2001:db8::/32"},
        {"port": 5, "port_end": 5},
        {},
    ],
)
def test_a_filter_of_every_kind_is_taken(entry: dict[str, object]) -> None:
    parse_config(json.dumps(filter_(**entry)))


@pytest.mark.parametrize(
    "config",
    [
        mode_in(socks5={**LISTEN, "auth": {"username": "u", "password": "p"}, "dst_filters": [{}]}),
        mode_in(netfilter={"capture_dst": {"host": "10.0.0.0/8", "port": 80}, "listen_port": 4}),
        mode_in(netfilter={"capture_cgroup": ["/x"], "nocapture_cgroup": ["/y"], "so_mark": 1}),
        mode_in(netfilter={"capture_dst": [{"ipset": "s"}]}),
        mode_out(netfilter={"capture_dst": {"port": 80}, "capture_local_traffic": True, "listen_port": 4}),
        mode_in(netfilter_udp={}),
        mode_in(netfilter_udp={"listen_port": 5, "capture_dst": [{"port": 6}]}),
        mode_out(netfilter_udp={"listen_port": 5, "idle_timeout_secs": 3, "capture_local_traffic": True}),
        mode_in(hook={"capture_dst": [{"port": 1, "port_end": 3, "host": "10.0.0.0/8"}], "proxy_port": 4}),
        mode_out(hook={"capture_listen": [{"port": 1, "redirect_to_port": 2}, {"port": 3, "ifname": "eth0"}]}),
        mode_out(hook={"capture_listen": {"port": 1, "port_end": 2, "redirect_to_port": 3, "redirect_to_port_end": 4}}),
        mode_out(hook={}),
        mode_in(mapping_udp={"in": {"port": 9}, "out": {"host": "h", "port": 9}}),
        in_(no_ra=True, quic={"max_datagram_size": 1200}),
        in_(no_ra=True, encap_in_http={"path_rewrites": [{"match_regex": "/.*", "substitution": ""}], "header_passthrough": {"request_headers": "all", "response_headers": ["x-a"]}}),
        out(no_ra=True, decap_from_http={"cors": {"allow_origins": ["*"], "allow_credentials": True}}),
        out(no_ra=True, ohttp={"key": {"source": "self_generated", "rotation_interval": 300}}),
        out(no_ra=True, ohttp={"key": {"source": "peer_shared", "rotation_interval": 300, "no_ra": True, "peers": ["h:1"], "port": 8302}}),
        out(no_ra=True, direct_forward=[{"http_path": "^/health$"}]),
        out(attest={"aa_type": "builtin"}),
        out(attest={"aa_provider": "ita_asr", "asr_addr": "http://127.0.0.1:8006"}),
        out(attest={**AA, "model": "passport", "as_provider": "ita", "as_addr": "https://x", "api_key": "k"}),
        out(attest={**AA, "aa_addr": "unix:///x", "as_addr": None}),
        in_(verify={"as_type": "builtin", "attestation_policy": {"type": "trust_all"}, "reference_values": [{"type": "slsa", "payload": {"type": "inline", "content": {"a": []}}}]}),
        in_(verify={"as_provider": "ita", "ita_jwks_addr": "https://x", "api_key": "k"}),
        in_(verify={"as_type": "builtin", "allow_simulated": True, "simulated_platform": "/x", "reference_values": [{"type": "release_manifest", "payload": {"type": "inline", "content": {}}, "trusted_keys_paths": [__file__, __file__]}]}),
        in_(verify={"model": "passport", "policy_ids": ["p"], "skip_as_token_cert_verify": True}),
        in_(verify={**AS, "as_type": "grpc"}),
        in_(no_ra=True) | {"metric": {"exporters": []}, "trace": {"exporters": [{"type": "stdout"}]}},
        in_(no_ra=True) | {"metric": {"exporters": [{"type": "falcon", "server_url": "http://x", "endpoint": "me", "tags": {"a": "b"}}]}},
        in_(no_ra=True) | {"admin_bind": {"port": 10}, "drain_timeout_secs": 0},
        in_(no_ra=True) | {"control_interface": {"restful": {"host": "::1", "port": 9}}, "drain_timeout_secs": 2.5},
    ],
)  # fmt: skip
def test_the_whole_grammar_of_the_reference_is_read(config: dict[str, object]) -> None:
    parse_config(json.dumps(config))


def test_an_entry_knows_its_mode_its_verifiers_and_its_agent() -> None:
    both = egress(**MAPPING, attest=AA, verify=[AS, {**AS, "policy_ids": ["other"]}])
    assert both.mode == "mapping"
    assert [v.policy_ids for v in both.verifiers] == [["default"], ["other"]]
    assert both.attest is not None
    assert both.attest.aa_socket == "/run/aa.sock"
    assert ingress(**MAPPING, attest={"aa_type": "tsm"}).verifiers == ()
    tsm = ingress(**MAPPING, attest={"aa_type": "tsm"}).attest
    assert tsm is not None
    assert tsm.aa_socket == ""
    assert len(ingress(**MAPPING, verify=AS).verifiers) == 1


def test_a_verify_may_be_a_list_of_one() -> None:
    assert ingress(**MAPPING, verify=[AS]).verifiers[0].policy_ids == ["default"]


def test_header_values_are_secrets_that_can_be_revealed() -> None:
    entry = ingress(**MAPPING, verify={**AS, "as_headers": {"Authorization": "Bearer x"}})
    assert entry.verifiers[0].as_headers["Authorization"].reveal() == "Bearer x"
    assert "Bearer" not in repr(entry)
    assert "Bearer" not in entry.model_dump_json()


def test_a_certificate_file_must_exist_unless_nobody_looks(tmp_path: pathlib.Path) -> None:
    pem = tmp_path / "as.pem"
    config = in_(verify={**AS, "trusted_certs_paths": [str(pem)]})
    (line,) = refusals(config)
    assert line.startswith("add_ingress[0].verify.trusted_certs_paths[0]: attestation service")
    assert str(pem) in line or "..." in line
    parse_config(json.dumps(config), look_for_files=False)
    pem.write_text("x")
    parse_config(json.dumps(config))
