"""`tng tools quote`: read a TDX quote, or verify it from files alone.

    tng tools quote decode evidence.json
    tng tools quote verify evidence.json --collateral DIR --report-data HEX
    tng tools quote verify quote.bin --event-log ccel.bin --collateral DIR --unbound

Every check is printed as PASS, FAIL or SKIP; a skipped check never counts as passed.  Exit status
0 if the quote is accepted, 1 if it is refused or cannot be judged.  Accepted is what passes all
of the first seven checks, and the eighth (what the quote is bound to) unless `--unbound` gives it
up by name.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tng.cli.tools_evidence import (
    add_evidence,
    add_judging,
    check_line,
    check_object,
    from_hexadecimal,
    judge,
    read_evidence,
    read_file,
)
from tng.errors import ConfigError, UntrustedPeerError
from tng.verdict import Check, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tng.attest.tdx.appraisal import TdxAppraisal
    from tng.attest.tdx.eventlog import EventLogEntry
    from tng.attest.tdx.quote import Quote

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

_WORDS: Final = {True: "yes", False: "no"}


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
    add_judging(verify, is_required=True)
    _add_binding(verify)
    verify.add_argument("--json", action="store_true", help="print JSON")
    verify.set_defaults(run=_verify)


def _add_binding(parser: argparse.ArgumentParser) -> None:
    binding = parser.add_mutually_exclusive_group(required=True)
    binding.add_argument("--report-data", metavar="HEX", help="expected report data")
    binding.add_argument(
        "--runtime-data",
        metavar="FILE",
        type=Path,
        help="JSON; the SHA-384 of its canonical form is the expected report data",
    )
    binding.add_argument(
        "--unbound", action="store_true", help="do not ask what the quote is bound to"
    )
    parser.add_argument("--init-data", metavar="HEX", help="expected digest of the init data")


def _decode(arguments: argparse.Namespace) -> int:
    from tng.attest.tdx.appraisal import parse_tdx_evidence
    from tng.attest.tdx.certificates import pck_certificate
    from tng.attest.tdx.eventlog import parse_event_log
    from tng.attest.tdx.measurements import named_measurements
    from tng.attest.tdx.quote import parse_quote

    parts = parse_tdx_evidence(read_evidence(arguments))
    quote = parse_quote(parts.quote)
    pck = pck_certificate(quote)
    entries = None if parts.event_log is None else parse_event_log(parts.event_log)
    said: dict[str, object] = {
        "quote": quote.claims(),
        "attributes": list(quote.td_attributes.names),
        "pck": {"fmspc": pck.fmspc.hex(), "ca": pck.ca, "simulated": pck.says_simulated},
        "measurements": [measurement.claims() for measurement in named_measurements(entries or ())],
    }
    checks = (
        Check(3, "quote signature", Outcome.SKIP, "only `verify` asks"),
        _replayed(entries, quote),
    )
    _print(said, checks, as_json=arguments.json)
    return 1 if any(check.outcome is Outcome.FAIL for check in checks) else 0


def _replayed(entries: tuple[EventLogEntry, ...] | None, quote: Quote) -> Check:
    from tng.attest.tdx.eventlog import check_against_quote

    if entries is None:
        return Check(10, "event log", Outcome.SKIP, "there is none")
    try:
        check_against_quote(entries, quote.body)
    except UntrustedPeerError as exc:
        return Check(10, "event log", Outcome.FAIL, str(exc))
    detail = f"{len(entries)} entries replay to the quote's registers"
    return Check(10, "event log", Outcome.PASS, detail)


def _verify(arguments: argparse.Namespace) -> int:
    from tng.attest.tdx.appraisal import TdxRefused

    init_data = arguments.init_data
    try:
        appraisal = judge(
            arguments,
            read_evidence(arguments),
            report_data=_expected_report_data(arguments),
            init_data=None if init_data is None else from_hexadecimal(init_data, "--init-data"),
        )
    except TdxRefused as refused:
        said = {"accepted": False, "code": refused.code.value}
        _print(said, refused.checks, as_json=arguments.json)
        raise
    _print(_summary(appraisal), appraisal.checks, as_json=arguments.json)
    return 0


def _expected_report_data(arguments: argparse.Namespace) -> bytes | None:
    from tng.attest.binding import canonical_json
    from tng.attest.strict_json import parse_object

    if arguments.report_data is not None:
        return from_hexadecimal(arguments.report_data, "--report-data")
    if arguments.runtime_data is None:
        return None
    try:
        members = parse_object(read_file(arguments.runtime_data))
    except ValueError as exc:
        raise ConfigError([f"--runtime-data: not a JSON object: {exc}"]) from exc
    return hashlib.sha384(canonical_json(members)).digest()


def _summary(appraisal: TdxAppraisal) -> dict[str, object]:
    tdx = appraisal.claims["tdx"]
    verification = tdx["tcb_verification"] if isinstance(tdx, Mapping) else {}
    return {
        "accepted": True,
        "simulated": appraisal.simulated,
        "tcb_status": appraisal.tcb_status,
        "advisory_ids": verification["advisory_ids"],
        "claims": appraisal.claims,
    }


def _print(said: Mapping[str, object], checks: Sequence[Check], *, as_json: bool) -> None:
    """What was found out, then the checks; claims are for machines only."""
    if as_json:
        print(json.dumps({**said, "checks": [check_object(check) for check in checks]}, indent=2))
        return
    for line in _flat({name: value for name, value in said.items() if name != "claims"}, ""):
        print(line)
    for check in checks:
        print(check_line(check))


def _flat(value: object, name: str) -> Iterator[str]:
    """Lines `name: value`, with dots between the names of members inside each other."""
    if isinstance(value, Mapping):
        for member, inner in value.items():
            yield from _flat(inner, f"{name}.{member}" if name else str(member))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for item in value:
            yield f"{name}: {' '.join(str(member) for member in item.values())}"
    elif isinstance(value, list):
        yield f"{name}: {', '.join(map(str, value)) or 'none'}"
    else:
        shown = _WORDS[value] if isinstance(value, bool) else value
        yield f"{name}: {shown if shown != '' else 'none'}"
