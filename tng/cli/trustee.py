"""`tng trustee`: the embedded attestation service and key broker on the command line.

Arguments in, a running service until SIGTERM or SIGINT; exit status 0.  Prints one line,
`listening on http://...`, when it answers requests.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tng.cli.commands import COMMANDS
from tng.clock import SystemClock
from tng.endpoint import Endpoint, parse_authority
from tng.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tng.trustee.decisions import Decision
    from tng.trustee.server import TrusteeSettings

DEFAULT_LISTEN: Final = "127.0.0.1:50005"
"""Port of the RESTful attestation service, on this machine only."""

TCB_STATUSES: Final = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
)
"""Words of `--allow-tcb-status`; `Revoked` is never accepted."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand `trustee`."""
    parser = subparsers.add_parser(
        "trustee",
        help=COMMANDS["trustee"],
        description="Run an attestation service that speaks the RESTful interface of Trustee: it"
        " verifies TDX quotes, evaluates a policy and signs a token. Its key broker gives secrets"
        " to machines whose evidence was affirmed.",
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default=DEFAULT_LISTEN,
        help="where to listen; port 0 for any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--grpc",
        metavar="HOST:PORT",
        help="where to listen for gRPC, too; needs the extra `grpc` (default: nowhere)",
    )
    parser.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        help="directory of keys and policies (default: $XDG_STATE_HOME/tng/trustee)",
    )
    parser.add_argument(
        "--pccs",
        metavar="URL",
        help="where collateral of real platforms comes from (default: Intel's service)",
    )
    parser.add_argument(
        "--allow-simulated",
        metavar="DIR",
        type=Path,
        help="DANGER: also trust the simulated TDX platform in DIR (made if missing)",
    )
    parser.add_argument(
        "--allow-sample",
        action="store_true",
        help="DANGER: also take `sample` evidence, which anybody can make",
    )
    parser.add_argument(
        "--allow-tcb-status",
        metavar="STATUS",
        action="append",
        choices=TCB_STATUSES,
        default=[],
        help="accept this TCB status beside UpToDate; may be repeated",
    )
    parser.add_argument(
        "--audit-log",
        metavar="FILE",
        type=Path,
        help="append a record of every decision here; see `tng audit`",
    )
    _add_broker_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it.

    Raises:
        TngError: the service cannot start.
    """
    import asyncio  # no other command needs it

    settings = _settings(arguments)
    if arguments.audit_log is None:
        asyncio.run(_serve_until_signal(settings))
        return 0
    from tng.cli import audit_records

    with audit_records.opened(arguments.audit_log, SystemClock(), "trustee") as audit:
        asyncio.run(_serve_until_signal(settings, audit_records.on_decision(audit)))
    return 0


def _add_broker_options(parser: argparse.ArgumentParser) -> None:
    broker = parser.add_argument_group("key broker")
    broker.add_argument(
        "--admin-key",
        metavar="FILE",
        type=Path,
        help="public key (Ed25519, PEM) of who may store secrets and change policies;"
        " without it no secrets are given out",
    )
    broker.add_argument(
        "--reference-key",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="public key (PEM) that is trusted to sign reference values; may be repeated",
    )
    broker.add_argument(
        "--resource-key",
        metavar="FILE",
        type=Path,
        help="key that secrets are sealed with at rest (made if missing; default: in --state)",
    )
    broker.add_argument(
        "--release-to-simulated",
        action="store_true",
        help="DANGER: give secrets to simulated and sample evidence, too",
    )


async def _serve_until_signal(
    settings: TrusteeSettings, decided: Callable[[Decision], None] | None = None
) -> None:
    import asyncio

    from tng.trustee.decisions import forget
    from tng.trustee.server import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(
        settings,
        SystemClock(),
        ready=lambda url: print(f"listening on {url}", flush=True),
        stop=stop,
        decided=decided or forget,
    )


def _settings(arguments: argparse.Namespace) -> TrusteeSettings:
    from tng.attest.tdx.appraisal import DEFAULT_TCB_STATUSES
    from tng.attest.tdx.collateral import INTEL_PCS_URL
    from tng.trustee.server import TrusteeSettings

    pccs = arguments.pccs or INTEL_PCS_URL
    if not pccs.startswith(("https://", "http://")):
        raise ConfigError([f"--pccs: expected an http or https URL, got {pccs!r}"])
    return TrusteeSettings(
        listen=_listen(arguments.listen, "--listen"),
        state=arguments.state or _default_state(),
        pccs=pccs,
        simulated=arguments.allow_simulated,
        allow_sample=arguments.allow_sample,
        allowed_tcb_status=DEFAULT_TCB_STATUSES | frozenset(arguments.allow_tcb_status),
        admin_key=arguments.admin_key,
        resource_key=arguments.resource_key,
        release_to_simulated=arguments.release_to_simulated,
        grpc=_listen(arguments.grpc, "--grpc") if arguments.grpc is not None else None,
        reference_keys=tuple(arguments.reference_key),
    )


def _listen(text: str, option: str) -> Endpoint:
    # Port 0 is no authority of RFC 3986 users, but a listener may ask for it.
    host, colon, port = text.rpartition(":")
    try:
        endpoint = parse_authority(f"{host}:1" if colon and port == "0" else text)
    except ValueError as exc:
        raise ConfigError([f"{option}: expected HOST:PORT, got {text!r}: {exc}"]) from exc
    return Endpoint(endpoint.host, 0) if colon and port == "0" else endpoint


def _default_state() -> Path:
    base = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative values ignored.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state"
    return root / "tng" / "trustee"
