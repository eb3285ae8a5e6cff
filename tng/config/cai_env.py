"""The deployment article's `cai.env`, and the configurations that follow from it.

In: the text of an env file in the dialect of `docker compose --env-file`: `KEY=value`, `#`
comments, single quotes (literal) and double quotes (with backslashes), empty values.  Out: a
dictionary, and from it the JSON of an ingress or an egress.
A reference to another variable is refused, not expanded: the file must mean the same everywhere.
Invariant: no value appears in an error, for the file holds access keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

from tng.errors import ConfigError

AGENT_SOCKET: Final = "unix:///run/confidential-containers/attestation-agent/attestation-agent.sock"
"""Where an Attestation Agent listens unless it is told otherwise."""

PROXY_PORT: Final = 41000
"""Port of the client's proxy in the deployment article."""

_MAX_TEXT: Final = 65_536  # characters; ten keys need one thousand
_ASSIGNMENT: Final = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]{0,127})[ \t]*=[ \t]*(.*)")
_SINGLE: Final = re.compile(r"'([^']*)'[ \t]*(?:#.*)?")
_DOUBLE: Final = re.compile(r'"((?:[^"\\]|\\.)*)"[ \t]*(?:#.*)?')
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}
_REFERENCE: Final = re.compile(r"(?<!\\)\$[A-Za-z_{(]")
_COMMENT: Final = re.compile(r"(?:^|[ \t])#.*")


def parse_cai_env(text: str) -> dict[str, str]:
    """Names and values of an env file; of a name that stands twice the last value, as in a shell.

    Raises:
        ConfigError: a line is no assignment, or a quote is left open.
    """
    if len(text) > _MAX_TEXT:
        raise ConfigError([f"cai.env: expected at most {_MAX_TEXT} characters, got more"])
    values: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        assignment = _ASSIGNMENT.fullmatch(stripped)
        if assignment is None:
            problems.append(f"cai.env line {number}: expected KEY=value, a comment or nothing")
            continue
        try:
            values[assignment[1]] = _parse_value(assignment[2])
        except ValueError as exc:
            problems.append(f"cai.env line {number}: {assignment[1]}: {exc}")
    if problems:
        raise ConfigError(problems)
    return values


def _parse_value(text: str) -> str:
    if text.startswith("'"):
        single = _SINGLE.fullmatch(text)
        if single is None:
            raise ValueError("expected one value between two single quotes")
        return single[1]
    if text.startswith('"'):
        double = _DOUBLE.fullmatch(text)
        if double is None:
            raise ValueError("expected one value between two double quotes")
        _refuse_reference(double[1])
        return _ESCAPE.sub(lambda m: _ESCAPES.get(m[1], m[1]), double[1])
    plain = _COMMENT.sub("", text).strip()
    _refuse_reference(plain)
    return plain


def _refuse_reference(text: str) -> None:
    if _REFERENCE.search(text):
        raise ValueError("expected no reference to a variable; single quotes keep a $ as it is")


def config_from_cai_env(
    values: Mapping[str, str],
    role: Literal["ingress", "egress"] = "egress",
    *,
    backend_port: int | None = None,
    aa_addr: str = AGENT_SOCKET,
) -> dict[str, object]:
    """The configuration that a `cai.env` stands for.

    An egress listens on MODEL_SERVICE_PORT of every address, because that is where clients
    connect, and leads to the model server on the loopback interface.  An ingress is the proxy
    of the deployment article.

    Args:
        values: what `parse_cai_env` gave: TRUSTEE_URL, TRUSTEE_POLICY, MODEL_SERVICE_PORT.
        role: which end.
        backend_port: port of the model server; None for MODEL_SERVICE_PORT + 1.
        aa_addr: socket of the Attestation Agent.

    Raises:
        ConfigError: a value is missing, or is none that can be used.
    """
    if role == "ingress":
        base = _needed(values, "TRUSTEE_URL")
        policies = _needed(values, "TRUSTEE_POLICY").replace(",", " ").split()
        verify = {"as_addr": f"{base.rstrip('/')}/as/", "policy_ids": policies}
        listen = {"host": "127.0.0.1", "port": PROXY_PORT}
        return {"add_ingress": [{"http_proxy": {"proxy_listen": listen}, "verify": verify}]}
    port_text = _needed(values, "MODEL_SERVICE_PORT")
    # Below 65535, so that there is a next port.
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or not 1 <= int(port_text) <= 65534:
        raise ConfigError(["cai.env: MODEL_SERVICE_PORT: expected an integer 1-65534"])
    port = int(port_text)
    mapping = {
        "in": {"host": "0.0.0.0", "port": port},  # noqa: S104 - the service is for others
        "out": {"host": "127.0.0.1", "port": port + 1 if backend_port is None else backend_port},
    }
    return {"add_egress": [{"mapping": mapping, "attest": {"aa_addr": aa_addr}}]}


def _needed(values: Mapping[str, str], name: str) -> str:
    value = values.get(name, "").strip()
    if not value:
        raise ConfigError([f"cai.env: {name}: required, and absent or empty"])
    return value
