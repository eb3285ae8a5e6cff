"""What `tools/fuzz` found, kept: certificates and lists that libraries stumble over when asked.

The X.509 library reads some parts only when they are asked for, and says in several ways that it
cannot.  Every certificate of every chain that a peer, a platform or a service sends is given each
of these faults here, and must be refused in words of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from fuzzing import trust
from fuzzing.target import Target, attempt

TARGETS = {target.name: target for target in trust.targets(None)}
CHAINS = [
    "certificate",
    "signed part of a certificate",
    "certificate of a token's signer",
    "certificate of a PCK chain",
    "certificate of the collateral",
    "certificate of a GPU chain",
    "certificate of a service",
]


def negative_serial(der: bytes) -> bytes:
    return re.sub(rb"(\xa0\x03\x02\x01\x02\x02.).", b"\\1\xff", der, count=1, flags=re.DOTALL)


def another_version(der: bytes) -> bytes:
    return der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x11", 1)


def name_of_bits(der: bytes) -> bytes:
    return re.sub(rb"(\x55\x04\x03)\x0c(.).", b"\\1\x03\\2\0", der, flags=re.DOTALL)


def unknown_kind_of_key(der: bytes) -> bytes:
    return der.replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0200"), 1)


def point_off_the_curve(der: bytes) -> bytes:
    return re.sub(rb"(\x03[\x42\x62]\0\x04.{8}).", b"\\1\0", der, count=1, flags=re.DOTALL)


def date_that_is_none(der: bytes) -> bytes:
    return re.sub(rb"\x17\x0d\d\d\d\d", b"\x17\x0d2613", der)


FAULTS = [
    negative_serial,
    another_version,
    name_of_bits,
    unknown_kind_of_key,
    point_off_the_curve,
    date_that_is_none,
]


def is_refused(target: Target, message: bytes, fault: Callable[[bytes], bytes]) -> bool:
    spoiled = fault(message)
    assert spoiled != message
    return attempt(target, spoiled).is_refused


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.filterwarnings("ignore:Parsed a serial number", "ignore:The parsed certificate")
def test_a_certificate_that_cannot_be_read_is_refused_in_words_of_ours(name, fault) -> None:
    target = TARGETS[name]
    for message in target.good:
        if name == "certificate of a service" and fault in (
            unknown_kind_of_key,
            point_off_the_curve,
            negative_serial,
        ):
            attempt(target, fault(message))  # of use to no token, but a certificate
        else:
            assert is_refused(target, message, fault)


def test_a_revocation_list_of_another_version_is_refused_in_words_of_ours() -> None:
    target = TARGETS["part of the collateral"]
    lists = [part for part in target.good if part[1:2] == b"\x30"]
    assert len(lists) == 2
    for part in lists:
        assert is_refused(
            target, part, lambda der: der.replace(b"\x02\x01\x01", b"\x02\x01\x11", 1)
        )
        assert is_refused(target, part, name_of_bits)
