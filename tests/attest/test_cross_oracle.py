"""Every third-party quote, token, event log and GPU report against its recorded outcome.

The outcomes are those that other implementations gave for the same octets: the two Trustees'
event log parsers and claims, the reference's judgement of quotes, the `nvidia` verifier's claims.
Where the rules here are stricter, the case stands in `STRICTER` with its reason.
Skipped without the folder `shared` beside the checkout.
"""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import json
import pathlib

import pytest

from tng.attest.devices import judge_device
from tng.attest.gpu.appraisal import GpuRefused, judge_gpus
from tng.attest.jws import parse_token
from tng.attest.sample import judge_sample
from tng.attest.strict_json import parse_object
from tng.attest.tdx.collateral import Collateral
from tng.attest.tdx.dcap import verify_quote
from tng.attest.tdx.eventlog import check_against_quote, parse_event_log, replay
from tng.attest.tdx.measurements import named_measurements, reference_values
from tng.attest.tdx.quote import Quote, parse_quote
from tng.attest.tdx.token_claims import guests_in
from tng.attest.token import check_token
from tng.errors import ErrorCode, UntrustedPeerError


def at(date: str) -> int:
    return int(dt.datetime.fromisoformat(f"{date}T00:00:00+00:00").timestamp())


@pytest.fixture(scope="module")
def vectors(shared) -> pathlib.Path:
    return shared / "vectors" / "attestation"


def quote_octets(vectors: pathlib.Path, name: str) -> bytes:
    data = (vectors / "quotes" / name).read_bytes()
    if name.endswith(".hex"):
        data = bytes.fromhex(data.decode().strip().removeprefix("0x"))
    return data


# --- quotes ---

PARSED = {
    "google_cos-113-tdx-quote.dat": 4,
    "google_quote_v5_sample.dat": 5,
    "google_tdx_prod_quote_SPR_E4.dat": 4,
    "phala_near_quote.hex": 4,
    "phala_quote-from-tappd.hex": 4,
    "phala_tdx-quote.hex": 4,
    "phala_tdx_quote.bin": 4,
    "phala_tdx_quote_outdated.bin": 5,
    "trustee_az-tdx-vtpm_td-quote.bin": 4,
    "trustee_tdx_quote_4.dat": 4,
    "trustee_tdx_quote_5.dat": 5,
    "trustee_tdx_quote_6.dat": 4,
}
"""Every TDX quote, and the version that the other parsers read in it."""

PHALA = "phala_tdx_quote_collateral.json"
NEAR = "phala_near_quote_collateral.json"
OUTDATED = "phala_tdx_quote_outdated_collateral.json"
GOOGLE = "google_collateral_50806F000000_2023-06.json"

JUDGED = [
    ("phala_tdx_quote.bin", PHALA, "2025-07-01", "UpToDate"),
    ("phala_near_quote.hex", NEAR, "2025-09-15", "UpToDate"),
    ("google_quote_v5_sample.dat", OUTDATED, "2026-03-01", "UpToDate"),
    ("phala_tdx_quote_outdated.bin", OUTDATED, "2026-03-01", ErrorCode.TCB_NOT_ACCEPTED),
    ("trustee_tdx_quote_4.dat", GOOGLE, "2023-07-01", ErrorCode.DEBUG_TD),
    ("phala_tdx_quote.bin", PHALA, "2026-11-01", ErrorCode.COLLATERAL_EXPIRED),
]
"""Quote, collateral, date, and the status or refusal recorded for them."""

STRICTER = {
    "google_tdx_prod_quote_SPR_E4.dat": "text behind the quote, which others leave unread",
    "trustee_tdx_quote_4.dat": "a domain under debug, which the reference leaves to its policy",
    "ear.jwt, simple.jwt": "the domain has a service domain, which can be given its secrets",
    "hopper_coco_report1.txt": "without a nonce to compare with, which others allow",
}
"""Every case that others accept or leave to a policy, and that is refused here, with the reason."""


def readable(vectors: pathlib.Path, name: str) -> Quote:
    data = quote_octets(vectors, name)
    if name == "google_tdx_prod_quote_SPR_E4.dat":
        with pytest.raises(UntrustedPeerError, match="39 octets after the quote"):
            parse_quote(data)
        data = data[:-39]
    return parse_quote(data)


@pytest.mark.parametrize(("name", "version"), PARSED.items())
def test_every_quote_is_read_as_others_read_it(vectors, name, version):
    import dcap_qvl

    quote = readable(vectors, name)
    other = dcap_qvl.Quote.parse(quote_octets(vectors, name))
    assert quote.header.version == other.header.version == version
    assert quote.body.mr_td == bytes(other.report.mr_td)
    assert quote.body.report_data == bytes(other.report.report_data)
    assert (quote.body.mr_servicetd is None) is (type(other.report).__name__ == "PyTdReport10")


def test_no_quote_of_the_folder_is_left_out(vectors):
    found = {p.name for p in (vectors / "quotes").iterdir() if "quote" in p.name.lower()}
    left = {n for n in found if not n.endswith(".json") and "sgx" not in n and "README" not in n}
    assert left - {"google_sample_qeIdentity_response"} == set(PARSED)


@pytest.mark.parametrize(("name", "collateral", "date", "outcome"), JUDGED)
def test_every_quote_with_collateral_is_judged_as_recorded(
    vectors, name, collateral, date, outcome
):
    statements = Collateral.from_json((vectors / "quotes" / collateral).read_bytes())
    data = quote_octets(vectors, name)
    if isinstance(outcome, ErrorCode):
        with pytest.raises(UntrustedPeerError) as caught:
            verify_quote(data, statements, now=at(date))
        assert caught.value.code is outcome
        return
    appraisal = verify_quote(data, statements, now=at(date))
    assert (appraisal.tcb_status, appraisal.advisory_ids) == (outcome, ())


def test_an_sgx_quote_is_none_of_ours(vectors):
    with pytest.raises(UntrustedPeerError, match="version 4 or 5"):
        parse_quote(quote_octets(vectors, "phala_sgx_quote.bin"))


def test_claims_are_those_of_upstream(vectors):
    """Its tree of the quote, its attributes by name."""
    expected = json.loads(
        (vectors / "evidence/upstream_parse_tdx_claims_expected.json").read_bytes()
    )
    quote = parse_quote(quote_octets(vectors, "trustee_tdx_quote_4.dat"))
    assert quote.claims() == expected["quote"]
    assert quote.td_attributes.claims() == expected["td_attributes"]
    assert quote.body.report_data.hex() == expected["report_data"]


# --- event logs ---

LOGS = {
    "CCEL_AAEL_alibabacloud": "CCEL_AAEL_alibabacloud_out.json",
    "CCEL_data.gz": "CCEL_data_out.json",
    "CCEL_data_csv": "CCEL_data_csv_out.json",
    "CCEL_data_grub": "CCEL_data_grub_out.json",
    "CCEL_data_grub_gke": "CCEL_data_grub_gke_out.json",
    "CCEL_data_ovmf": "CCEL_data_ovmf_out.json",
}
NAMED = {
    "CCEL_AAEL_alibabacloud": {"shim", "grub", "kernel", "kernel_cmdline", "initrd"},
    "CCEL_data_csv": {"shim", "grub", "kernel", "kernel_cmdline", "initrd"},
    "CCEL_data_grub": {"shim", "grub", "kernel_cmdline", "initrd"},
    "CCEL_data_ovmf": {"kernel", "kernel_cmdline", "initrd"},
}


def log_octets(vectors: pathlib.Path, name: str) -> bytes:
    data = (vectors / "eventlog" / name).read_bytes()
    return gzip.decompress(data) if name.endswith(".gz") else data


@pytest.mark.parametrize("fork", ["openanolis_expected", "upstream_expected"])
@pytest.mark.parametrize("name", LOGS)
def test_every_event_log_is_shown_as_both_trustees_show_it(vectors, name, fork):
    expected = json.loads((vectors / "eventlog" / fork / LOGS[name]).read_bytes())
    shown = [entry.claims() for entry in parse_event_log(log_octets(vectors, name))]
    for entry in expected["uefi_event_logs"]:
        entry.pop("digest_matches_event", None)  # upstream says it beside the entry
    assert shown == expected["uefi_event_logs"]


@pytest.mark.parametrize("name", [*LOGS, "CCEL_data_gcp"])
def test_every_event_log_has_the_measurements_that_people_look_for(vectors, name):
    named = named_measurements(parse_event_log(log_octets(vectors, name)))
    found = {measurement.name for measurement in named if measurement.content is None}
    assert found >= NAMED.get(name, set())


@pytest.mark.parametrize("name", [name for name in LOGS if name != "CCEL_data_csv"])
def test_a_log_does_not_replay_to_the_quote_of_another_machine(vectors, name):
    entries = parse_event_log(log_octets(vectors, name))
    for quote in PARSED:
        with pytest.raises(UntrustedPeerError, match="replays to rtmr_0") as caught:
            check_against_quote(entries, readable(vectors, quote).body)
        assert caught.value.code is ErrorCode.EVENT_LOG_MISMATCH


def test_a_log_of_another_tee_has_no_digest_to_replay(vectors):
    with pytest.raises(UntrustedPeerError, match="no SHA-384 digest"):
        replay(parse_event_log(log_octets(vectors, "CCEL_data_csv")))


# --- tokens ---

TOKENS = {
    "ear.jwt": ("ear.as-ca.pem", "tdx"),
    "ear_with_additional_device.jwt": ("ear_with_additional_device.as-ca.pem", "tdx"),
    "simple.jwt": ("simple.as-ca.pem", "tdx"),
}


def token_text(vectors: pathlib.Path, name: str) -> str:
    return (vectors / "tokens" / name).read_text().strip()


def anchor(vectors: pathlib.Path, name: str):
    from cryptography import x509

    return x509.load_pem_x509_certificate((vectors / "tokens" / name).read_bytes())


def end_of(text: str) -> float:
    return float(parse_object(parse_token(text).payload)["exp"])


@pytest.mark.parametrize(("name", "anchored"), TOKENS.items())
def test_every_token_that_the_reference_accepts_is_accepted(vectors, name, anchored):
    text = token_text(vectors, name)
    verdict = check_token(
        text,
        anchors=[anchor(vectors, anchored[0])],
        expected_claims={},
        policy_ids=["default"],
        now=end_of(text) - 100,
        allow_simulated=False,
    )
    assert verdict.tee == anchored[1]
    assert not verdict.simulated


@pytest.mark.parametrize("name", TOKENS)
def test_and_refused_after_its_end_and_under_another_anchor(vectors, name):
    text = token_text(vectors, name)
    others = [anchor(vectors, ca) for ca, _ in TOKENS.values() if ca != TOKENS[name][0]]
    for anchors, now, code in (
        ([anchor(vectors, TOKENS[name][0])], end_of(text) + 100, ErrorCode.STALE),
        (others, end_of(text) - 100, ErrorCode.AS_BAD_TOKEN),
    ):
        with pytest.raises(UntrustedPeerError) as caught:
            check_token(
                text,
                anchors=anchors,
                expected_claims={},
                policy_ids=[],
                now=now,
                allow_simulated=False,
            )
        assert caught.value.code is code


@pytest.mark.parametrize("name", ["openanolis_ear_token.txt", "openanolis_tdx_ear_token.txt"])
def test_tokens_that_do_not_affirm_are_refused_whoever_signed_them(vectors, name):
    """Older ones, which name their only submodule otherwise or warn about it."""
    text = token_text(vectors, name)
    with pytest.raises(UntrustedPeerError):
        check_token(
            text,
            anchors=None,
            expected_claims={},
            policy_ids=[],
            now=end_of(text) - 100,
            allow_simulated=True,
        )


@pytest.mark.parametrize("name", ["ear.jwt", "simple.jwt"])
def test_reference_values_of_a_token_are_those_that_make_it_affirming(vectors, name):
    """The list that was derived independently of this code from the same machine."""
    recorded = json.loads((vectors / "evidence/tng_ear_reference_values.json").read_bytes())
    (guest,) = guests_in(parse_object(parse_token(token_text(vectors, name)).payload))
    values = reference_values(guest.fields, named_measurements(guest.entries or ()))
    for key, expected in recorded.items():
        assert set(expected) <= set(values[key]), key
        assert len(values[key]) <= 2  # the command line is measured as typed and as passed on


@pytest.mark.parametrize("name", ["ear.jwt", "simple.jwt"])
def test_a_token_may_speak_of_a_domain_whose_quote_is_refused_here(vectors, name):
    """The attestation service decides; ours refuses domains with a service domain."""
    (guest,) = guests_in(parse_object(parse_token(token_text(vectors, name)).payload))
    assert guest.fields["mr_servicetd"].strip("0")


def test_claims_of_sample_evidence_are_those_in_the_references_token(vectors):
    text = token_text(vectors, "real_trustee_builtin_sample_ear.jwt")
    claims = parse_object(parse_token(text).payload)
    theirs = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    evidence = theirs["sample"] | {"report_data": theirs["report_data"]}
    report_data = base64.b64decode(theirs["report_data"])
    ours = judge_sample(json.dumps(evidence).encode(), expected_report_data=report_data)
    assert ours == {"sample": theirs["sample"], "report_data": theirs["report_data"]}


def test_claims_of_a_sample_device_are_those_in_the_references_token(vectors):
    claims = parse_object(
        parse_token(token_text(vectors, "ear_with_additional_device.jwt")).payload
    )
    theirs = claims["submods"]["gpu0"]["ear.veraison.annotated-evidence"]
    evidence = b'{"svn": "2", "report_data": ""}'
    (device,) = judge_device("sampledevice", evidence, expected=None, now=0, allow_sample=True)
    assert (device.device_class, device.claims) == ("gpu", theirs)


# --- GPUs ---

GPU_DAY = "2025-07-01"


def gpu_evidence(vectors: pathlib.Path, report: str, chain: str, **members: object) -> bytes:
    folder = vectors / "gpu"
    certificate = base64.b64encode((folder / chain).read_bytes()).decode()
    text = (folder / report).read_text().strip()
    device = {"arch": "HOPPER", "evidence": text, "certificate": certificate} | members
    return json.dumps({"device_evidence_list": [device]}).encode()


def nonce_of(vectors: pathlib.Path, report: str) -> bytes:
    return bytes.fromhex((vectors / "gpu" / report).read_text()[:72])[4:]


def test_claims_of_a_real_gpu_are_those_of_upstream(vectors):
    expected = json.loads((vectors / "gpu/hopperAttestationReport-claims.txt").read_bytes())
    report = "hopperAttestationReport.txt"
    evidence = gpu_evidence(vectors, report, "hopper_cert_chain_case1.txt", uuid=expected["uuid"])
    nonce = nonce_of(vectors, report)
    (device,) = judge_device("nvidia", evidence, expected=nonce, now=at(GPU_DAY))
    assert device.device_class == "gpu"
    assert device.claims == {"nvidia": expected}


@pytest.mark.parametrize(
    ("report", "chain", "code"),
    [
        ("hopper_coco_report1.txt", "hopper_coco_certs1.txt", None),
        ("hopperAttestationReport.txt", "hopper_cert_chain_case2.txt", ErrorCode.QUOTE_INVALID),
        ("hopperAttestationReport.txt", "hopper_cert_chain_case3.txt", ErrorCode.QUOTE_INVALID),
        ("hopperAttestationReport.txt", "hopper_cert_chain_case4.txt", ErrorCode.QUOTE_INVALID),
        ("hopperAttestationReport.txt", "hopper_coco_certs1.txt", ErrorCode.QUOTE_INVALID),
        ("hopperAttestationReport.txt", "hopper_signing_cert.pem", ErrorCode.UNKNOWN_ROOT),
    ],
)
def test_every_gpu_report_and_chain_is_judged_as_recorded(vectors, report, chain, code):
    evidence = gpu_evidence(vectors, report, chain)
    nonce = nonce_of(vectors, report)
    if code is None:
        assert judge_gpus(evidence, expected_nonce=nonce, now=at(GPU_DAY))
        return
    with pytest.raises(GpuRefused) as caught:
        judge_gpus(evidence, expected_nonce=nonce, now=at(GPU_DAY))
    assert caught.value.code is code


def test_a_gpu_report_without_a_nonce_to_compare_with_is_refused(vectors):
    evidence = gpu_evidence(vectors, "hopper_coco_report1.txt", "hopper_coco_certs1.txt")
    with pytest.raises(GpuRefused) as caught:
        judge_gpus(evidence, expected_nonce=None, now=at(GPU_DAY))
    assert caught.value.code is ErrorCode.BINDING_MISMATCH


def test_every_changed_octet_of_a_real_gpu_report_is_refused(vectors):
    report = "hopperAttestationReport.txt"
    good = bytes.fromhex((vectors / "gpu" / report).read_text().strip())
    nonce = nonce_of(vectors, report)
    for position in range(0, len(good), 97):
        changed = bytearray(good)
        changed[position] ^= 1
        evidence = gpu_evidence(
            vectors, report, "hopper_cert_chain_case1.txt", evidence=changed.hex()
        )
        with pytest.raises(GpuRefused):
            judge_gpus(evidence, expected_nonce=nonce, now=at(GPU_DAY))
