"""What peers showed, as files: whatever cannot be read is left out or named, never a crash."""

from __future__ import annotations

import json
import pathlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from stage.certificates import self_signed
from tng.attest.certificate import make_certificate
from tng.attest.evidence import CocoToken, dump_evidence
from tng.cli.output_files import make_folder, write, write_private
from tng.cli.tools_parts import certificate_parts, quote_part, shown_parts, token_parts
from tng.errors import RemoteProtocolError, StartError
from tng.wire.dice import CocoEvidence, HashAlgorithm


def certificate(extension: bytes) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return make_certificate(key, extension, 1_800_000_000).public_bytes(Encoding.DER)


def summary(der: bytes) -> dict[str, object]:
    found: dict[str, object] = json.loads(certificate_parts(der)["cert.json"])
    return found


def test_a_certificate_without_evidence_has_a_summary_alone() -> None:
    der = self_signed()[1].public_bytes(Encoding.DER)
    assert set(certificate_parts(der)) == {"cert.json"}
    assert summary(der)["shown"] is None


def test_evidence_that_cannot_be_read_is_said_to_be_so() -> None:
    shown = summary(certificate(b"nonsense"))["shown"]
    assert isinstance(shown, dict)
    assert set(shown) == {"unreadable"}


def test_what_is_no_certificate_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        certificate_parts(b"x")


def test_evidence_that_is_not_json_is_kept_as_it_is() -> None:
    evidence = CocoEvidence("sample", b"\0\1", None, "{", HashAlgorithm.SHA384)
    assert shown_parts(evidence) == {"evidence.bin": b"\0\1"}
    found = summary(certificate(dump_evidence(evidence)))["shown"]
    assert found == {
        "model": "background_check",
        "provider": "coco",
        "tee": "sample",
        "hash_algorithm": "sha384",
    }


def test_a_quote_is_taken_out_of_the_evidence() -> None:
    evidence = CocoEvidence("tdx", b'{"quote":"AAEC"}', None, "{}", HashAlgorithm.SHA384)
    assert quote_part(evidence) == {"quote.bin": b"\0\1\2"}
    assert quote_part(CocoEvidence("tdx", b'{"quote":5}', None, "{}", HashAlgorithm.SHA384)) == {}
    assert quote_part(CocoToken("a.b.c")) == {}
    assert quote_part(None) == {}


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "a.W10.c", "a.YQ.c"])
def test_a_token_that_cannot_be_read_has_no_parts(token: str) -> None:
    assert token_parts(token) == {}


def test_a_token_without_an_event_log_has_claims_alone() -> None:
    assert token_parts("a.eyJzdWJtb2RzIjpbXX0.c") == {
        "attestation_result.claims.json": '{\n  "submods": []\n}'
    }


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_nothing_else(octets: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        certificate_parts(octets)


def test_files_that_cannot_be_written_are_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for fail in (
        lambda: write(tmp_path / "nowhere" / "x", "text"),
        lambda: write_private(tmp_path / "link", b"secret"),
        lambda: make_folder(tmp_path / "file" / "below"),
    ):
        with pytest.raises(StartError):
            fail()
    assert not (tmp_path / "elsewhere").exists()
