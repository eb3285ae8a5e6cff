"""`tng demo`: the whole of it on one machine, without a TEE.

In: how to spoil the evidence, a real backend instead of the stand-in, whether to stay.
Out: what was started, asked, verified and refused, in words; exit status 0 when the service was
reached and the impostor was refused, 1 when the (spoiled) egress was refused, 3 when things went
otherwise than they should.
Invariant: everything listens on loopback, and all evidence says SIMULATED.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from tng.cli.commands import COMMANDS
from tng.errors import ConfigError

if TYPE_CHECKING:
    from tng.endpoint import Endpoint

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

TAMPERINGS: Final = {
    "report-data": "one bit of the report data differs from what binds the TLS key",
    "key": "the evidence is genuine, but was made for another TLS key",
    "debug": "the trust domain runs in debug mode",
    "revoked": "the platform's certificate is revoked",
    "out-of-date": "the platform's firmware is out of date",
    "expired-collateral": "what vouches for the platform has expired",
    "wrong-root": "the platform is certified by somebody else",
    "truncated": "the quote is cut in half",
    "flipped": "one bit of the quote is flipped after signing",
}
"""Value of `--tamper` to what it does."""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "demo",
        help=COMMANDS["demo"],
        description="Start an attestation service, an egress with SIMULATED evidence, an ingress\n"
        "and a stand-in for a model server; send requests through them; show what was verified;\n"
        "then do the same with an impostor, which must be refused.",
        epilog="ways of --tamper:\n"
        + "\n".join(f"  {way:<20}{meaning}" for way, meaning in TAMPERINGS.items())
        + "\n\nexit status: 0 served, 1 refused, 3 otherwise than it should be",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--tamper",
        metavar="WAY",
        choices=sorted(TAMPERINGS),
        help="spoil the evidence in one way and show the refusal (exit status 1)",
    )
    parser.add_argument(
        "--backend", metavar="URL", help="a real OpenAI-compatible server, e.g. http://HOST:8000"
    )
    parser.add_argument(
        "--stay", action="store_true", help="keep running afterwards, until interrupted"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration; see the module for the exit status.

    Raises:
        ConfigError: --backend is no http URL with a host.
        StartError: one of the processes did not become ready.
    """
    # Everything heavy is imported here, so that the other commands start fast.
    import signal

    from tng.cli.demo_story import Story
    from tng.clock import SystemClock

    backend = parse_backend(arguments.backend) if arguments.backend else None
    # SIGTERM unwinds as Ctrl-C does, so that no process of the demonstration stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return Story(SystemClock(), backend, arguments.tamper, stay=arguments.stay).tell()


def parse_backend(url: str) -> Endpoint:
    """Host and port of `--backend`.

    Raises:
        ConfigError: not `http://HOST[:PORT]`, with nothing behind it but a slash.
    """
    from tng.endpoint import parse_authority

    scheme, separator, rest = url.partition("://")
    authority = rest.removesuffix("/")
    if not separator or scheme.lower() != "http" or "/" in authority:
        raise ConfigError([f"--backend: expected http://HOST:PORT, got {url!r}"])
    try:
        return parse_authority(authority, default_port=80)
    except ValueError as error:
        raise ConfigError([f"--backend: expected http://HOST:PORT: {error}"]) from error
