"""`tng tools rats-tls`: certificates of attested TLS, made, fetched, taken apart, judged.

    tng tools rats-tls gen --attest JSON --cert-out PEM --key-out PEM
    tng tools rats-tls dump --endpoint HOST:PORT --out-dir DIR
    tng tools rats-tls verify (--cert FILE | --endpoint HOST:PORT) --verify JSON

Source: the tool of TNG 2.12; `--out-dir`, `--json` and `verify --endpoint` are extensions.  Results
go to standard output, checks to standard error.  Exit status of `verify`: 0 accepted, 1 not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tng.errors import ConfigError, UntrustedPeerError

if TYPE_CHECKING:
    from tng.attest.credential import Credential
    from tng.endpoint import Endpoint
    from tng.verdict import AttestedPeer, Verdict

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

_PEM: Final = b"-----BEGIN"


def add_parser(commands: Subparsers) -> None:
    """Add the tool to the command line."""
    parser = commands.add_parser(
        "rats-tls",
        help="make, fetch and judge certificates of attested TLS",
        description="Certificates of attested TLS: make one, fetch that of a live egress, judge"
        " one.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", required=True)
    _add_gen(actions)
    _add_dump(actions)
    _add_verify(actions)


def _add_gen(actions: Subparsers) -> None:
    gen = actions.add_parser(
        "gen",
        help="make a certificate with evidence of this machine",
        description="Make a key and a certificate for it in which the TEE of this machine vouches"
        " for the key.",
    )
    gen.add_argument("--attest", metavar="JSON", required=True, help="an `attest` section")
    _add_cert_out(gen)
    gen.add_argument(
        "--key-out", metavar="PEM", type=Path, help="write the key here, mode 0600, not to stdout"
    )
    gen.set_defaults(run=_gen)


def _add_dump(actions: Subparsers) -> None:
    dump = actions.add_parser(
        "dump",
        help="fetch the certificate of a live egress",
        description="Fetch the certificate of a live egress; nothing is judged.",
    )
    dump.add_argument("--endpoint", metavar="HOST:PORT", required=True, help="the egress")
    dump.add_argument("--attest", metavar="JSON", help="an `attest` section: show a certificate")
    _add_cert_out(dump)
    dump.add_argument(
        "--out-dir",
        metavar="DIR",
        type=Path,
        help="also take it apart: cert.pem, cert.json and evidence.json (with a quote: quote.bin)"
        " or attestation_result.jwt",
    )
    dump.set_defaults(run=_dump)


def _add_verify(actions: Subparsers) -> None:
    verify = actions.add_parser(
        "verify",
        help="judge a certificate",
        description="Judge a certificate from a file, or that of a live egress."
        " Exit status 0 if it is accepted, 1 if not.",
    )
    source = verify.add_mutually_exclusive_group(required=True)
    source.add_argument("--cert", metavar="FILE", type=Path, help="the certificate: PEM or DER")
    source.add_argument("--endpoint", metavar="HOST:PORT", help="the egress that shows it")
    verify.add_argument("--verify", metavar="JSON", required=True, help="a `verify` section")
    verify.add_argument("--json", action="store_true", help="print the verdict as JSON")
    verify.set_defaults(run=_verify)


def _add_cert_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cert-out", metavar="PEM", type=Path, help="write the certificate here, not to stdout"
    )


def _gen(arguments: argparse.Namespace) -> int:
    """Make a certificate."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    from tng.cli.output_files import write_private

    made = _credential(arguments.attest)
    key = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if arguments.key_out is not None:
        write_private(arguments.key_out, key)  # first: a certificate without its key is of no use
    _give(made.certificate.public_bytes(Encoding.PEM), arguments.cert_out)
    if arguments.key_out is None:
        _give(key, None)
    return 0


def _dump(arguments: argparse.Namespace) -> int:
    """Fetch a certificate."""
    from tng.cli.output_files import make_folder, write
    from tng.cli.tools_parts import certificate_parts

    der = _fetch(arguments.endpoint, arguments.attest)
    pem = _pem(der)
    if arguments.out_dir is not None:
        make_folder(arguments.out_dir)
        for name, data in {"cert.pem": pem, **certificate_parts(der)}.items():
            write(arguments.out_dir / name, data)
    if arguments.cert_out is not None or arguments.out_dir is None:
        _give(pem, arguments.cert_out)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    """Judge a certificate; the reference's two lines on standard output if it is accepted."""
    import trio

    from tng.cli.collateral import judge_with_surroundings
    from tng.cli.sections import verify_section
    from tng.clock import SystemClock

    verifier = judge_with_surroundings((verify_section(arguments.verify),), SystemClock())
    if arguments.cert is not None:
        der, label = read_certificate(arguments.cert), str(arguments.cert)
    else:
        der, label = _fetch(arguments.endpoint, None), arguments.endpoint

    async def judge() -> AttestedPeer:
        try:
            return await verifier.judge(der, label)
        finally:
            with trio.CancelScope(shield=True):
                await verifier.aclose()

    try:
        attested = trio.run(judge)
    except UntrustedPeerError as error:
        if error.verdict is not None:
            show_verdict(error.verdict, as_json_text=arguments.json)
        raise
    show_verdict(attested.verdict, as_json_text=arguments.json)
    if not arguments.json:
        print("verified OK")
        print(json.dumps(attested.token))
    return 0


def show_verdict(verdict: Verdict, *, as_json_text: bool) -> None:
    """Every check: as JSON on standard output, else as lines on standard error."""
    from tng.attest.verifier.explain import as_json, lines

    if as_json_text:
        print(json.dumps(as_json(verdict), indent=2))
        return
    for line in lines(verdict):
        print(line, file=sys.stderr)


def _credential(section: str) -> Credential:
    import trio

    from tng.cli.sections import attest_section
    from tng.clock import SystemClock
    from tng.gateway.entries import make_source

    return trio.run(make_source(attest_section(section), SystemClock()).make)


def _fetch(endpoint: str, attest: str | None) -> bytes:
    """The certificate (DER) that a live egress shows."""
    from tng.cli.peer_certificate import fetch_certificate

    return fetch_certificate(_endpoint(endpoint), None if attest is None else _credential(attest))


def _endpoint(text: str) -> Endpoint:
    from tng.endpoint import parse_authority

    try:
        return parse_authority(text)
    except ValueError as exc:
        raise ConfigError([f"--endpoint: {exc}"]) from exc


def read_certificate(path: Path) -> bytes:
    """DER of the certificate in a file; of what is no PEM the octets as they are.

    Raises:
        ConfigError: PEM of something else.
        StartError: the file cannot be read.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from tng.cli.tools_evidence import read_file

    data = read_file(path)
    if not data.lstrip().startswith(_PEM):
        return data  # its judge reads it
    try:
        return x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)
    except ValueError as exc:
        raise ConfigError([f"--cert: {str(path)!r} holds no certificate: {exc}"]) from exc


def _pem(der: bytes) -> bytes:
    """PEM of a certificate, whatever is in it."""
    import ssl

    return ssl.DER_cert_to_PEM_cert(der).encode()


def _give(text: bytes, path: Path | None) -> None:
    from tng.cli.output_files import write

    if path is not None:
        write(path, text)
        return
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
