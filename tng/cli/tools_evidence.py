"""TDX evidence on the command line: which options name it and how it is judged.

Arguments in; evidence in the form of an attestation agent, or its judgement, out.  A file may
hold such evidence, or a quote alone as octets, hexadecimal or base64.  Shared by `tng tools quote`
and `tng tools rv`.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import datetime as dt
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tng.clock import SystemClock
from tng.errors import ConfigError, StartError

if TYPE_CHECKING:
    from tng.attest.tdx.appraisal import TdxAppraisal
    from tng.verdict import Check

MAX_FILE_OCTETS: Final = 8 * 1024 * 1024
"""Of any input file; the largest, evidence with a long event log, stays below 4 MiB."""

_TCB_STATUSES: Final = (
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
)
_JSON: Final = b"{"
_HEX_DIGITS: Final = frozenset(b"0123456789abcdefABCDEF")


def add_evidence(parser: argparse.ArgumentParser) -> None:
    """Add the options that name evidence."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="evidence of an attestation agent (JSON), or a quote: octets, hexadecimal or base64;"
        " - for standard input",
    )
    parser.add_argument(
        "--event-log", metavar="FILE", type=Path, help="event log beside a quote (CCEL)"
    )


def add_judging(parser: argparse.ArgumentParser, *, is_required: bool) -> None:
    """Add the options that say how evidence is judged."""
    parser.add_argument(
        "--collateral",
        metavar="PATH",
        type=Path,
        required=is_required,
        help="collateral of the platform: a JSON file, or a folder of them",
    )
    parser.add_argument(
        "--root",
        metavar="FILE",
        type=Path,
        help="DANGER: trust this root (DER or PEM) instead of Intel's; for simulated platforms",
    )
    parser.add_argument(
        "--at", metavar="TIME", help="judge as of then: Unix seconds or ISO 8601 (default: now)"
    )
    parser.add_argument(
        "--allow-tcb-status",
        metavar="STATUS",
        action="append",
        choices=_TCB_STATUSES,
        default=[],
        help=f"accept this status beside UpToDate; may be repeated: {', '.join(_TCB_STATUSES)}",
    )


def read_evidence(arguments: argparse.Namespace) -> bytes:
    """The evidence as JSON text; a quote alone is put into that form.

    Raises:
        ConfigError: an event log beside evidence that has its own place for it.
        StartError: a file cannot be read.
    """
    data = read_file(Path(arguments.file))
    if data.lstrip()[:1] == _JSON:
        if arguments.event_log is not None:
            raise ConfigError(["--event-log: goes with a quote, and FILE is evidence (JSON)"])
        return data
    members: dict[str, str | None] = {"quote": _base64(_quote_octets(data)), "cc_eventlog": None}
    if arguments.event_log is not None:
        members["cc_eventlog"] = _base64(read_file(arguments.event_log))
    return json.dumps(members).encode()


def judge(
    arguments: argparse.Namespace,
    evidence: bytes,
    *,
    report_data: bytes | None,
    init_data: bytes | None = None,
) -> TdxAppraisal:
    """Judge evidence as the options of `add_judging` say.

    Raises:
        TdxRefused: it did not pass.
        UntrustedPeerError: it cannot be read far enough to know its platform.
        AppraiserError: there is no collateral for it.
        ConfigError: an option is wrong.
    """
    from tng.attest.tdx.appraisal import DEFAULT_TCB_STATUSES, judge_tdx, parse_tdx_evidence
    from tng.attest.tdx.bundle import collateral_from_files
    from tng.attest.tdx.quote import parse_quote

    now = moment(arguments.at)
    root = None if arguments.root is None else _root(arguments.root)
    quote = parse_quote(parse_tdx_evidence(evidence).quote)
    return judge_tdx(
        evidence,
        expected_report_data=report_data,
        collateral=collateral_from_files(arguments.collateral, quote),
        now=now,
        root_ca_der=root,
        allowed_tcb_status=DEFAULT_TCB_STATUSES.union(arguments.allow_tcb_status),
        init_data_digest=init_data,
    )


def read_file(path: Path) -> bytes:
    """The octets of a file, at most 8 MiB; of standard input for `-`.

    Raises:
        StartError: it cannot be read, or has more.
    """
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(MAX_FILE_OCTETS + 1)
        else:
            with path.open("rb") as stream:
                data = stream.read(MAX_FILE_OCTETS + 1)
    except OSError as exc:
        raise StartError(f"{str(path)!r} cannot be read: {exc.strerror}") from exc
    if len(data) > MAX_FILE_OCTETS:
        raise StartError(f"{str(path)!r} has more than {MAX_FILE_OCTETS} octets")
    return data


def moment(text: str | None) -> int:
    """Unix time, seconds, that `--at` names; now for None.

    Raises:
        ConfigError: it names none.
    """
    if text is None:
        return int(SystemClock().now())
    if text.isascii() and text.isdigit() and len(text) <= 11:
        return int(text)
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError as exc:
        raise ConfigError([f"--at: expected Unix seconds or ISO 8601, got {text!r:.40}"]) from exc
    return int((at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp())


def from_hexadecimal(text: str, option: str) -> bytes:
    """Octets of an option's value.

    Raises:
        ConfigError: not hexadecimal, or more than 64 octets.
    """
    try:
        octets = bytes.fromhex(text)
    except ValueError as exc:
        raise ConfigError([f"{option}: expected hexadecimal digits, got {text!r:.80}"]) from exc
    if len(octets) > 64:
        raise ConfigError([f"{option}: expected at most 64 octets, got {len(octets)}"])
    return octets


def check_line(check: Check) -> str:
    """A check as one line for people."""
    detail = "".join(c if c.isprintable() else "?" for c in check.detail)
    return f"{check.outcome.upper()} {check.number:>2} {check.name}: {detail}"


def check_object(check: Check) -> dict[str, object]:
    """A check as an object for machines."""
    return {
        "number": check.number,
        "name": check.name,
        "outcome": check.outcome.value,
        "detail": check.detail,
    }


def _quote_octets(data: bytes) -> bytes:
    """A quote, however it is written.  Octets of a quote begin with a version: 4 or 5, then 0."""
    text = data.strip()
    digits = text.removeprefix(b"0x")
    if digits and _HEX_DIGITS.issuperset(digits) and not len(digits) % 2:
        return bytes.fromhex(digits.decode())
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return data


def _root(path: Path) -> bytes:
    """DER of the root certificate in a file."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    data = read_file(path)
    try:
        if data.lstrip().startswith(b"-----"):
            return x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)
        return x509.load_der_x509_certificate(data).public_bytes(Encoding.DER)
    except ValueError as exc:
        raise ConfigError([f"--root: {str(path)!r} holds no certificate (DER or PEM)"]) from exc


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
