"""The egress's control API, and what it refuses before anything is decrypted or delivered."""

from __future__ import annotations

import base64
import json

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from stage.conversation import calling, eventually, service
from stage.encapsulation import Encapsulated, answering, ask_key, control, hear, post, tunnel
from stage.gateways import ohttp_egress
from stage.identities import Vouching
from stage.judges import Absent, Judge, Refusing
from tng.tunnel.ohttp import server
from tng.tunnel.ohttp.control_messages import Api
from tng.tunnel.ohttp.problems import OhttpError, Problem
from tng.tunnel.ohttp.server import api_of
from tng.wire.ohttp_keys import ADVERTISED_SUITES, KeyConfig
from tng.wire.ohttp_metadata import MAX_METADATA, Metadata, frame_metadata

VERIFY = {"as_addr": "http://127.0.0.1:9/as", "policy_ids": ["default"]}
TUNNEL = "/tng/tunnel"
REQUEST = "message/ohttp-chunked-req"


ok = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def refused(port: int, octets: bytes, *, is_all: bool = True) -> tuple[int, str]:
    """Status and `code` of the answer to these octets, on a connection of their own."""
    async with calling(port) as line:
        await line.say(octets)
        if is_all:
            await line.stream.send_eof()
        status, fields, body = await hear(line)
        answer = json.loads(body)
        assert (b"content-type", b"application/json") in fields
        assert (b"x-tng-error", answer["error"]["code"].encode()) in fields
        assert answer["message"]
        return status, answer["code"]


@pytest.mark.parametrize(
    ("octets", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 403, "RejectNonTngRequest"),
        (b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n", 403, "RejectNonTngRequest"),
        (post("/tng/TUNNEL"), 400, "InvalidOhttpApiHeaderValue"),
        (post("/tng/t\xfcnnel"), 400, "InvalidOhttpApiHeaderValue"),
        (control(Api.KEY_CONFIG, {"attestation_request": 1}), 400, "InvalidRequestPayload"),
        (control(Api.KEY_CONFIG, ["x"]), 400, "InvalidRequestPayload"),
        (
            control(Api.KEY_CONFIG, {"attestation_request": {"model": "x"}}),
            400,
            "InvalidRequestPayload",
        ),
        (
            post(Api.KEY_CONFIG, "text/plain", "Content-Length: 2") + b"{}",
            400,
            "InvalidRequestPayload",
        ),
        (post(Api.KEY_CONFIG, framing="Content-Length: 1") + b"{", 400, "InvalidRequestPayload"),
        (control(Api.CHALLENGE, {}), 500, "ServerVerifyClientGetChallengeTokenFailed"),
        (control(Api.VERIFY, {}), 500, "ServerVerifyClientEvidenceFailed"),
        (post(TUNNEL, framing="Content-Length: 0"), 400, "InvalidOHttpRequest"),
        (post(TUNNEL, REQUEST + "; x=1", "Content-Length: 0"), 400, "InvalidOHttpRequest"),
        (tunnel(b""), 400, "MetadataReadError"),
        (tunnel(b"\0\0\0"), 400, "MetadataReadError"),
        (tunnel(b"\0\0\0\x26\x0a\0"), 400, "MetadataReadError"),
        (tunnel((MAX_METADATA + 1).to_bytes(4, "big")), 413, "MetadataTooLong"),
        (tunnel(b"\xff\xff\xff\xff" + b"x" * 100), 413, "MetadataTooLong"),
        (tunnel(b"\0\0\0\x02\xff\xff"), 400, "MetadataDecodeError"),
        (tunnel(b"\0\0\0\x02\x0a\0" + bytes(39)), 400, "ServerKeyConfigHintNotSpecified"),
    ],
)
async def test_what_is_no_good_is_answered_as_the_table_says(
    octets: bytes, status: int, code: str
) -> None:
    async with service(ok) as web, ohttp_egress(web.port) as (_, port):
        assert await refused(port, octets) == (status, code)
        assert web.connections == 0


async def test_a_length_that_is_too_large_is_answered_before_any_more_comes() -> None:
    async with ohttp_egress(1) as (_, port):
        head = post(TUNNEL, REQUEST) + b"4\r\n\x01\0\0\0\r\n"
        assert await refused(port, head, is_all=False) == (413, "MetadataTooLong")


async def test_metadata_that_does_not_come_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(server, "ARRIVAL_TIMEOUT_S", 0.05)
    async with ohttp_egress(1) as (_, port):
        head = post(TUNNEL, REQUEST) + b"2\r\n\0\0\r\n"
        assert await refused(port, head, is_all=False) == (400, "MetadataReadError")
        head = post(Api.KEY_CONFIG) + b"2\r\n{ \r\n"
        assert await refused(port, head, is_all=False) == (400, "InvalidRequestPayload")


async def test_a_body_of_the_control_api_has_a_limit(monkeypatch) -> None:
    monkeypatch.setattr(server, "MAX_BODY", 100)
    async with ohttp_egress(1) as (_, port):
        octets = control(Api.KEY_CONFIG, {"x": "y" * 100})
        assert await refused(port, octets) == (400, "InvalidRequestPayload")
        assert await refused(port, post(TUNNEL)) == (400, "InvalidOHttpRequest")


def spoiled(config: KeyConfig, at: int, by: int = 1) -> bytes:
    """A request in which one octet after the metadata is another."""
    request = Encapsulated(config)
    body = bytearray(request.whole())
    body[len(request.metadata) + at] ^= by
    return tunnel(bytes(body))


async def test_a_request_for_another_key_or_suite_or_forged_is_refused() -> None:
    async with service(ok) as web, ohttp_egress(web.port) as (_, port):
        async with calling(port) as line:
            config = await ask_key(line)
        other = KeyConfig(
            0, X25519PrivateKey.generate().public_key().public_bytes_raw(), ADVERTISED_SUITES
        )
        unknown = tunnel(Encapsulated(other).whole())
        assert await refused(port, unknown) == (422, "ServerKeyConfigNotFound")
        for at in (0, 1, 3, 5, 10, 45):
            assert await refused(port, spoiled(config, at)) == (500, "BhttpError")
        assert await refused(port, spoiled(config, 6, 3)) == (500, "BhttpError")  # AES-256
        cut = Encapsulated(config)
        assert await refused(port, tunnel(cut.metadata + b"\0\0")) == (500, "OhttpError")
        assert await refused(port, tunnel(cut.begin)) == (500, "BhttpError")
        short = Encapsulated(config)
        head = short.begin + short.head()[:20]
        assert await refused(port, tunnel(head)) == (500, "BhttpError")
        answer = Encapsulated(config)
        kind = answer.begin + answer.sealer.seal(b"\x03\x40\xc8\0\0\0") + answer.sealer.finish()
        assert await refused(port, tunnel(kind)) == (400, "InvalidHttpRequest")
        assert web.connections == 0


async def test_every_split_of_a_request_is_the_same_request() -> None:
    """The reference wants its header in one read; ours takes any pieces."""
    async with service(ok) as web, ohttp_egress(web.port) as (_, port), calling(port) as line:
        config = await ask_key(line)
        for size in (1, 2, 3, 7):
            request = Encapsulated(config)
            body = request.whole()
            out = post(TUNNEL, REQUEST)
            for at in range(0, len(body), size):
                piece = body[at : at + size]
                out += b"%x\r\n%s\r\n" % (len(piece), piece)
            await line.say(out + b"0\r\n\r\n")
            status, _, answer = await hear(line)
            assert status == 200
            assert request.opened(answer)[2] == b"ok"


async def test_a_request_is_served_once_and_its_copy_is_refused() -> None:
    async with service(ok) as web, ohttp_egress(web.port) as (_, port), calling(port) as line:
        config = await ask_key(line)
        body = Encapsulated(config).whole(b"POST", content=b"pay")
        await line.say(tunnel(body))
        assert (await hear(line))[0] == 200
        assert await refused(port, tunnel(body)) == (409, "ReplayedRequest")
        again = Encapsulated(config).whole(b"POST", content=b"pay")
        await line.say(tunnel(again))
        assert (await hear(line))[0] == 200


async def test_the_key_is_told_however_it_is_asked_for() -> None:
    get = b"GET / HTTP/1.1\r\nHost: x\r\nX-Tng-Ohttp-Api: /tng/key-config\r\n\r\n"
    plain = post(Api.KEY_CONFIG, "x", "Content-Length: 0")
    more = control(Api.KEY_CONFIG, {"attestation_request": None, "unknown": 1})
    model = control(Api.KEY_CONFIG, {"attestation_request": {"model": "passport"}})
    async with ohttp_egress(1) as (_, port), calling(port) as line:
        for octets in (get, plain, more, model):
            await line.say(octets)
            status, fields, body = await hear(line)
            assert status == 200
            assert json.loads(body)["attestation_info"] is None
            assert dict(fields)[b"server"].startswith(b"tng-gateway/")


@pytest.mark.parametrize(
    ("proposals", "answer"),
    [
        ([], {"Ok": None}),
        ([{"model": "passport", "provider": "ita"}], {"Err": "no_compatible_proposal"}),
        ([{"model": "passport", "provider": "coco"}], {"Err": "not_configured"}),
    ],
)
async def test_the_other_dialect_gets_its_answer(proposals: object, answer: object) -> None:
    async with ohttp_egress(1) as (_, port), calling(port) as line:
        await line.say(control(Api.KEY_CONFIG, {"attest_request": {"proposals": proposals}}))
        assert json.loads((await hear(line))[2])["attest_response"] == answer


async def test_who_does_not_verify_takes_nobody_who_claims_to_be_somebody() -> None:
    async with service(ok) as web, ohttp_egress(web.port) as (_, port):
        async with calling(port) as line:
            config = await ask_key(line)
        sender = (X25519PrivateKey.generate(), "a.b.c")
        octets = tunnel(Encapsulated(config, sender).whole())
        assert await refused(port, octets) == (500, "MetadataValidateError")
        assert web.connections == 0


@pytest.mark.parametrize(
    ("judge", "code"),
    [(Refusing, "policy_denied"), (Absent, "as_unreachable")],
)
async def test_a_client_is_judged_before_its_request_is_opened(judge, code: str) -> None:
    stand_in = judge()
    async with (
        service(ok) as web,
        ohttp_egress(web.port, stand_in, verify=VERIFY) as (_, port),
        calling(port) as line,
    ):
        config = await ask_key(line)
        octets = tunnel(Encapsulated(config).whole())
        assert await refused(port, octets) == (500, "MetadataValidateError")
        assert stand_in.asked == 0
        sender = (X25519PrivateKey.generate(), "a.b.c")
        await line.say(tunnel(Encapsulated(config, sender).whole()))
        status, fields, _ = await hear(line)
        assert (status, dict(fields)[b"x-tng-error"]) == (500, code.encode())
        assert stand_in.asked == 1
        assert web.connections == 0


async def test_a_judged_client_is_served_and_its_key_has_to_be_the_sealing_one() -> None:
    async with (
        service(ok) as web,
        ohttp_egress(web.port, Judge(), verify=VERIFY) as (_, port),
        calling(port) as line,
    ):
        config = await ask_key(line)
        private = X25519PrivateKey.generate()
        request = Encapsulated(config, (private, "a.b.c"))
        await line.say(tunnel(request.whole()))
        status, _, body = await hear(line)
        assert (status, request.opened(body)[2]) == (200, b"ok")
        claimed = Encapsulated(config, (private, "a.b.c"))
        honest = Encapsulated(config)
        body = claimed.metadata + honest.whole()[len(honest.metadata) :]
        assert await refused(port, tunnel(body)) == (500, "BhttpError")
        assert web.connections == 1


async def test_a_token_of_an_unknown_provider_is_refused() -> None:
    async with ohttp_egress(1, Judge(), verify=VERIFY) as (_, port):
        async with calling(port) as line:
            config = await ask_key(line)
        sender = (X25519PrivateKey.generate(), "a.b.c")
        request = Encapsulated(config, sender)
        client = b"\x0a\x05a.b.c\x12\x20" + sender[0].public_key().public_bytes_raw() + b"\x1a\x01z"
        hint = b"\x1a\x22\x0a\x20" + config.public_key
        metadata = b"\x12" + bytes([len(client)]) + client + hint
        body = (
            len(metadata).to_bytes(4, "big") + metadata + request.whole()[len(request.metadata) :]
        )
        assert await refused(port, tunnel(body)) == (500, "MetadataValidateError")


async def test_challenge_and_verify_are_for_background_checks() -> None:
    async with ohttp_egress(1, Judge(), verify=VERIFY) as (_, port):
        async with calling(port) as line:
            await line.say(control(Api.CHALLENGE, {}))
            status, _, body = await hear(line)
            assert (status, json.loads(body)) == (200, {"challenge_token": "challenge"})
        assert await refused(port, control(Api.VERIFY, {})) == (400, "InvalidRequestPayload")
    async with ohttp_egress(1, _OnlyTokens(), verify=VERIFY) as (_, port):
        assert (await refused(port, control(Api.CHALLENGE, {})))[0] == 500
    async with ohttp_egress(1, _NoChallenge(), verify=VERIFY) as (_, port):
        assert (await refused(port, control(Api.CHALLENGE, {})))[0] == 500


def evidence_about(**claims: object) -> dict[str, object]:
    """The body of a call to have evidence judged."""
    evidence = {
        "aa_tee_type": "sample",
        "aa_evidence": "e30=",
        "aa_runtime_data": json.dumps(claims),
        "aa_runtime_data_hash_algo": "sha384",
    }
    return {"evidence": evidence, "aa_provider": "coco"}


CLIENT = {"pk_s": base64.b64encode(bytes(32)).decode(), "challenge_token": "challenge"}


async def test_evidence_of_a_client_is_judged_for_it() -> None:
    judge = Judge()
    async with ohttp_egress(1, judge, verify=VERIFY) as (_, port), calling(port) as line:
        await line.say(control(Api.VERIFY, evidence_about(**CLIENT)))
        status, _, body = await hear(line)
        assert status == 200
        assert json.loads(body) == {"attestation_result": "token", "as_provider": "coco"}
        key = {"encoded_key_config_list": "AAAA", "expire_timestamp": 1}
        for claims in ({}, {"pk_s": "AA=="}, {"hpke_key_config": key}):
            octets = control(Api.VERIFY, evidence_about(**claims))
            assert await refused(port, octets) == (400, "InvalidRequestPayload")
    assert judge.asked == 1


async def test_evidence_that_is_refused_gives_no_token() -> None:
    async with ohttp_egress(1, Refusing(), verify=VERIFY) as (_, port):
        octets = control(Api.VERIFY, evidence_about(**CLIENT))
        assert await refused(port, octets) == (500, "ServerVerifyClientEvidenceFailed")


async def test_a_key_is_shown_with_evidence_for_each_challenge_and_a_token_for_a_while() -> None:
    attest = {"aa_type": "simulated", "simulated_platform": "unused"}
    source = Vouching()
    wanted = {"model": "background_check", "challenge_token": "n"}
    async with ohttp_egress(1, None, source, attest=attest) as (_, port), calling(port) as line:
        for number in (1, 2):
            await line.say(control(Api.KEY_CONFIG, {"attestation_request": wanted}))
            status, _, body = await hear(line)
            shown = json.loads(body)["attestation_info"]
            assert (status, shown["model"], source.made) == (200, "background_check", number)
            assert source.about[-1].challenge_token == "n"
        octets = control(Api.KEY_CONFIG, {"attestation_request": {"model": "passport"}})
        assert await refused(port, octets) == (500, "GenServerHpkeConfigurationResponseFailed")


class _OnlyTokens(Judge):
    @property
    def models(self) -> tuple[str, ...]:
        return ("passport",)


class _NoChallenge(Judge):
    async def challenge(self) -> str:
        raise OhttpError(Problem.CHALLENGE_FAILED, "nobody there")


@pytest.mark.parametrize("values", [[], [b"/tng/tunnel", b"/tng/tunnel"], [b"/tng/x"], [b"\xff"]])
def test_only_one_known_value_of_the_field_counts(values: list[bytes]) -> None:
    with pytest.raises(OhttpError):
        api_of([(b"x-tng-ohttp-api", value) for value in values])
    assert api_of([(b"x-tng-ohttp-api", b"/tng/tunnel"), (b"a", b"b")]) is Api.TUNNEL


@given(st.binary(max_size=120), st.booleans())
def test_garbage_after_good_metadata_is_refused_in_words(garbage: bytes, has_hint: bool) -> None:
    async def main() -> None:
        async with ohttp_egress(1) as (_, port):
            key = b""
            if has_hint:
                async with calling(port) as line:
                    key = (await ask_key(line)).public_key
            metadata = Metadata(key or bytes(32), None, is_anonymous=True)
            status, _ = await refused(port, tunnel(frame_metadata(metadata) + garbage))
            assert status in (400, 422, 500)

    trio.run(main)


test_garbage_after_good_metadata_is_refused_in_words = pytest.mark.slow(
    test_garbage_after_good_metadata_is_refused_in_words
)


async def test_a_client_that_leaves_in_its_metadata_leaves_nothing_behind() -> None:
    async with ohttp_egress(1) as (gateway, port):
        async with calling(port) as line:
            await line.say(post(TUNNEL, REQUEST) + b"2\r\n\0\0\r\n")
        await eventually(lambda: gateway.entries[0].meter.cx_active == 0)
