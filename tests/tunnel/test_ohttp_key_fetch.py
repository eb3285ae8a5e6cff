"""How an ingress comes to trust a key: what it asks, and what it makes of the answers."""

from __future__ import annotations

import base64
import json

import pytest

from stage.conversation import Line, calling
from stage.encapsulation import ScriptedEgress, Taken, hear, response
from stage.gateways import ohttp_ingress
from stage.identities import Vouching
from stage.judges import Judge
from tng.tunnel.ohttp import key_fetch

GET = b"GET / HTTP/1.1\r\nHost: m\r\n\r\n"
VERIFY = {"as_addr": "http://127.0.0.1:9/as", "policy_ids": ["default"]}
ATTEST = {"aa_type": "simulated", "simulated_platform": "unused"}
EVIDENCE = {
    "aa_tee_type": "sample",
    "aa_evidence": "e30=",
    "aa_runtime_data": "{}",
    "aa_runtime_data_hash_algo": "sha384",
}
TOKEN_NOW = "e30." + base64.urlsafe_b64encode(b'{"exp":4102444800}').decode().rstrip("=") + ".x"


class Remembering(Judge):
    def __init__(self, *models: str) -> None:
        super().__init__()
        self._models = models or ("background_check",)
        self.seen = []

    @property
    def models(self) -> tuple[str, ...]:
        return self._models

    async def judge_statement(self, statement, peer):
        self.seen.append(statement)
        return await super().judge_statement(statement, peer)


async def ok(taken: Taken, line: Line) -> None:
    await line.say(response(taken.answer(200, [], b"ok")))


async def ask(egress: ScriptedEgress, judge=None, statements=None, **entry) -> tuple[int, dict]:
    async with (
        egress.serving() as web,
        ohttp_ingress(web.port, judge, statements, **entry) as (_, port),
        calling(port) as line,
    ):
        await line.say(GET)
        status, _, body = await hear(line)
        return status, json.loads(body) if status != 200 else {}


async def test_evidence_answers_our_challenge_and_names_the_key() -> None:
    egress, judge = ScriptedEgress(ok), Remembering()
    egress.info = {"model": "background_check", "evidence": EVIDENCE}
    assert (await ask(egress, judge, verify=VERIFY))[0] == 200
    wanted = {"model": "background_check", "challenge_token": "challenge"}
    assert json.loads(egress.bodies[0]) == {"attestation_request": wanted}
    (statement,) = judge.seen
    assert statement.about.challenge_token == "challenge"
    assert statement.about.key_config["expire_timestamp"] == egress.expires


async def test_a_passport_is_asked_for_without_a_challenge() -> None:
    egress, judge = ScriptedEgress(ok), Remembering("passport")
    egress.info = {"model": "passport", "attestation_result": "a.b.c"}
    assert (await ask(egress, judge, verify=VERIFY))[0] == 200
    assert json.loads(egress.bodies[0]) == {"attestation_request": {"model": "passport"}}
    assert judge.seen[0].about.challenge_token is None


async def test_a_client_that_attests_shows_a_token_with_each_request() -> None:
    seen: list[Taken] = []

    async def script(taken: Taken, line: Line) -> None:
        seen.append(taken)
        await ok(taken, line)

    egress, source = ScriptedEgress(script), Vouching()
    answers = {
        "/tng/background-check/challenge": {"challenge_token": "theirs"},
        "/tng/background-check/verify": {"attestation_result": TOKEN_NOW},
    }
    egress.control = lambda api: (
        (200, json.dumps(answers[api]).encode()) if api in answers else None
    )
    assert (await ask(egress, None, source, attest=ATTEST))[0] == 200
    assert source.about[0].challenge_token == "theirs"
    assert [api.rpartition("/")[2] for api in egress.asked] == [
        "challenge",
        "verify",
        "key-config",
        "tunnel",
    ]


async def test_a_client_with_a_passport_asks_the_egress_for_its_key_alone() -> None:
    egress, source = ScriptedEgress(ok), Vouching("passport")
    assert (await ask(egress, None, source, attest=ATTEST))[0] == 200
    assert egress.asked == ["/tng/key-config", "/tng/tunnel"]
    assert source.made == 1


async def test_with_an_interval_of_none_each_request_has_a_key_of_its_own() -> None:
    egress, source = ScriptedEgress(ok), Vouching("passport")
    entry = {"attest": {**ATTEST, "refresh_interval": 0}}
    async with (
        egress.serving() as web,
        ohttp_ingress(web.port, None, source, **entry) as (_, port),
        calling(port) as line,
    ):
        for _ in range(3):
            await line.say(GET)
            assert (await hear(line))[0] == 200
    assert source.made == 3


KEYS = {
    "not JSON": b"x",
    "not base64": b'{"hpke_key_config":{"encoded_key_config_list":"*","expire_timestamp":1}}',
    "no list": b'{"hpke_key_config":{"encoded_key_config_list":"AAA=","expire_timestamp":1}}',
}


@pytest.mark.parametrize("name", KEYS)
async def test_an_answer_without_a_key_is_no_egress(name: str) -> None:
    egress = ScriptedEgress(ok)
    egress.control = lambda _: (200, KEYS[name])
    status, answer = await ask(egress)
    assert (status, answer["code"]) == (500, "CreateOHttpClientFailed")
    assert answer["error"]["code"] in ("not_a_tng_peer", "evidence_malformed")


async def test_a_key_without_a_suite_of_ours_is_named_so() -> None:
    key = (
        bytes.fromhex("0000200000")[:0]
        + b"\x00\x00\x20"
        + bytes([9] * 32)
        + b"\x00\x04\x00\x01\x00\x02"
    )
    encoded = base64.b64encode(len(key).to_bytes(2, "big") + key).decode()
    egress = ScriptedEgress(ok)
    value = {"encoded_key_config_list": encoded, "expire_timestamp": 4102444800}
    egress.control = lambda _: (200, json.dumps({"hpke_key_config": value}).encode())
    status, answer = await ask(egress)
    assert (status, answer["code"]) == (500, "ClientSelectHpkeConfigurationFailed")


@pytest.mark.parametrize("expires", [-(10**30), 0, 10**400])
async def test_any_number_may_be_the_end_of_a_key(expires: int) -> None:
    egress = ScriptedEgress(ok, expires)
    assert (await ask(egress))[0] in (200, 500)


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n{"])
async def test_who_is_no_egress_is_told_apart(said: bytes) -> None:
    egress = ScriptedEgress(ok)
    egress.raw = lambda _: said
    status, answer = await ask(egress)
    assert (status, answer["code"]) == (500, "CreateOHttpClientFailed")
    assert "ohttp" in answer["message"] or "JSON" in answer["message"]


async def test_the_words_of_an_egress_that_refuses_are_passed_on() -> None:
    egress = ScriptedEgress(ok)
    egress.control = lambda _: (500, b'{"code":"GenServerHpke"}')
    status, answer = await ask(egress)
    assert (status, answer["code"]) == (500, "CreateOHttpClientFailed")
    assert "GenServerHpke" in answer["message"]


async def test_a_compressed_answer_that_nobody_asked_for_is_refused() -> None:
    egress = ScriptedEgress(ok)
    octets = response(b"x", 200, b"application/json\r\nContent-Encoding: gzip")
    egress.raw = lambda _: octets
    status, answer = await ask(egress)
    assert (status, "compressed" in answer["message"]) == (500, True)


async def test_an_egress_that_does_not_answer_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(key_fetch, "CALL_TIMEOUT_S", 0.05)

    class Silent(ScriptedEgress):
        async def _serve(self, line: Line) -> None:
            await line.is_cut()

    status, answer = await ask(Silent(ok))
    assert (status, answer["code"]) == (500, "CreateOHttpClientFailed")


async def test_nobody_there_is_an_error_with_a_hint() -> None:
    async with ohttp_ingress(1) as (_, port), calling(port) as line:
        await line.say(GET)
        status, fields, body = await hear(line)
        assert (status, json.loads(body)["code"]) == (500, "CreateOHttpClientFailed")
        assert (b"retry-after", b"1") in fields
