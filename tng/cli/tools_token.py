"""`tng tools token explain FILE`: every check of an attestation service's token, one by one.

A token, and what it is to be compared with, in; PASS, FAIL or SKIP for each of the checks 5 to 13,
and what the token says, out.  Nobody is asked.  A check for which nothing was given is skipped, and
a skipped check is no pass: exit status 0 only where none was skipped, 1 if one failed, 3 if none
failed and some were skipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tng.errors import ConfigError, UntrustedPeerError

if TYPE_CHECKING:
    from cryptography import x509

    from tng.attest.strict_json import Json
    from tng.verdict import Check

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

SKIPPED: Final = 3
"""Exit status where no check failed and at least one was not made."""

_UNASKED: Final = {
    6: "no --trusted-cert was given: anybody may have signed",
    10: "no --cert was given: whose key it is about was not compared",
    13: "no --policy-id was given",
}
_EPILOG: Final = """\
exit status: 0 every check passed, 1 one failed, 2 wrong usage, 3 none failed and some were skipped
"""


def add_parser(commands: Subparsers) -> None:
    """Add the tool to the command line."""
    parser = commands.add_parser(
        "token",
        help="look at a token of an attestation service",
        description="Tokens of attestation services.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", required=True)
    explain = actions.add_parser(
        "explain",
        help="make every check on a token, and say what it holds",
        description="Make every check on a token that can be made with what is given, and say what"
        "\nthe token holds.  Nobody is asked.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explain.add_argument("file", metavar="FILE", type=Path, help="the token (JWT); - for stdin")
    explain.add_argument(
        "--trusted-cert",
        metavar="FILE",
        action="append",
        default=[],
        help="trust anchor of its signer (PEM); may be repeated",
    )
    explain.add_argument(
        "--cert", metavar="FILE", type=Path, help="certificate whose key it has to name (PEM, DER)"
    )
    explain.add_argument(
        "--policy-id",
        metavar="ID",
        action="append",
        default=[],
        help="policy that must have been applied; may be repeated",
    )
    explain.add_argument(
        "--allow-simulated", action="store_true", help="DANGER: accept simulated evidence"
    )
    explain.add_argument(
        "--at", metavar="TIME", help="check as of then: Unix seconds or ISO 8601 (default: now)"
    )
    explain.add_argument("--json", action="store_true", help="print a JSON object")
    explain.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Explain the token; see the module for the exit status.

    Raises:
        ConfigError: an option names nothing usable.
        StartError: a file cannot be read.
    """
    from tng.cli.tools_evidence import check_line, check_object, moment, read_file
    from tng.verdict import Outcome

    text = read_file(arguments.file).decode("utf-8", "replace").strip()
    now = moment(arguments.at)
    checks = _worded(_checks(arguments, text, now))
    outcomes = {check.outcome for check in checks}
    status = 1 if Outcome.FAIL in outcomes else SKIPPED if Outcome.SKIP in outcomes else 0
    result = {0: "passed", 1: "failed", SKIPPED: "incomplete"}[status]
    holds = _contents(text)
    if arguments.json:
        listed = [check_object(check) for check in checks]
        print(json.dumps({"result": result, "checks": listed, "token": holds}, indent=2))
        return status
    for name, value in holds.items():
        print(_printable(f"{name}: {value if isinstance(value, str) else json.dumps(value)}"))
    for check in checks:
        print(check_line(check))
    print(f"result: {result}")
    return status


def _checks(arguments: argparse.Namespace, text: str, now: int) -> list[Check]:
    """Checks 5 to 13; those behind one that failed were not made."""
    from tng.attest.checks import Findings, Step
    from tng.attest.token import check_token
    from tng.verdict import Check, Outcome

    findings = Findings(now)
    try:
        check_token(
            text,
            anchors=_anchors(arguments.trusted_cert),
            expected_claims=_expected(arguments.cert),
            policy_ids=arguments.policy_id,
            now=now,
            allow_simulated=arguments.allow_simulated,
            findings=findings,
        )
    except UntrustedPeerError as error:
        made = list(findings.checks if error.verdict is None else error.verdict.checks)
    else:
        made = list(findings.checks)
    reached = {check.number for check in made}
    return made + [
        Check(int(step), step.title, Outcome.SKIP, "not reached")
        for step in Step
        if Step.TOKEN_FORMAT <= step <= Step.POLICY and step not in reached
    ]


def _worded(checks: list[Check]) -> list[Check]:
    """The same checks; a skip says which option would have the check made."""
    from dataclasses import replace

    from tng.verdict import Outcome

    return [
        replace(check, detail=_UNASKED[check.number])
        if check.outcome is Outcome.SKIP
        and check.number in _UNASKED
        and check.detail != "not reached"
        else check
        for check in checks
    ]


def _anchors(files: list[str]) -> list[x509.Certificate] | None:
    """The trust anchors; None where none were named."""
    from cryptography import x509

    from tng.cli.tools_evidence import read_file

    anchors = []
    for name in files:
        try:
            anchors += x509.load_pem_x509_certificates(read_file(Path(name)))
        except ValueError as exc:
            raise ConfigError([f"--trusted-cert: {name!r} holds no certificate (PEM)"]) from exc
    return anchors or None


def _expected(path: Path | None) -> dict[str, Json]:
    """The claims that a token about the certificate's key has."""
    if path is None:
        return {}
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from tng.attest.binding import pubkey_claims
    from tng.cli.tools_rats_tls import read_certificate

    try:
        key = x509.load_der_x509_certificate(read_certificate(path)).public_key()
    except ValueError as exc:
        raise ConfigError([f"--cert: {str(path)!r} holds no certificate: {exc}"]) from exc
    return dict(pubkey_claims(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)))


def _contents(text: str) -> dict[str, Json]:
    """What the token says, for people; empty if it cannot be read."""
    import datetime as dt

    from tng.cli.tools_parts import read_claims

    try:
        claims = read_claims(text)
    except ValueError:
        return {}
    found: dict[str, Json] = {}
    for name in ("eat_profile", "iss", "iat", "nbf", "exp", "tee", "ear.verifier-id"):
        value = claims.get(name)
        if name in {"iat", "nbf", "exp"} and isinstance(value, int) and 0 <= value < 1 << 37:
            value = dt.datetime.fromtimestamp(value, dt.UTC).isoformat()
        if value is not None:
            found[name] = value
    submodules = claims.get("submods")
    for name, module in (submodules if isinstance(submodules, dict) else {}).items():
        if isinstance(module, dict):
            found[f"submodule {name}"] = {
                key: module[key]
                for key in ("ear.status", "ear.appraisal-policy-id", "ear.trustworthiness-vector")
                if key in module
            }
    return found


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
