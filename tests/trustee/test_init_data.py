from __future__ import annotations

import base64
import hashlib

import pytest

from tng.errors import RemoteProtocolError
from tng.trustee.init_data import InitData, parse_init_data, parse_init_data_flat
from tng.trustee.problems import TrusteeRequestError

TOML = 'algorithm = "sha384"\nversion = "0.1.0"\n[data]\n"aa.toml" = "x = 1"\n'


def test_none_means_no_expectation():
    assert parse_init_data(None, "i") is None
    assert parse_init_data_flat(None, "sha384") is None


def test_a_digest_is_taken_as_it_is():
    text = base64.urlsafe_b64encode(b"d" * 48).decode()
    assert parse_init_data({"init_data_digest": text}, "i") == InitData(b"d" * 48, None)


@pytest.mark.parametrize("name", ["sha256", "sha384"])
def test_toml_is_hashed_as_text_and_its_data_are_claims(name):
    text = TOML.replace("sha384", name)
    expected = InitData(hashlib.new(name, text.encode()).digest(), {"aa.toml": "x = 1"})
    assert parse_init_data({"init_data_toml": text}, "i") == expected


def test_the_flat_form_hashes_structured_data_and_takes_raw_ones():
    expected = InitData(hashlib.sha256(b'{"a":"b"}').digest(), {"a": "b"})
    assert parse_init_data_flat({"structured": {"a": "b"}}, "sha256") == expected
    assert parse_init_data_flat({"raw": "QUI"}, "sha256") == InitData(b"AB", None)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        "x",
        {"raw": "QUI"},
        {"init_data_digest": 1},
        {"init_data_digest": ""},
        {"init_data_digest": "A" * 66},
        {"init_data_digest": "QUI", "init_data_toml": TOML},
        {"init_data_toml": None},
        {"init_data_toml": ""},
        {"init_data_toml": "= x"},
        {"init_data_toml": "a = " + "[" * 5000},
        {"init_data_toml": TOML.replace("version", "edition")},
        {"init_data_toml": TOML.replace("[data]", "[other]")},
        {"init_data_toml": TOML.replace("sha384", "md5")},
        {"init_data_toml": TOML.replace("sha384", "sha512")},
        {"init_data_toml": TOML.replace('algorithm = "sha384"', "")},
        {"init_data_toml": TOML.replace('"x = 1"', "2026-01-01")},
        {"init_data_toml": TOML + "#" * 300_000},
    ],
)
def test_what_is_not_init_data_is_refused(value):
    with pytest.raises(TrusteeRequestError, match=r"^i") as caught:
        parse_init_data(value, "i")
    assert caught.value.http_status == 400


@pytest.mark.parametrize(
    ("value", "algorithm"),
    [
        ({"init_data_digest": "QUI"}, "sha384"),
        ({"raw": "A" * 66}, "sha384"),
        ({"structured": 1}, "sha384"),
        ({"structured": {}}, "sha512"),
    ],
)
def test_what_is_not_flat_init_data_is_refused(value, algorithm):
    with pytest.raises(TrusteeRequestError, match="init_data"):
        parse_init_data_flat(value, algorithm)


def test_structured_data_without_a_canonical_form_are_refused():
    with pytest.raises(RemoteProtocolError):
        parse_init_data_flat({"structured": {"a": 2**60}}, "sha384")
