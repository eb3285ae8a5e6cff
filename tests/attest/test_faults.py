"""Whatever breaks around judging: a defined error in time, nobody accepted, and no harm done after.

The services are real ones on loopback (`stage.faulty_service`), asked by the verifier as it is used
in production.  After each fault the service answers as it should, and the same verifier must then
accept the same peer: a fault is not remembered against anybody.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator

import cbor2
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from stage.certificates import self_signed, write_pem
from stage.conversation import service
from stage.faulty_service import FAULTS, SLOW_FAULTS, Cured, answer, read_request, says
from tng.attest.appraiser.trustee_rest import TrusteeRestAppraiser
from tng.attest.binding import pubkey_claims, runtime_data_for
from tng.attest.certificate import make_certificate
from tng.attest.evidence import CocoToken, dump_evidence
from tng.attest.tdx.certificates import pck_certificate
from tng.attest.tdx.collateral import Collateral
from tng.attest.tdx.collateral_cache import CollateralFolder, Kept
from tng.attest.tdx.collateral_settings import CollateralSettings
from tng.attest.tdx.pccs import PccsCollateral
from tng.attest.tdx.quote import parse_quote
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.attest.verifier.anchors import FAILURE_MEMORY_S, FetchedAnchors, PinnedAnchors
from tng.attest.verifier.trustee import TrusteeRules, TrusteeVerifier
from tng.clock import FixedClock
from tng.errors import AppraiserError, AttestationError, ErrorCode, UntrustedPeerError
from tng.wire.dice import CocoEvidence, DiceEvidence, dump_dice

KEY = ec.derive_private_key(8001, ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
LIMIT_S = 0.4
"""Seconds that one call to the service may take here; 10 in production."""

MARGIN_S = 5.0
"""Seconds on top: the machine may be busy, but a test that hangs must fail."""

NO_VERDICT = {ErrorCode.AS_UNREACHABLE, ErrorCode.AS_REJECTED, ErrorCode.AS_BAD_TOKEN}
DAY = 86_400

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""When an answer is not read to its end, httpx leaves iterators for the garbage collector."""


class Case:
    """A peer, and a service that can judge it.

    Args:
        signer: signs the service's tokens.
    """

    def __init__(self, signer) -> None:
        self.signer = signer
        self.clock = FixedClock(float(signer.now))

    def good(self, request_line: bytes) -> bytes:
        if request_line.startswith(b"GET /certificate"):
            return self.signer.chain_pem
        return self.token().encode()

    def token(self, **changes: object) -> str:
        return self.signer.sign({**self.signer.claims(pubkey_claims(SPKI)), **changes})

    def certificate(self, extension: bytes) -> bytes:
        return make_certificate(KEY, extension, self.signer.now).public_bytes(Encoding.DER)

    @property
    def evidence(self) -> bytes:
        return self.certificate(
            dump_evidence(CocoEvidence("tdx", b"{}", None, runtime_data_for(SPKI)))
        )

    @property
    def passport(self) -> bytes:
        return self.certificate(dump_evidence(CocoToken(self.token())))

    @contextlib.asynccontextmanager
    async def verifier(
        self, url: str, model: str = "background_check"
    ) -> AsyncIterator[TrusteeVerifier]:
        """Background checks under a pinned anchor, passports under one that the service gives."""
        client = TrusteeRestAppraiser(url, {}, user_agent="t", connect_s=LIMIT_S, total_s=LIMIT_S)
        is_pinned = model == "background_check"
        anchors = PinnedAnchors([self.signer.ca]) if is_pinned else FetchedAnchors(client)
        verifier = TrusteeVerifier(TrusteeRules(model, ("default",)), client, anchors, self.clock)
        try:
            yield verifier
        finally:
            await verifier.aclose()


@pytest.fixture
def case(signer) -> Case:
    return Case(signer)


async def refused(verifier: TrusteeVerifier, certificate: bytes) -> AttestationError:
    with trio.fail_after(2 * LIMIT_S + MARGIN_S):
        with pytest.raises((AppraiserError, UntrustedPeerError)) as caught:
            await verifier.judge(certificate, "peer")
    assert verifier.judged_nowait(certificate) is None
    assert not verifier.verdicts()["peer"].accepted
    assert len(str(caught.value)) < 2000
    return caught.value


# -- the attestation service -------------------------------------------------------------------


@pytest.mark.parametrize("model", ["background_check", "passport"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_service_that_fails_is_no_verdict_and_soon_over(
    case: Case, fault: str, model: str
) -> None:
    script = Cured(FAULTS[fault], case.good)
    async with (
        service(script) as seen,
        case.verifier(f"http://127.0.0.1:{seen.port}", model) as verifier,
    ):
        certificate = case.evidence if model == "background_check" else case.passport
        error = await refused(verifier, certificate)
        assert error.code in NO_VERDICT
        if model == "background_check":
            script.fault = None
            await _accepted(verifier, certificate)


@pytest.mark.slow
async def test_anchors_that_could_not_be_fetched_are_fetched_when_the_service_is_back(
    case: Case,
) -> None:
    script = Cured(FAULTS["reset"], case.good)
    async with (
        service(script) as seen,
        case.verifier(f"http://127.0.0.1:{seen.port}", "passport") as verifier,
    ):
        assert (await refused(verifier, case.passport)).code is ErrorCode.AS_UNREACHABLE
        script.fault = None
        await trio.sleep(FAILURE_MEMORY_S)
        await _accepted(verifier, case.passport)


@pytest.mark.slow
@pytest.mark.parametrize("fault", SLOW_FAULTS)
async def test_a_service_that_takes_its_time_is_given_up(case: Case, fault: str) -> None:
    script = Cured(SLOW_FAULTS[fault], case.good)
    async with (
        service(script) as seen,
        case.verifier(f"http://127.0.0.1:{seen.port}") as verifier,
    ):
        error = await refused(verifier, case.evidence)
        assert error.code is ErrorCode.AS_UNREACHABLE
        assert f"{LIMIT_S:g} s" in str(error)
        script.fault = None
        await _accepted(verifier, case.evidence)


async def _accepted(verifier: TrusteeVerifier, certificate: bytes) -> None:
    with trio.fail_after(MARGIN_S):
        assert (await verifier.judge(certificate, "peer")).verdict.accepted


async def test_an_answer_octet_by_octet_is_an_answer(case: Case) -> None:
    async def script(line) -> None:
        await read_request(line)
        for octet in answer(case.token().encode()):
            await line.say(bytes([octet]))

    async with (
        service(script) as seen,
        case.verifier(f"http://127.0.0.1:{seen.port}") as verifier,
    ):
        await _accepted(verifier, case.evidence)


async def test_what_an_answer_is_called_does_not_matter_who_signed_it_does(case, make_signer):
    html = "Content-Type: text/html"
    stranger = make_signer("stranger").sign(case.signer.claims(pubkey_claims(SPKI)))
    script = Cured(says(answer(stranger.encode(), "200 OK", html)), case.good)
    async with (
        service(script) as seen,
        case.verifier(f"http://127.0.0.1:{seen.port}") as verifier,
    ):
        assert (await refused(verifier, case.evidence)).code is ErrorCode.AS_BAD_TOKEN
        script.fault = says(answer(case.token().encode(), "200 OK", html))
        await _accepted(verifier, case.evidence)


@pytest.mark.parametrize("is_secure", [True, False], ids=["of nobody", "absent"])
async def test_a_service_without_good_tls_is_not_asked(case, tmp_path, is_secure) -> None:
    asked = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(write_pem(tmp_path, *self_signed("127.0.0.1")))

    async def script(line) -> None:
        if is_secure:
            stream = trio.SSLStream(line.stream, context, server_side=True)
            with contextlib.suppress(trio.BrokenResourceError):
                asked.append(await stream.receive_some())
        else:
            await line.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with (
        service(script) as seen,
        case.verifier(f"https://127.0.0.1:{seen.port}") as verifier,
    ):
        assert (await refused(verifier, case.evidence)).code is ErrorCode.AS_UNREACHABLE
    assert not any(asked)


# -- clocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-DAY, -3600, 7 * 3600, DAY])
async def test_a_clock_that_is_wrong_accepts_nobody(case: Case, skew: int) -> None:
    async with (
        service(Cured(None, case.good)) as seen,
        case.verifier(f"http://127.0.0.1:{seen.port}") as verifier,
    ):
        case.clock.at += skew
        error = await refused(verifier, case.evidence)
        assert error.code is ErrorCode.STALE
        assert seen.connections == 0
        case.clock.at -= skew
        await _accepted(verifier, case.evidence)


@pytest.mark.parametrize("dates", [{"exp": -61}, {"nbf": 61}])
async def test_a_service_with_a_wrong_clock_convinces_nobody(case: Case, dates) -> None:
    moved = {name: case.signer.now + offset for name, offset in dates.items()}
    script = Cured(says(answer(case.token(**moved).encode())), case.good)
    async with (
        service(script) as seen,
        case.verifier(f"http://127.0.0.1:{seen.port}") as verifier,
    ):
        assert (await refused(verifier, case.evidence)).code is ErrorCode.STALE


# -- evidence -----------------------------------------------------------------------------------

DEEP = {
    "lists": b"\x81" * 200_000,
    "tags": b"\xc1" * 200_000,
    "lists without length": b"\x9f" * 200_000,
    "maps": b"\xa1\x00" * 100_000,
    "a long promise": b"\x9b" + b"\x7f" * 8,
    "a long text": b"\x7b" + b"\x7f" * 8,
}


@pytest.mark.parametrize("shape", DEEP)
@pytest.mark.parametrize("is_inside", [True, False], ids=["inside", "outside"])
async def test_nested_evidence_is_refused_before_anybody_is_asked(
    case: Case, shape: str, is_inside: bool
) -> None:
    extension = dump_dice(DiceEvidence(0xC0C000, DEEP[shape])) if is_inside else DEEP[shape]
    async with (
        service(Cured(None, case.good)) as seen,
        case.verifier(f"http://127.0.0.1:{seen.port}") as verifier,
    ):
        error = await refused(verifier, case.certificate(extension))
        assert error.code is ErrorCode.EVIDENCE_MALFORMED
        assert seen.connections == 0


@pytest.mark.parametrize("text", ['{"a":' * 30_000, "[" * 30_000, "9" * 30_000, '{"a":1e999}'])
async def test_odd_runtime_data_is_refused_before_anybody_is_asked(case: Case, text: str) -> None:
    fields = {
        "tee_type": "tdx",
        "aa_evidence": b"{}",
        "aa_additional_evidence": None,
        "aa_runtime_data": text,
        "aa_runtime_data_hash_algo": 7,
    }
    extension = dump_dice(DiceEvidence(0xC0C000, cbor2.dumps(fields)))
    async with (
        service(Cured(None, case.good)) as seen,
        case.verifier(f"http://127.0.0.1:{seen.port}") as verifier,
    ):
        error = await refused(verifier, case.certificate(extension))
        assert error.code in {ErrorCode.EVIDENCE_MALFORMED, ErrorCode.BINDING_MISMATCH}
        assert seen.connections == 0


# -- collateral ----------------------------------------------------------------------------------

PCCS_FAULTS = sorted(FAULTS)


@pytest.fixture(scope="module")
def platform(signer) -> SimulatedPlatform:
    return SimulatedPlatform.build(now=signer.now)


def source_at(url: str, platform, now: float, **settings) -> PccsCollateral:
    settings = CollateralSettings((url,), **settings)
    return PccsCollateral(settings, FixedClock(now), root_ca_der=platform.root_der)


@pytest.mark.parametrize("fault", PCCS_FAULTS)
async def test_a_pccs_that_fails_gives_no_collateral(case: Case, platform, fault: str) -> None:
    quote = parse_quote(platform.quote(bytes(64)))
    async with service(FAULTS[fault]) as seen:
        source = source_at(f"http://127.0.0.1:{seen.port}", platform, case.clock.now())
        with trio.fail_after(MARGIN_S), pytest.raises(AppraiserError) as caught:
            await source.collateral_for(quote)
        await source.aclose()
    assert caught.value.code is ErrorCode.COLLATERAL_UNAVAILABLE
    assert caught.value.retryable


async def test_a_kept_file_that_was_altered_anywhere_is_never_used(
    case: Case, platform, tmp_path
) -> None:
    quote = parse_quote(platform.quote(bytes(64)))
    now = case.clock.now()
    folder = CollateralFolder(tmp_path)
    async with service(says(b"")) as seen:
        url = f"http://127.0.0.1:{seen.port}"

        async def found() -> Collateral | ErrorCode:
            try:
                source = source_at(url, platform, now, cache=tmp_path)
                return await source.collateral_for(quote)
            except AppraiserError as exc:
                return exc.code
            finally:
                await source.aclose()

        assert await found() is ErrorCode.COLLATERAL_UNAVAILABLE
        genuine = platform.collateral(int(now))
        pck = pck_certificate(quote)
        name = f"{pck.fmspc.hex()}-{pck.ca}"
        folder.save(name, Kept(genuine, now))
        file = folder.file_of(name)
        data = file.read_bytes()
        assert await found() == genuine
        outcomes = []
        for at in range(0, len(data), 1201):
            for spoiled in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
                file.write_bytes(spoiled)
                outcomes.append(await found())
        assert all(each in (genuine, ErrorCode.COLLATERAL_UNAVAILABLE) for each in outcomes)
        assert ErrorCode.COLLATERAL_UNAVAILABLE in outcomes
