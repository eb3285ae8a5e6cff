"""`tng verify HOST:PORT`: judge a live egress and print every check; nothing is sent to it.

A `verify` section, or a list of which the peer must satisfy any, goes in as in a configuration.
Exit status 0 if the peer is accepted, 1 if it is refused or cannot be judged.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

from tng.cli.collateral import judge_with_surroundings
from tng.cli.commands import COMMANDS
from tng.errors import ConfigError, TngError, UntrustedPeerError

if TYPE_CHECKING:
    from tng.config.model import Verify
    from tng.endpoint import Endpoint
    from tng.verdict import Verdict

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001


def add_parser(commands: Subparsers) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "verify",
        help=COMMANDS["verify"],
        description="Connect to an egress, have its evidence judged, print every check, and leave."
        " Exit status 0 if it is accepted, 1 if it is refused or cannot be judged.",
    )
    parser.add_argument("endpoint", metavar="HOST:PORT", help="the egress")
    parser.add_argument("--as-addr", metavar="URL", help="the attestation service")
    parser.add_argument(
        "--policy-id",
        metavar="ID",
        action="append",
        help="policy to demand; may be repeated (default: default)",
    )
    parser.add_argument(
        "--trusted-cert",
        metavar="FILE",
        action="append",
        help="trust anchor of tokens (PEM); may be repeated",
    )
    parser.add_argument("--passport", action="store_true", help="the egress shows a token itself")
    parser.add_argument(
        "--allow-simulated", action="store_true", help="DANGER: accept simulated evidence"
    )
    parser.add_argument(
        "--verify",
        metavar="JSON",
        help="a whole `verify` section, or a list of them, instead of the options above",
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge the egress; see the module."""
    import trio

    from tng.clock import SystemClock
    from tng.tunnel.rats_tls.probe import probe
    from tng.verdict import AttestedPeer

    endpoint = _endpoint(arguments.endpoint)
    clock = SystemClock()
    verifier = judge_with_surroundings(_verify_sections(arguments), clock)
    try:
        peer = trio.run(probe, endpoint, verifier, clock)
    except UntrustedPeerError as error:
        if error.verdict is not None:
            _print_verdict(error.verdict, as_json_text=arguments.json)
        raise
    if not isinstance(peer, AttestedPeer):
        raise TngError("the peer was not judged")
    _print_verdict(peer.verdict, as_json_text=arguments.json)
    return 0


def _endpoint(text: str) -> Endpoint:
    from tng.endpoint import parse_authority

    try:
        return parse_authority(text)
    except ValueError as exc:
        raise ConfigError([f"HOST:PORT: {exc}"]) from exc


def _verify_sections(arguments: argparse.Namespace) -> tuple[Verify, ...]:
    """The `verify` sections, checked exactly as in a configuration."""
    from tng.cli.ita_key import with_ita_key
    from tng.config.loader import prepare_config

    if arguments.verify is not None:
        try:
            section = json.loads(with_ita_key(arguments.verify, os.environ))
        except json.JSONDecodeError as exc:
            raise ConfigError([f"--verify: not JSON: {exc}"]) from exc
    else:
        section = {"policy_ids": arguments.policy_id or ["default"]}
        if arguments.as_addr:
            section["as_addr"] = arguments.as_addr
        if arguments.trusted_cert:
            section["trusted_certs_paths"] = arguments.trusted_cert
        if arguments.passport:
            section["model"] = "passport"
        if arguments.allow_simulated:
            section["allow_simulated"] = True
    listen = {"host": "127.0.0.1", "port": 1}
    config = prepare_config(
        json.dumps({"add_ingress": [{"http_proxy": {"proxy_listen": listen}, "verify": section}]})
    )
    return config.add_ingress[0].verifiers


def _print_verdict(verdict: Verdict, *, as_json_text: bool) -> None:
    from tng.attest.verifier.explain import as_json, lines

    if as_json_text:
        print(json.dumps(as_json(verdict), indent=2))
        return
    for line in lines(verdict):
        print(line)
