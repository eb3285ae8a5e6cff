"""Attribute bits by name."""

from __future__ import annotations

import pytest

from tng.attest.tdx.attributes import TdAttribute, TdAttributes


@pytest.mark.parametrize("bit", range(64))
def test_debug_is_any_bit_of_its_group_and_no_other(bit):
    assert TdAttributes(1 << bit).is_debug is (bit < 8)


def test_every_bit_that_is_set_is_named():
    octets = bytes.fromhex("0103005000000080")
    attributes = TdAttributes.parse(octets)
    assert attributes.names == (
        "debug",
        "sept_ve_disable",
        "protection_keys",
        "perfmon",
        "bit 8",
        "bit 9",
    )
    assert str(attributes) == ", ".join(attributes.names)
    assert str(TdAttributes(0)) == "none"


def test_claims_have_the_five_names_of_a_trustee():
    assert TdAttributes(TdAttribute.SEPT_VE_DISABLE | TdAttribute.KEY_LOCKER).claims() == {
        "debug": False,
        "septve_disable": True,
        "protection_keys": False,
        "key_locker": True,
        "perfmon": False,
    }
