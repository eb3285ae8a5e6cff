"""tng.attest.statement: what is expected of what a peer shows, and when two are the same."""

from __future__ import annotations

import dataclasses

from tng.attest.evidence import CocoToken
from tng.attest.statement import Statement
from tng.attest.user_data import ClientUserData, ServerUserData
from tng.wire.dice import CocoEvidence, HashAlgorithm

SERVER = ServerUserData("AAAA", 1_900_000_000, "c.h.s")
CLIENT = ClientUserData(bytes(32), "c.h.s")
EVIDENCE = CocoEvidence("tdx", b"{}", None, "{}")
TOKEN = CocoToken("a.b.secret")


def test_evidence_has_to_answer_the_challenge_and_a_token_has_not() -> None:
    for about in (SERVER, CLIENT):
        assert set(Statement(EVIDENCE, about).expected_claims) == {
            "challenge_token",
            *about.key_claims,
        }
        assert Statement(TOKEN, about).expected_claims == about.key_claims
    assert Statement(EVIDENCE, SERVER).model == "background_check"
    assert Statement(TOKEN, SERVER).model == "passport"
    assert Statement(TOKEN, CLIENT).is_clients
    assert not Statement(TOKEN, SERVER).is_clients


def test_whatever_differs_gives_another_fingerprint() -> None:
    shown = [
        TOKEN,
        CocoToken("a.b.other"),
        EVIDENCE,
        dataclasses.replace(EVIDENCE, tee_type="snp"),
        dataclasses.replace(EVIDENCE, aa_evidence=b"{ }"),
        dataclasses.replace(EVIDENCE, aa_additional_evidence=b""),
        dataclasses.replace(EVIDENCE, aa_additional_evidence=b"{}"),
        dataclasses.replace(EVIDENCE, aa_runtime_data="{ }"),
        dataclasses.replace(EVIDENCE, aa_runtime_data="\ud800"),
        dataclasses.replace(EVIDENCE, hash_algorithm=HashAlgorithm.SHA512),
    ]
    about = [
        SERVER,
        dataclasses.replace(SERVER, expire_timestamp=1),
        dataclasses.replace(SERVER, encoded_key_config_list="AAAB"),
        dataclasses.replace(SERVER, challenge_token=None),
        CLIENT,
        ClientUserData(bytes(31) + b"\1", "c.h.s"),
    ]
    prints = {Statement(one, two).fingerprint() for one in shown for two in about}
    assert len(prints) == len(shown) * len(about)
    assert all(len(each) == 32 for each in prints)
    assert Statement(TOKEN, SERVER).fingerprint() == Statement(TOKEN, SERVER).fingerprint()


def test_octets_do_not_move_from_one_member_to_the_next() -> None:
    one = CocoEvidence("tdx", b"ab", None, "c")
    two = CocoEvidence("tdx", b"a", None, "bc")
    assert Statement(one, SERVER).fingerprint() != Statement(two, SERVER).fingerprint()


def test_repr_shows_no_token() -> None:
    assert "secret" not in repr(Statement(TOKEN, SERVER))
