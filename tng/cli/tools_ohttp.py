"""`tng tools ohttp`: keys of OHTTP egresses, fetched, taken apart, judged.

    tng tools ohttp dump --endpoint URL [--verify JSON] [--raw FILE | --out-dir DIR]
    tng tools ohttp verify --raw FILE --verify JSON
    tng tools ohttp decode --raw FILE --out-dir DIR [--attestation-result FILE]

Source: the tool of TNG 2.12, its file names and what it prints; `--json` is an extension.  Results
go to standard output, checks to standard error.  A file that was written once answers the challenge
of then: `verify` shows that the evidence is about the key and accepted now, not that it is fresh.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tng.errors import (
    ConfigError,
    ErrorCode,
    NetError,
    RemoteProtocolError,
    UntrustedPeerError,
)

if TYPE_CHECKING:
    from tng.attest.verifier.base import StatementVerifier
    from tng.cli.tools_parts import Parts
    from tng.tunnel.ohttp.control_messages import KeyConfigAnswer
    from tng.verdict import AttestedPeer

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

TIMEOUT_S: Final = 20.0
"""Seconds for each step of the call, and for its answer; an egress may have to ask its TEE."""

_EXCERPT: Final = 300  # characters of an error answer that are repeated


def add_parser(commands: Subparsers) -> None:
    """Add the tool to the command line."""
    parser = commands.add_parser(
        "ohttp",
        help="fetch and judge keys of OHTTP egresses",
        description="Keys of OHTTP egresses, and what vouches for them: fetch, judge, take apart.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", required=True)
    _add_dump(actions)
    _add_verify(actions)
    _add_decode(actions)


def _add_dump(actions: Subparsers) -> None:
    dump = actions.add_parser(
        "dump",
        help="fetch the key configuration of a live egress",
        description="Ask an egress for its keys; with --verify also for evidence, and judge it.",
    )
    dump.add_argument(
        "--endpoint", metavar="URL", required=True, help="http or https, of the egress"
    )
    dump.add_argument("--verify", metavar="JSON", help="a `verify` section (default: no evidence)")
    place = dump.add_mutually_exclusive_group()
    place.add_argument(
        "--raw", metavar="FILE", type=Path, help="write the answer here, not to stdout"
    )
    place.add_argument(
        "--out-dir",
        metavar="DIR",
        type=Path,
        help="write raw.json, hpke.base64 and hpke.json here; with --verify also quote.bin,"
        " eventlog.json, attestation_result.jwt and attestation_result.claims.json",
    )
    dump.set_defaults(run=_dump)


def _add_verify(actions: Subparsers) -> None:
    verify = actions.add_parser(
        "verify",
        help="judge a key configuration that was fetched earlier",
        description="Judge the evidence, or the token, in a raw.json."
        " Exit status 0 if it is accepted, 1 if not.",
    )
    verify.add_argument(
        "--raw", metavar="FILE", type=Path, required=True, help="as `dump` wrote it"
    )
    verify.add_argument("--verify", metavar="JSON", required=True, help="a `verify` section")
    verify.add_argument("--json", action="store_true", help="print the verdict as JSON")
    verify.set_defaults(run=_verify)


def _add_decode(actions: Subparsers) -> None:
    decode = actions.add_parser(
        "decode",
        help="take a key configuration apart that was fetched earlier",
        description="Take a raw.json apart; nobody is asked, nothing is judged.",
    )
    decode.add_argument(
        "--raw", metavar="FILE", type=Path, required=True, help="as `dump` wrote it"
    )
    decode.add_argument(
        "--attestation-result",
        metavar="FILE",
        type=Path,
        help="token (JWT) whose claims and event log are written, too",
    )
    decode.add_argument(
        "--out-dir", metavar="DIR", type=Path, required=True, help="where to; made if missing"
    )
    decode.set_defaults(run=_decode)


def _dump(arguments: argparse.Namespace) -> int:
    """Fetch a key configuration."""
    from tng.cli.output_files import pretty, write
    from tng.cli.tools_parts import TOKEN_FILE, token_parts

    verifier = None if arguments.verify is None else _verifier(arguments.verify)
    body, challenge = _ask(arguments.endpoint, arguments.verify)
    answer, text = _read(body, arguments.endpoint), pretty(json.loads(body))
    if arguments.raw is not None:
        write(arguments.raw, text)
    elif arguments.out_dir is None:
        print(text)
    else:
        _write_parts(arguments.out_dir, {"raw.json": text, **_parts(answer)})
    if verifier is None:
        return 0
    # What was refused is on the disk by now: somebody will want to look at it.
    attested = _judge(verifier, answer, challenge, arguments.endpoint, as_json_text=False)
    if arguments.out_dir is not None:
        found: Parts = {TOKEN_FILE: attested.token, **token_parts(attested.token)}
        _write_parts(arguments.out_dir, found)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    """Judge a key configuration from a file; the reference's lines if it is accepted."""
    from tng.attest.evidence import Token
    from tng.attest.user_data import read_user_data
    from tng.cli.output_files import pretty
    from tng.cli.tools_evidence import read_file
    from tng.cli.tools_parts import read_claims

    verifier = _verifier(arguments.verify)
    answer = _read(read_file(arguments.raw), str(arguments.raw))
    shown, challenge = answer.statement, None
    if shown is not None and not isinstance(shown, Token):
        # The challenge is known from the evidence alone, see the module.
        challenge = read_user_data(shown).challenge_token
    attested = _judge(verifier, answer, challenge, str(arguments.raw), as_json_text=arguments.json)
    if not arguments.json:
        print("verified OK")
        print(f"attestation_result: {attested.token}")
        print(f"claims:\n{pretty(read_claims(attested.token))}")
    return 0


def _decode(arguments: argparse.Namespace) -> int:
    """Take a key configuration apart."""
    from tng.cli.output_files import pretty
    from tng.cli.tools_evidence import read_file
    from tng.cli.tools_parts import read_claims, token_parts

    body = read_file(arguments.raw)
    parts: Parts = {**_parts(_read(body, str(arguments.raw)))}
    parts["raw.json"] = pretty(json.loads(body))
    if arguments.attestation_result is not None:
        try:
            token = read_file(arguments.attestation_result).decode("ascii").strip()
            read_claims(token)
        except ValueError as exc:
            raise ConfigError([f"--attestation-result: expected a token: {exc}"]) from exc
        parts |= token_parts(token)
    _write_parts(arguments.out_dir, parts)
    return 0


def _verifier(section: str) -> StatementVerifier:
    from tng.cli.collateral import judge_with_surroundings
    from tng.cli.sections import verify_section
    from tng.clock import SystemClock

    return judge_with_surroundings((verify_section(section),), SystemClock())


def _read(body: bytes, where: str) -> KeyConfigAnswer:
    from tng.tunnel.ohttp.control_messages import parse_key_config_answer

    try:
        return parse_key_config_answer(body)
    except RemoteProtocolError as exc:
        raise RemoteProtocolError(f"{where}: {exc}", code=exc.code) from exc


def _parts(answer: KeyConfigAnswer) -> Parts:
    from tng.cli.tools_parts import key_parts, quote_part

    return {**key_parts(answer.key), **quote_part(answer.statement)}


def _write_parts(folder: Path, parts: Parts) -> None:
    from tng.cli.output_files import make_folder, write

    make_folder(folder)
    for name, data in parts.items():
        write(folder / name, data)


def _ask(url: str, section: str | None) -> tuple[bytes, str | None]:
    """The egress's answer, and the challenge that its evidence has to answer."""
    import trio

    from tng.tunnel.ohttp.control_messages import dump_wanted

    if section is None:
        return _post(url, dump_wanted(None, None)), None
    # A verifier of its own: connections belong to the loop that made them.
    verifier = _verifier(section)
    model = verifier.models[0]
    challenge = None
    if model == "background_check":
        challenge = trio.run(_challenge, verifier)
    return _post(url, dump_wanted(model, challenge)), challenge


async def _challenge(verifier: StatementVerifier) -> str:
    import trio

    try:
        return await verifier.challenge()
    finally:
        with trio.CancelScope(shield=True):
            await verifier.aclose()


def _post(url: str, body: bytes) -> bytes:
    """The body of the answer to a key-config request."""
    import httpx

    from tng.tunnel.ohttp.control_messages import MAX_BODY, Api
    from tng.tunnel.ohttp.outer import API_FIELD, USER_AGENT

    if not url.startswith(("http://", "https://")):
        raise ConfigError([f"--endpoint: expected an http or https URL, got {url!r:.200}"])
    headers = {
        API_FIELD.decode(): Api.KEY_CONFIG,
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": USER_AGENT.decode(),
    }
    answer, ends = bytearray(), time.monotonic() + TIMEOUT_S
    try:
        with (
            httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client,
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            for chunk in response.iter_raw():
                answer += chunk
                if len(answer) > MAX_BODY or time.monotonic() > ends:
                    raise RemoteProtocolError(
                        f"{url} answered more than {MAX_BODY} octets, or for more than"
                        f" {TIMEOUT_S:g} s"
                    )
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise NetError(f"{url}: {str(exc) or type(exc).__name__}") from exc
    if response.status_code != 200:
        words = bytes(answer[:_EXCERPT]).decode("utf-8", "replace")
        raise RemoteProtocolError(
            f"{url} answered {response.status_code}: {words!r}; does an egress with `ohttp` listen"
            " there?"
        )
    return bytes(answer)


def _judge(
    verifier: StatementVerifier,
    answer: KeyConfigAnswer,
    challenge: str | None,
    label: str,
    *,
    as_json_text: bool,
) -> AttestedPeer:
    """The peer as one that passed every check; the checks are printed in any case."""
    import trio

    from tng.attest.statement import Statement
    from tng.attest.user_data import with_challenge
    from tng.cli.tools_rats_tls import show_verdict

    if answer.statement is None:
        raise UntrustedPeerError(
            f"{label} shows its key without evidence; expected a peer with `attest`",
            code=ErrorCode.EVIDENCE_MISSING,
        )
    about = answer.key if challenge is None else with_challenge(answer.key, challenge)
    statement = Statement(answer.statement, about)

    async def judge() -> AttestedPeer:
        try:
            return await verifier.judge_statement(statement, label)
        finally:
            with trio.CancelScope(shield=True):
                await verifier.aclose()

    try:
        attested = trio.run(judge)
    except UntrustedPeerError as error:
        if error.verdict is not None:
            show_verdict(error.verdict, as_json_text=as_json_text)
        raise
    show_verdict(attested.verdict, as_json_text=as_json_text)
    return attested
