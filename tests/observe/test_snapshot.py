"""A snapshot has every number of every entry."""

from __future__ import annotations

import pathlib

from tng.observe.metrics import SERIES, EntryMeter
from tng.observe.snapshot import Point, snapshot_lines, take_snapshot

FIRST = EntryMeter({"ingress_type": "socks5", "ingress_id": "0"}, cx_total=3, cx_active=1)
SECOND = EntryMeter({"egress_id": "0"}, cx_failed=2, octets_from_client=79, octets_to_client=1160)


def test_every_series_has_a_point_for_every_entry() -> None:
    snapshot = take_snapshot([FIRST, SECOND], started_at=1.0, taken_at=2.0)
    assert (snapshot.started_at, snapshot.taken_at) == (1.0, 2.0)
    *counted, live = snapshot.series
    assert [series.name for series in counted] == [name for name, *_ in SERIES]
    for series in counted:
        assert [point.labels for point in series.points] == [FIRST.labels, SECOND.labels]
    assert (live.name, live.kind, live.points) == ("live", "gauge", (Point({}, 1),))


def test_kinds_and_units_are_those_of_the_reference() -> None:
    snapshot = take_snapshot([], started_at=1.0, taken_at=2.0)
    assert {series.name: (series.kind, series.unit) for series in snapshot.series} == {
        "cx_total": ("counter", ""),
        "cx_active": ("up_down", ""),
        "cx_failed": ("counter", ""),
        "tx_bytes_total": ("counter", "bytes"),
        "rx_bytes_total": ("counter", "bytes"),
        "live": ("gauge", ""),
    }


def test_what_is_counted_later_is_not_in_a_snapshot() -> None:
    meter = EntryMeter(cx_total=1)
    snapshot = take_snapshot([meter], started_at=1.0, taken_at=2.0)
    meter.cx_total = 5
    assert snapshot.series[0].points == (Point({}, 1),)


def test_a_line_has_the_numbers_of_one_label_set() -> None:
    snapshot = take_snapshot([FIRST, SECOND], started_at=1.0, taken_at=2.0)
    assert snapshot_lines(snapshot) == [
        "ingress_type=socks5 ingress_id=0 cx_total=3 cx_active=1 cx_failed=0"
        " tx_bytes_total=0 rx_bytes_total=0",
        "egress_id=0 cx_total=0 cx_active=0 cx_failed=2 tx_bytes_total=1160 rx_bytes_total=79",
        "live=1",
    ]


def test_the_forms_of_reports_touch_no_socket() -> None:
    folder = pathlib.Path(__file__).parents[2] / "tng" / "observe"
    for name in ("snapshot", "falcon", "otlp"):
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        for module in ("socket", "httpx", "trio", "grpc"):
            assert f"import {module}" not in text
