"""`tng tools policy test`: what a policy says of given claims, rule by rule.

    tng tools policy test --policy hardware_only --claims claims.json
    tng tools policy test --policy my.rego --reference-values rv.json --token token.jwt --json

Claims are those that a token carries for one device; with `--token` those of every device in an
EAR, whose signature is not looked at.  Nothing is verified here but the policy.

Exit status: 0 every device is affirmed; 1 some device is not, or a policy cannot be evaluated on
the claims; 2 an argument or a file is wrong.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tng.errors import ConfigError, UntrustedPeerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tng.attest.policy.base import Appraisal, AppraisalPolicy
    from tng.attest.strict_json import Json

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

_MAX_FILE: Final = 16 * 1024 * 1024  # octets of claims: a token with a long event log has 55,000
_EVIDENCE: Final = "ear.veraison.annotated-evidence"
_ALONE: Final = "device"
_DEFAULT: Final = "hardware_only"


def add_parser(commands: Subparsers) -> None:
    """Add the tool to the command line."""
    parser = commands.add_parser(
        "policy",
        help="try an appraisal policy",
        description="Try an appraisal policy on claims, before a gateway depends on it.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", required=True)
    test = actions.add_parser(
        "test",
        help="evaluate a policy on claims and print every rule",
        description="Evaluate a policy on claims and print PASS, FAIL or SKIP for every rule;"
        " SKIP never counts as PASS. No signature is verified. Exit status 0 if every device is"
        " affirmed, 1 if not, 2 if an argument or a file is wrong.",
    )
    test.add_argument(
        "--policy",
        metavar="NAME|FILE",
        default=_DEFAULT,
        help="a shipped policy, or a file with Rego if the name ends in .rego (%(default)s)",
    )
    test.add_argument(
        "--reference-values",
        metavar="FILE",
        action="append",
        default=[],
        help="JSON object of values by name; may be repeated",
    )
    sources = test.add_mutually_exclusive_group(required=True)
    sources.add_argument(
        "--claims", metavar="FILE", type=Path, help="JSON object: annotated evidence of one device"
    )
    sources.add_argument(
        "--token", metavar="FILE", type=Path, help="an EAR token; its signature is not verified"
    )
    test.add_argument("--json", action="store_true", help="print the result as JSON")
    test.set_defaults(run=run_test)


def run_test(arguments: argparse.Namespace) -> int:
    """Evaluate; see the module."""
    policy = _policy(arguments.policy)
    references = _references(arguments.reference_values)
    devices = _devices(arguments)
    results = {name: _evaluate(policy, claims, references) for name, claims in devices.items()}
    if arguments.json:
        print(json.dumps(_report(arguments.policy, results), indent=2))
    else:
        for name, result in results.items():
            _print_result(name, result)
    return 0 if all(_is_affirmed(result) for result in results.values()) else 1


def _policy(name: str) -> AppraisalPolicy:
    from tng.attest.policy.factory import make_policy
    from tng.config.verify import AttestationPolicy

    section = {"type": "path", "path": name} if name.endswith(".rego") else {"type": name}
    try:
        return make_policy(AttestationPolicy.model_validate(section))
    except ValueError as exc:
        from tng.attest.policy.native import SHIPPED

        known = ", ".join(SHIPPED)
        raise ConfigError([f"--policy: expected FILE.rego, or one of {known}"]) from exc


def _references(paths: Sequence[str]) -> dict[str, Json]:
    from tng.attest.reference_values.factory import load_reference_values
    from tng.config.verify import ReferenceValues

    return load_reference_values(
        [
            ReferenceValues.model_validate(
                {"type": "sample", "payload": {"type": "path", "path": path}}
            )
            for path in paths
        ]
    )


def _devices(arguments: argparse.Namespace) -> dict[str, dict[str, Json]]:
    """Claims by device."""
    from tng.attest.strict_json import parse_object

    path: Path = arguments.claims or arguments.token
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise ConfigError([f"{path}: more than {_MAX_FILE} octets"])
        return {_ALONE: parse_object(data)} if arguments.claims else _of_token(data)
    except OSError as exc:
        raise ConfigError([f"{path}: cannot be read: {exc.strerror}"]) from exc
    except ValueError as exc:
        kind = "a JSON object of claims" if arguments.claims else "an EAR token"
        raise ConfigError([f"{path}: expected {kind}: {exc}"]) from exc


def _of_token(data: bytes) -> dict[str, dict[str, Json]]:
    """Annotated evidence of every device of a token."""
    from tng.attest.base64_text import decode_base64
    from tng.attest.strict_json import parse_object

    segments = data.decode("ascii").strip().split(".")
    if len(segments) != 3:
        raise ValueError(f"three segments with dots between, got {len(segments)}")
    submods = parse_object(decode_base64(segments[1])).get("submods")
    if not isinstance(submods, dict) or not submods:
        raise ValueError("claims with submods")
    devices = {}
    for name, submod in submods.items():
        evidence = submod.get(_EVIDENCE) if isinstance(submod, dict) else None
        if not isinstance(evidence, dict):
            raise ValueError(f"{name[:40]!r} has no {_EVIDENCE}")  # noqa: TRY004
        devices[name] = evidence
    return devices


def _evaluate(
    policy: AppraisalPolicy, claims: Mapping[str, Json], references: Mapping[str, Json]
) -> Appraisal | str:
    """What the policy says; the error's words where it cannot be evaluated."""
    try:
        return policy.evaluate(claims, references)
    except UntrustedPeerError as exc:
        return str(exc)


def _is_affirmed(result: Appraisal | str) -> bool:
    from tng.attest.policy.base import Tier

    return not isinstance(result, str) and result.status is Tier.AFFIRMING


def _report(policy: str, results: Mapping[str, Appraisal | str]) -> dict[str, object]:
    return {
        "policy": policy,
        "affirmed": all(_is_affirmed(result) for result in results.values()),
        "devices": {name: _as_json(result) for name, result in results.items()},
    }


def _as_json(result: Appraisal | str) -> dict[str, object]:
    if isinstance(result, str):
        return {"status": None, "error": result, "rules": []}
    return {
        "status": result.status.value,
        "error": None,
        "rules": [
            {
                "claim": rule.claim,
                "outcome": rule.outcome.value,
                "value": rule.value,
                "tier": rule.tier.value,
                "reason": rule.reason,
            }
            for rule in result.rules
        ],
    }


def _print_result(name: str, result: Appraisal | str) -> None:
    if isinstance(result, str):
        print(f"{name}: cannot be evaluated\n  {result}")
        return
    print(f"{name}: {result.status.value}")
    for rule in result.rules:
        value = "-" if rule.value is None else str(rule.value)
        print(f"  {rule.outcome.value.upper():4}  {rule.claim:17}  {value:>4}  {rule.reason}")
