"""`tng tools rv`: reference values from a machine that is known to be good.

    tng tools rv from-quote evidence.json --collateral DIR > values.json
    tng tools rv from-token token.jwt --trusted-cert as-ca.pem > values.json

Standard output is one JSON object, name to list of values, as `verify.reference_values` with the
type `sample` takes it.  Standard error has every check as PASS, FAIL or SKIP.  What is not
verified gives no values, unless `--unverified` asks for that by name.  Exit status 0 if values
were printed, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tng.cli.tools_evidence import (
    add_evidence,
    add_judging,
    check_line,
    judge,
    moment,
    read_evidence,
    read_file,
)
from tng.errors import ConfigError, ErrorCode, UntrustedPeerError
from tng.verdict import Check, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cryptography import x509

    from tng.attest.jws import SignedToken
    from tng.attest.strict_json import Json

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

_T = TypeVar("_T")
_Values = dict[str, "list[Json]"]
_UNVERIFIED = "DANGER: print values of what nobody has verified"


def add_parser(commands: Subparsers) -> None:
    """Add the tool to the command line."""
    parser = commands.add_parser(
        "rv",
        help="make reference values of a machine that is known to be good",
        description="Print reference values, as JSON, under which a policy about measurements"
        " accepts the machine that a quote or a token speaks of.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", required=True)
    quote = actions.add_parser(
        "from-quote",
        help="from evidence with a TDX quote",
        description="Print the reference values of a quote and its event log.",
    )
    add_evidence(quote)
    add_judging(quote, is_required=False)
    quote.add_argument("--unverified", action="store_true", help=_UNVERIFIED)
    quote.set_defaults(run=_from_quote)
    token = actions.add_parser(
        "from-token",
        help="from a token of an attestation service",
        description="Print the reference values of the trust domains in a token.",
    )
    token.add_argument("file", metavar="FILE", help="the token; - for standard input")
    token.add_argument(
        "--trusted-cert",
        metavar="FILE",
        action="append",
        type=Path,
        default=[],
        help="trust anchor of the token's signer (PEM); may be repeated",
    )
    token.add_argument("--at", metavar="TIME", help="judge as of then (default: now)")
    token.add_argument("--unverified", action="store_true", help=_UNVERIFIED)
    token.set_defaults(run=_from_token)


def _from_quote(arguments: argparse.Namespace) -> int:
    from tng.attest.tdx.appraisal import TdxRefused, parse_tdx_evidence
    from tng.attest.tdx.eventlog import check_against_quote, parse_event_log
    from tng.attest.tdx.measurements import named_measurements, reference_values
    from tng.attest.tdx.quote import parse_quote

    _require_choice(arguments.collateral is not None, arguments, "--collateral")
    evidence = read_evidence(arguments)
    parts = parse_tdx_evidence(evidence)
    quote = parse_quote(parts.quote)
    entries = () if parts.event_log is None else parse_event_log(parts.event_log)
    if arguments.unverified:
        if entries:
            check_against_quote(entries, quote.body)
        _say([Check(3, "quote signature", Outcome.SKIP, "--unverified")])
    else:
        try:
            _say(judge(arguments, evidence, report_data=None).checks)
        except TdxRefused as refused:
            _say(refused.checks)
            raise
    _print(reference_values(quote.body.claims(), named_measurements(entries)))
    return 0


def _from_token(arguments: argparse.Namespace) -> int:
    from tng.attest.tdx.measurements import named_measurements, reference_values
    from tng.attest.tdx.token_claims import guests_in

    _require_choice(bool(arguments.trusted_cert), arguments, "--trusted-cert")
    anchors = [_anchor(path) for path in arguments.trusted_cert]
    claims = _claims(arguments, anchors)
    _say([_hardware(claims)])
    guests = guests_in(claims)
    if not guests:
        raise UntrustedPeerError(
            "the token speaks of no TDX trust domain, so it has no measurements",
            code=ErrorCode.EVIDENCE_MALFORMED,
        )
    values: _Values = {}
    for guest in guests:
        for name, some in reference_values(
            guest.fields, named_measurements(guest.entries or ())
        ).items():
            known = values.setdefault(name, [])
            known.extend(value for value in some if value not in known)
    _print(values)
    return 0


def _claims(arguments: argparse.Namespace, anchors: list[x509.Certificate]) -> dict[str, Json]:
    """Claims of the token, after as many checks as were asked for."""
    from tng.attest.checks import Step
    from tng.attest.jws import parse_token
    from tng.attest.strict_json import parse_object

    text = read_file(Path(arguments.file)).decode("ascii", "replace").strip()
    token = _checked(Step.TOKEN_FORMAT, "three segments", lambda: parse_token(text))
    if arguments.unverified:
        for step in (Step.TOKEN_SIGNER, Step.TOKEN_SIGNATURE, Step.TOKEN_TIME):
            _say([Check(step, step.title, Outcome.SKIP, "--unverified")])
        return _checked(Step.TOKEN_PROFILE, "an object", lambda: parse_object(token.payload))
    now = moment(arguments.at)
    _checked(Step.TOKEN_SIGNER, "leads to an anchor", lambda: _check_signer(token, anchors, now))
    _checked(Step.TOKEN_SIGNATURE, token.algorithm, token.verify_signature)
    claims = _checked(Step.TOKEN_PROFILE, "an object", lambda: parse_object(token.payload))
    _checked(Step.TOKEN_TIME, "not expired", lambda: _check_time(claims, now))
    return claims


def _hardware(claims: dict[str, Json]) -> Check:
    """Whether the token says that no hardware stands behind its evidence."""
    from tng.attest.checks import Step
    from tng.attest.ear import marks_simulation

    number, name = Step.REAL_HARDWARE, Step.REAL_HARDWARE.title
    if "simulated_platform" in str(claims.get("tcb-status")) or marks_simulation(claims):
        return Check(number, name, Outcome.SKIP, "SIMULATED platform: values are for trials only")
    return Check(number, name, Outcome.PASS, "no mark of a simulated platform")


def _check_signer(token: SignedToken, anchors: list[x509.Certificate], now: int) -> None:
    from tng.attest.jws import same_key
    from tng.attest.x5c import parse_x5c, public_key, verify_chain

    if token.x5c is None:
        raise ValueError("the token carries no certificate chain (x5c)")
    chain = parse_x5c(token.x5c)
    if not same_key(public_key(chain[0]), token.key):
        raise ValueError("the key in jwk is not the key of the certificate x5c[0]")
    verify_chain(chain, anchors, now)


def _check_time(claims: dict[str, Json], now: int) -> None:
    end = claims.get("exp")
    if isinstance(end, bool) or not isinstance(end, int | float) or now > end:
        raise ValueError(f"the token ends at {end!r:.40}, judged at {now} (see --at)")


def _checked(step: int, passed: str, ask: Callable[[], _T]) -> _T:
    """What `ask` returns, with the check said either way.

    Raises:
        UntrustedPeerError: it raised ValueError.
    """
    from tng.attest.checks import Step

    title = Step(step).title
    try:
        answer = ask()
    except ValueError as exc:
        _say([Check(step, title, Outcome.FAIL, str(exc)[:400])])
        code = ErrorCode.STALE if step == Step.TOKEN_TIME else ErrorCode.AS_BAD_TOKEN
        raise UntrustedPeerError(f"{title}: {str(exc)[:400]}", code=code) from exc
    _say([Check(step, title, Outcome.PASS, passed)])
    return answer


def _anchor(path: Path) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(read_file(path))
    except ValueError as exc:
        raise ConfigError([f"--trusted-cert: {str(path)!r} holds no certificate (PEM)"]) from exc


def _require_choice(is_verified: bool, arguments: argparse.Namespace, option: str) -> None:
    """Verified or not: exactly one must have been asked for."""
    if is_verified is arguments.unverified:
        raise ConfigError([f"expected either {option} or --unverified"])


def _say(checks: Iterable[Check]) -> None:
    for check in checks:
        print(check_line(check), file=sys.stderr)


def _print(values: _Values) -> None:
    print(json.dumps(values, indent=1, sort_keys=True))
