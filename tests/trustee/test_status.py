from __future__ import annotations

from tng.trustee.status import Health, collateral_dependency, signer_dependency, status_body

DAY = 86_400


def test_a_signer_ages():
    states = [signer_dependency(100 * DAY, at * DAY).status for at in (0, 70, 99, 100, 101)]
    assert states == [
        Health.OK,
        Health.DEGRADED,
        Health.DEGRADED,
        Health.UNHEALTHY,
        Health.UNHEALTHY,
    ]


def test_collateral_is_as_well_as_its_last_fetch():
    assert collateral_dependency("u", None).message == "not asked yet"
    assert collateral_dependency("u", "").status is Health.OK
    assert collateral_dependency("u", "refused").status is Health.DEGRADED


def test_the_worst_dependency_decides():
    parts = [signer_dependency(100, 200), collateral_dependency("u", "x")]
    body = status_body(parts, ["danger"])
    assert body["service"] == "attestation-service"
    assert body["status"] == "unhealthy"
    assert [item["kind"] for item in body["dependencies"]] == ["signer", "collateral"]
    assert body["dangers"] == ["danger"]
