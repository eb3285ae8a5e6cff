"""Parsers of what trust rests on: certificates, evidence, quotes, logs, tokens, reports.

Where a mutated message is signed anew (extensions of certificates, headers and payloads of tokens),
the keys are made here, so that faults behind the signature are reached too.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime as dt
import functools
import json
import pathlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fuzzing.target import Target
from stage.gpus import NONCE, make_gpu
from tng.attest.appraiser.ear_issuer import EarIssuer
from tng.attest.appraiser.trustee_messages import (
    parse_certificates_answer,
    parse_challenge_answer,
    parse_refusal,
    parse_token_answer,
)
from tng.attest.binding import pubkey_claims, runtime_data_for
from tng.attest.certificate import make_certificate, parse_peer_certificate
from tng.attest.devices import judge_device
from tng.attest.evidence import CocoToken, dump_evidence, parse_evidence
from tng.attest.gpu.appraisal import judge_gpus
from tng.attest.key_usage import key_usage
from tng.attest.sample import judge_sample
from tng.attest.tdx.appraisal import judge_tdx
from tng.attest.tdx.collateral import Collateral
from tng.attest.tdx.dcap import appraise_quote, verify_quote
from tng.attest.tdx.eventlog import parse_event_log, replay
from tng.attest.tdx.measurements import named_measurements
from tng.attest.tdx.quote import parse_quote
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.attest.token import check_token
from tng.errors import TngError
from tng.trustee.dialects import parse_attestation_request
from tng.trustee.grpc_requests import body_of
from tng.wire.dice import CocoEvidence
from tng.wire.protobuf import dump_fields

NOW = 1_767_225_600
REPORT_DATA = b"report data of a test".ljust(64, b"\0")
PROFILE = "tag:github.com,2024:confidential-containers/Trustee"
KEY = ec.derive_private_key(7001, ec.SECP256R1())
EVIDENCE = CocoEvidence("tdx", b'{"quote":"AAAA"}', None, '{"pubkey-hash":"abc"}')


def targets(shared: pathlib.Path | None) -> list[Target]:
    """All of them.

    Args:
        shared: a folder with messages of third parties; None to go without.
    """
    return [
        *_certificates(shared),
        *_tokens(shared),
        *_quotes(shared),
        *_event_logs(shared),
        *_gpus(shared),
        *_messages(shared),
    ]


def _files(shared: pathlib.Path | None, pattern: str) -> list[bytes]:
    found = sorted((shared / "vectors").glob(pattern)) if shared is not None else []
    return [path.read_bytes() for path in found if path.is_file()]


# -- certificates and the evidence in them ---------------------------------------------------


def _certificates(shared: pathlib.Path | None) -> list[Target]:
    token = make_certificate(KEY, dump_evidence(CocoToken("a.b.c")), NOW)
    own = [
        make_certificate(KEY, dump_evidence(EVIDENCE), NOW).public_bytes(Encoding.DER),
        token.public_bytes(Encoding.DER),
    ]
    foreign = _files(shared, "ratls/*.der")
    extensions = [dump_evidence(EVIDENCE), dump_evidence(CocoToken("a.b.c"))]
    extensions += [value for der in foreign if (value := _extension(der))]
    signed = {_signed_part(der) for der in own + foreign}

    def read_certificate(der: bytes) -> None:
        peer = parse_peer_certificate(der, NOW)
        parse_evidence(peer.extension)
        assert _signed_part(der) in signed, "a certificate that nobody signed was accepted"

    def read_signed_part(data: bytes) -> None:
        parse_evidence(parse_peer_certificate(_signed(data), NOW).extension)

    def read_extension(value: bytes) -> None:
        der = make_certificate(KEY, value, NOW).public_bytes(Encoding.DER)
        parse_evidence(parse_peer_certificate(der, NOW).extension)

    return [
        Target("certificate", tuple(own + foreign), read_certificate),
        Target("signed part of a certificate", tuple(map(_signed_part, own)), read_signed_part),
        Target("evidence in a signed certificate", tuple(extensions), read_extension),
    ]


def _extension(der: bytes) -> bytes:
    try:
        return parse_peer_certificate(der, _begin(der)).extension
    except TngError:
        return b""


def _begin(der: bytes) -> float:
    return x509.load_der_x509_certificate(der).not_valid_before_utc.timestamp()


def _signed(part: bytes) -> bytes:
    """A certificate by KEY with any signed part."""
    signature = b"\0" + KEY.sign(part, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    body = part + algorithm + b"\x03" + bytes([len(signature)]) + signature
    return b"\x30\x82" + (len(body) % 65_536).to_bytes(2, "big") + body


def _signed_part(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).tbs_certificate_bytes


# -- tokens ------------------------------------------------------------------------------------


def _b64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _sign(header: bytes, payload: bytes) -> str:
    """A token over octets that may be neither header nor claims."""
    text = _b64url(header) + b"." + _b64url(payload)
    r, s = decode_dss_signature(KEY.sign(text, ec.ECDSA(hashes.SHA256())))
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return (text + b"." + _b64url(signature)).decode()


def _header() -> bytes:
    """Names the key; chains are tried in whole tokens, because this key has none."""
    numbers = KEY.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
    jwk["x"] = _b64url(numbers.x.to_bytes(32, "big")).decode()
    jwk["y"] = _b64url(numbers.y.to_bytes(32, "big")).decode()
    return json.dumps({"typ": "JWT", "alg": "ES256", "jwk": jwk}).encode()


def _ear_claims() -> bytes:
    cpu = {
        "ear.status": "affirming",
        "ear.trustworthiness-vector": {"hardware": 2, "configuration": 2},
        "ear.appraisal-policy-id": "default",
        "ear.veraison.annotated-evidence": {
            "report_data": "00",
            "runtime_data_claims": {"pubkey-hash": "abc"},
            "tdx": {"quote": {}},
        },
    }
    claims = {"eat_profile": PROFILE, "iat": NOW, "exp": NOW + 300, "submods": {"cpu0": cpu}}
    return json.dumps(claims).encode()


def _simple_claims() -> bytes:
    claims = {
        "exp": NOW + 300,
        "tee": "tdx",
        "tcb-status": '{"tdx.quote.body.mr_td":"00"}',
        "evaluation-reports": [{"policy-id": "default", "evaluation-result": '{"allow":true}'}],
        "customized_claims": {"runtime_data": {"pubkey-hash": "abc"}},
    }
    return json.dumps(claims).encode()


def _signer_chain() -> list[bytes]:
    """The certificate of KEY, an intermediate one, and the anchor."""
    middle, root = (ec.derive_private_key(number, ec.SECP256R1()) for number in (7002, 7003))
    begin = dt.datetime.fromtimestamp(NOW - 1000, dt.UTC)
    found = []
    for name, key, issuer, signer in (
        ("leaf", KEY, "middle", middle),
        ("middle", middle, "root", root),
        ("root", root, "root", root),
    ):
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(7)
            .not_valid_before(begin)
            .not_valid_after(begin + dt.timedelta(days=30))
            .add_extension(x509.BasicConstraints(name != "leaf", None), critical=True)
            .add_extension(key_usage("digital_signature", "key_cert_sign"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        )
        found.append(builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER))
    return found


def _tokens(shared: pathlib.Path | None) -> list[Target]:
    issuer = EarIssuer(NOW)
    check = functools.partial(
        check_token,
        expected_claims={"pubkey-hash": "abc"},
        policy_ids=["default"],
        now=NOW,
        allow_simulated=False,
    )
    whole = [_sign(_header(), claims()).encode() for claims in (_ear_claims, _simple_claims)]
    whole += [issuer.challenge(NOW).encode()]
    whole += [text.strip() for text in _files(shared, "attestation/tokens/*.jwt")]
    signed = {text.rpartition(b".")[0] for text in whole}

    def read_whole(data: bytes) -> None:
        text = data.decode("latin-1")
        for anchors in ([issuer.ca_certificate], None):
            try:
                check(text, anchors=anchors)
            except TngError:
                continue
            assert data.rpartition(b".")[0] in signed, "a token that nobody signed was accepted"

    chain = _signer_chain()
    anchor = x509.load_der_x509_certificate(chain[-1])

    def read_chain(data: bytes) -> None:
        spoiled = list(chain[:-1])
        spoiled[(data[:1] or b"\0")[0] % len(spoiled)] = data[1:]
        header = json.loads(_header())
        header["jwk"]["x5c"] = [base64.b64encode(der).decode() for der in spoiled]
        check(_sign(json.dumps(header).encode(), _ear_claims()), anchors=[anchor])

    return [
        Target("certificate of a token's signer", _numbered(chain[:-1]), read_chain),
        Target("token", tuple(whole), read_whole),
        Target(
            "signed claims",
            (_ear_claims(), _simple_claims()),
            lambda data: check(_sign(_header(), data), anchors=None),
        ),
        Target(
            "signed header",
            (_header(),),
            lambda data: check(_sign(data, _ear_claims()), anchors=None),
        ),
        Target(
            "challenge",
            (issuer.challenge(NOW).encode(),),
            lambda data: issuer.check_challenge(data.decode("latin-1"), NOW),
        ),
    ]


# -- TDX --------------------------------------------------------------------------------------


def _split(pem: bytes | str) -> list[bytes]:
    octets = pem if isinstance(pem, bytes) else pem.encode()
    chain = x509.load_pem_x509_certificates(octets.rstrip(b"\0"))
    return [certificate.public_bytes(Encoding.DER) for certificate in chain]


def _numbered(parts: Sequence[bytes]) -> tuple[bytes, ...]:
    """Messages whose first octet says which part the others stand for."""
    return tuple(bytes([number]) + part for number, part in enumerate(parts))


def _replaced(parts: Sequence[bytes], data: bytes) -> bytes:
    """PEM of certificates, one of them replaced by what `data` says."""
    spoiled = list(parts)
    spoiled[(data[:1] or b"\0")[0] % len(parts)] = data[1:]
    return b"".join(
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
        for der in spoiled
    )


def _quotes(shared: pathlib.Path | None) -> list[Target]:
    platform = SimulatedPlatform.build(now=NOW)
    collateral = platform.collateral(NOW)
    quotes = [platform.quote(REPORT_DATA, version=version) for version in (4, 5)]
    bodies = {parse_quote(quote).body for quote in quotes}
    root = platform.root_der
    recorded = [
        data
        for data in _files(shared, "attestation/quotes/*quote*.dat")
        + _files(shared, "attestation/quotes/*quote*.bin")
        if len(data) < 20_000
    ]

    def read_quote(data: bytes) -> None:
        appraisal = verify_quote(data, collateral, now=NOW, root_ca_der=root)
        assert appraisal.quote.body in bodies, "a quote that nobody signed was accepted"
        json.dumps(appraisal.claims)

    def read_evidence(data: bytes) -> None:
        judge_tdx(
            data,
            expected_report_data=REPORT_DATA,
            collateral=collateral,
            now=NOW,
            root_ca_der=root,
        )

    def read_collateral(data: bytes) -> None:
        appraise_quote(
            parse_quote(quotes[0]), Collateral.from_json(data), now=NOW, root_ca_der=root
        )

    members = [field.name for field in dataclasses.fields(collateral)]

    def read_member(data: bytes) -> None:
        """The first octet says which member of the collateral the others replace."""
        name = members[data[0] % len(members)] if data else members[0]
        old = getattr(collateral, name)
        new = data[1:] if isinstance(old, bytes) else data[1:].decode("utf-8", "replace")
        spoiled = dataclasses.replace(collateral, **{name: new})
        appraise_quote(parse_quote(quotes[0]), spoiled, now=NOW, root_ca_der=root)

    values = [getattr(collateral, name) for name in members]
    parts = _numbered([v if isinstance(v, bytes) else v.encode() for v in values])
    quote = parse_quote(quotes[0])
    pck = _split(quote.certification.pck_chain_pem)
    issuers = _split(collateral.tcb_info_issuer_chain)

    def read_pck(data: bytes) -> None:
        chain = dataclasses.replace(quote.certification, pck_chain_pem=_replaced(pck, data))
        spoiled = dataclasses.replace(quote, certification=chain)
        appraise_quote(spoiled, collateral, now=NOW, root_ca_der=root)

    def read_issuers(data: bytes) -> None:
        chain = _replaced(issuers, data).decode()
        spoiled = dataclasses.replace(collateral, tcb_info_issuer_chain=chain)
        appraise_quote(quote, spoiled, now=NOW, root_ca_der=root)

    statements = [collateral.to_json().encode(), *_files(shared, "tdx-simulated/collateral_*.json")]
    return [
        Target("quote", tuple(quotes + recorded), read_quote),
        Target("TDX evidence", (platform.evidence(REPORT_DATA),), read_evidence),
        Target("collateral", tuple(statements), read_collateral),
        Target("part of the collateral", parts, read_member),
        Target("certificate of a PCK chain", _numbered(pck), read_pck),
        Target("certificate of the collateral", _numbered(issuers), read_issuers),
    ]


def _event_logs(shared: pathlib.Path | None) -> list[Target]:
    evidence = json.loads(SimulatedPlatform.build(now=NOW).evidence(REPORT_DATA))
    own = base64.b64decode(evidence["cc_eventlog"])
    recorded = [data for data in _files(shared, "attestation/eventlog/CCEL*") if len(data) < 70_000]

    def read_log(data: bytes) -> None:
        entries = parse_event_log(data)
        for entry in entries:
            entry.claims()
        named_measurements(entries)
        replay(entries)

    return [Target("event log", (own, *recorded), read_log)]


# -- devices ------------------------------------------------------------------------------------


def _gpus(shared: pathlib.Path | None) -> list[Target]:
    gpu = make_gpu()
    reports = [gpu.report()]
    recorded = _files(shared, "attestation/gpu/hopperAttestationReport.txt")
    reports += [bytes.fromhex(data.decode().strip()) for data in recorded]
    good = reports[0]

    def judge(evidence: bytes) -> None:
        judge_gpus(evidence, expected_nonce=NONCE, now=NOW, root_spki_sha256=gpu.root_spki)

    def read_report(data: bytes) -> None:
        judge(gpu.but(extra={"evidence": data.hex()}).evidence())
        assert data == good, "a report that nobody signed was accepted"

    def read_chain(data: bytes) -> None:
        judge(gpu.but(extra={"certificate": base64.b64encode(data).decode()}).evidence())

    chain = _split(gpu.chain)

    def read_certificate(data: bytes) -> None:
        text = base64.b64encode(_replaced(chain, data)).decode()
        judge(gpu.but(extra={"certificate": text}).evidence())

    return [
        Target("certificate of a GPU chain", _numbered(chain), read_certificate),
        Target("GPU report", tuple(reports), read_report),
        Target("GPU certificate chain", (gpu.chain,), read_chain),
        Target("GPU evidence", (gpu.evidence(),), judge),
    ]


# -- messages of and to attestation services -----------------------------------------------------


def _messages(shared: pathlib.Path | None) -> list[Target]:
    sample = b'{"svn":"1","report_data":"AAAA","measure_register":"' + b"0" * 64 + b'"}'
    device = b'{"svn":"2","report_data":"AAAA"}'
    request = json.dumps(
        {
            "verification_requests": [
                {
                    "tee": "tdx",
                    "evidence": _b64url(sample).decode(),
                    "runtime_data": {"structured": json.loads(runtime_data_for(b"key"))},
                    "init_data": None,
                    "runtime_data_hash_algorithm": "sha384",
                }
            ],
            "policy_ids": ["default"],
        }
    ).encode()
    flat = b'{"tee":"sample","evidence":"e30","runtime_data":{"structured":{}},"policy_ids":[]}'
    evidence = _b64url(sample)
    claims = json.dumps(pubkey_claims(b"key")).encode()
    item = dump_fields([(1, b"tdx"), (2, evidence), (4, claims), (6, b"sha384")])
    issuer = EarIssuer(NOW)
    pem = issuer.ca_certificate.public_bytes(Encoding.PEM)
    problem = b'{"detail":"no","tng_code":"debug_td","checks":[{"number":7,"name":"debug",'
    problem += b'"outcome":"fail","detail":"bit 0"}]}'

    def read_answers(data: bytes) -> None:
        parse_refusal(data)
        for read in (parse_token_answer, parse_challenge_answer, parse_certificates_answer):
            with contextlib.suppress(TngError):
                read(data)

    def read_sample(data: bytes) -> None:
        try:
            judge_sample(data, expected_report_data=None)
        except TngError:
            judge_device("sampledevice", data, expected=None, now=NOW, allow_sample=True)

    return [
        Target(
            "attestation request",
            (request, flat, *_files(shared, "attestation/evidence/*request*.json")),
            parse_attestation_request,
        ),
        Target(
            "attestation request in protobuf",
            (dump_fields([(1, item), (2, b"default")]), dump_fields([(1, b"tdx"), (2, evidence)])),
            lambda data: parse_attestation_request(body_of(data)),
        ),
        Target(
            "certificate of a service",
            (issuer.ca_certificate.public_bytes(Encoding.DER),),
            lambda data: parse_certificates_answer(_replaced([b""], b"\0" + data)),
        ),
        Target("answers of a service", (b"a.b.c", pem, problem, b'{"nonce":"x"}'), read_answers),
        Target("sample evidence", (sample, device), read_sample),
    ]
