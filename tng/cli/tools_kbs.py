"""`tng tools kbs`: a client of a key broker, for TEEs that need a secret and for administrators.

    tng tools kbs get-resource kbs:///default/aliyun/model-decryption-key --tsm --output key
    tng tools kbs admin-key DIRECTORY
    tng tools kbs set-resource kbs:///default/aliyun/model-decryption-key --from FILE --key-text

A secret goes to standard output, or into a file that only its user can read; never into the log.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from tng.errors import ConfigError, StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tng.attest.attester.base import Attester
    from tng.attest.kbs.client import KbsConnection
    from tng.attest.kbs.resource_id import ResourceId

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

_T = TypeVar("_T")

DEFAULT_URL: Final = "http://127.0.0.1:50005"
"""Address of `tng trustee` on this machine."""

_MAX_FILE: Final = 512 * 1024  # octets of a secret, as the broker takes them
_KEY_TEXT: Final = "drop one newline at the end, which editors and shells add to key files"


def add_parser(commands: Subparsers) -> None:
    """Add the tool to the command line."""
    parser = commands.add_parser(
        "kbs",
        help="fetch a secret from a key broker, or administer one",
        description="A client of a key broker (KBS): fetches a secret with evidence of this"
        " machine's TEE, or stores secrets as an administrator.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", required=True)
    _add_get(actions)
    _add_admin_key(actions)
    _add_set(actions)
    for name, run, text in (
        ("delete-resource", _delete, "forget a secret"),
        ("list-resources", _list, "print the names of all secrets"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
        if run is _delete:
            _add_resource(action)
        _add_admin_options(action)
        action.set_defaults(run=run)


def _add_get(actions: Subparsers) -> None:
    action = actions.add_parser(
        "get-resource",
        usage="%(prog)s RESOURCE SOURCE [options]",
        help="fetch a secret with evidence of this machine",
        description="Fetch a secret: show evidence of this machine's TEE, have the broker judge it,"
        " and open what it sends. One source of evidence must be named"
        " (SOURCE): --aa-addr, --asr-addr, --tsm, --attest or --simulated.",
    )
    _add_resource(action)
    _add_url(action)
    action.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="write the secret here, mode 0600, not to stdout",
    )
    action.add_argument("--key-text", action="store_true", help=_KEY_TEXT)
    action.add_argument(
        "--tee", metavar="NAME", default="tdx", help="name of the TEE (%(default)s)"
    )
    action.add_argument(
        "--protocol-version",
        metavar="VERSION",
        default="0.4.0",
        help="of the handshake; brokers before 1.6 want 0.1.0 (%(default)s)",
    )
    sources = action.add_mutually_exclusive_group(required=True)
    sources.add_argument("--aa-addr", metavar="URL", help="evidence from this Attestation Agent")
    sources.add_argument("--asr-addr", metavar="URL", help="evidence from this API server")
    sources.add_argument("--tsm", action="store_true", help="evidence from the kernel")
    sources.add_argument(
        "--simulated", metavar="DIR", help="DANGER: evidence of a platform in software"
    )
    sources.add_argument("--attest", metavar="JSON", help="a whole `attest` section")
    action.set_defaults(run=_get)


def _add_admin_key(actions: Subparsers) -> None:
    action = actions.add_parser(
        "admin-key",
        help="make an administrator's key pair",
        description="Make an administrator's key pair: DIR/admin.pem stays with the administrator,"
        " DIR/admin-public.pem is for `tng trustee --admin-key`.",
    )
    action.add_argument("directory", metavar="DIR", type=Path, help="where to; made if missing")
    action.set_defaults(run=_make_admin_key)


def _add_set(actions: Subparsers) -> None:
    action = actions.add_parser(
        "set-resource",
        help="store a secret",
        description="Store a secret under a name, in place of what had it.",
    )
    _add_resource(action)
    action.add_argument(
        "--from", metavar="FILE", type=Path, required=True, dest="source", help="the secret"
    )
    action.add_argument("--key-text", action="store_true", help=_KEY_TEXT)
    _add_admin_options(action)
    action.set_defaults(run=_set)


def _add_resource(action: argparse.ArgumentParser) -> None:
    action.add_argument("resource", metavar="RESOURCE", help="its name, kbs:///REPOSITORY/TYPE/TAG")


def _add_admin_options(action: argparse.ArgumentParser) -> None:
    _add_url(action)
    action.add_argument(
        "--admin-key",
        metavar="FILE",
        type=Path,
        required=True,
        help="the administrator's private key (Ed25519, PEM)",
    )


def _add_url(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--url",
        metavar="URL",
        help=f"the key broker, without /kbs/v0 (default: $TRUSTEE_URL, else {DEFAULT_URL})",
    )


def _get(arguments: argparse.Namespace) -> int:
    """Fetch a secret."""
    from tng.attest.kbs.binding import VERSIONS
    from tng.attest.kbs.client import KbsConnection, fetch_resource
    from tng.attest.kbs.key_text import without_newline

    version = arguments.protocol_version
    if version not in VERSIONS:
        raise ConfigError(
            [f"--protocol-version: expected one of {', '.join(VERSIONS)}, got {version!r}"]
        )
    resource, attester = _resource(arguments), _attester(arguments)

    async def fetch(connection: KbsConnection) -> bytes:
        return await fetch_resource(
            connection, resource, attester, tee=arguments.tee, version=version
        )

    secret = _run(KbsConnection(_url(arguments)), fetch)
    secret = without_newline(secret) if arguments.key_text else secret
    if arguments.output is None:
        sys.stdout.buffer.write(secret)
        sys.stdout.buffer.flush()
    else:
        _write_private(arguments.output, secret)
    return 0


def _set(arguments: argparse.Namespace) -> int:
    """Store a secret."""
    from tng.attest.kbs.admin import put_resource
    from tng.attest.kbs.key_text import without_newline

    resource = _resource(arguments)
    secret = _read(arguments.source, "--from")
    secret = without_newline(secret) if arguments.key_text else secret
    _run(_admin(arguments), lambda connection: put_resource(connection, resource, secret))
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    """Forget a secret."""
    from tng.attest.kbs.admin import delete_resource

    resource = _resource(arguments)
    _run(_admin(arguments), lambda connection: delete_resource(connection, resource))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    """Print names."""
    from tng.attest.kbs.admin import list_resources

    for name in _run(_admin(arguments), list_resources):
        print(name)
    return 0


def _make_admin_key(arguments: argparse.Namespace) -> int:
    """Make a key pair."""
    from tng.attest.kbs.admin import make_admin_key

    private, public = make_admin_key()
    try:
        arguments.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise StartError(f"{arguments.directory}: {exc.strerror}") from exc
    _write_private(arguments.directory / "admin.pem", private, replace=False)
    _write_private(arguments.directory / "admin-public.pem", public, replace=False)
    return 0


def _run(
    connection: KbsConnection, work: Callable[[KbsConnection], Coroutine[object, object, _T]]
) -> _T:
    import trio

    async def main() -> _T:
        async with connection:
            return await work(connection)

    return trio.run(main)


def _admin(arguments: argparse.Namespace) -> KbsConnection:
    from tng.attest.kbs.admin import make_admin_token
    from tng.attest.kbs.client import KbsConnection
    from tng.clock import SystemClock

    key = _read(arguments.admin_key, "--admin-key")
    token = make_admin_token(key, SystemClock().now(), "--admin-key")
    return KbsConnection(_url(arguments), {"authorization": f"Bearer {token}"})


def _url(arguments: argparse.Namespace) -> str:
    url: str = arguments.url or os.environ.get("TRUSTEE_URL") or DEFAULT_URL
    if not url.startswith(("http://", "https://")):
        raise ConfigError([f"--url: expected an http or https URL, got {url[:200]!r}"])
    return url


def _resource(arguments: argparse.Namespace) -> ResourceId:
    from tng.attest.kbs.resource_id import parse_resource_uri

    try:
        return parse_resource_uri(arguments.resource)
    except ValueError as exc:
        raise ConfigError([f"RESOURCE: {exc}"]) from exc


def _attester(arguments: argparse.Namespace) -> Attester:
    """The source of evidence, checked exactly as in a configuration."""
    from tng.attest.attester.factory import make_attester
    from tng.config.loader import prepare_config

    if arguments.attest is not None:
        try:
            section = json.loads(arguments.attest)
        except json.JSONDecodeError as exc:
            raise ConfigError([f"--attest: not JSON: {exc}"]) from exc
    elif arguments.aa_addr is not None:
        section = {"aa_addr": arguments.aa_addr}
    elif arguments.asr_addr is not None:
        section = {"aa_provider": "coco_asr", "asr_addr": arguments.asr_addr}
    elif arguments.tsm:
        section = {"aa_type": "tsm"}
    else:
        section = {"aa_type": "simulated", "simulated_platform": arguments.simulated}
    address = {"host": "127.0.0.1", "port": 1}
    entry = {"mapping": {"in": address, "out": address}, "attest": section}
    attest = prepare_config(json.dumps({"add_egress": [entry]})).add_egress[0].attest
    assert attest is not None  # it was in the text
    return make_attester(attest)


def _read(path: Path, option: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as exc:
        raise ConfigError([f"{option}: {path}: {exc.strerror}"]) from exc
    if not 1 <= len(data) <= _MAX_FILE:
        raise ConfigError([f"{option}: {path}: expected 1 to {_MAX_FILE} octets"])
    return data


def _write_private(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file that only its user can read."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | (0 if replace else os.O_EXCL), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # before the first octet: an old file may be open to all
            file.truncate()
            file.write(data)
    except OSError as exc:
        raise StartError(f"{path}: {exc.strerror}") from exc
