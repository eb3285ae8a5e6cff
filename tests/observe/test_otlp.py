"""What collectors are sent, read by another reader than the writer's own."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from stage.collector import (
    Told,
    read_otlp_json,
    read_otlp_protobuf,
    read_otlp_resource,
    read_otlp_scope,
)
from tng.observe.metrics import EntryMeter
from tng.observe.otlp import RESOURCE, dump_json, dump_protobuf
from tng.observe.snapshot import take_snapshot

AT = {"started_at": 1_795_324_633.25, "taken_at": 1_795_324_640.5}

counts = st.integers(0, 2**63 - 1)
meters = st.builds(
    EntryMeter,
    st.dictionaries(st.text(max_size=200), st.text(max_size=200), max_size=3),
    *[counts] * 5,
)


@given(st.lists(meters, max_size=4))
def test_both_forms_say_the_same(entries: list[EntryMeter]) -> None:
    snapshot = take_snapshot(entries, **AT)
    assert read_otlp_json(dump_json(snapshot)) == read_otlp_protobuf(dump_protobuf(snapshot))


def test_every_label_set_of_every_name_is_told() -> None:
    entries = [EntryMeter({"ingress_id": "0"}, cx_total=300), EntryMeter({"egress_id": "0"})]
    told = read_otlp_protobuf(dump_protobuf(take_snapshot(entries, **AT)))
    assert len(told) == 2 * 5 + 1
    ingress = frozenset({("ingress_id", "0")})
    assert Told("cx_total", "sum 2 True ", ingress, 300) in told
    assert Told("cx_active", "sum 2 False ", ingress, 0) in told
    assert Told("rx_bytes_total", "sum 2 True bytes", ingress, 0) in told
    assert Told("live", "gauge 0 False ", frozenset(), 1) in told


def test_who_counts_is_told_in_both_forms() -> None:
    snapshot = take_snapshot([], **AT)
    assert read_otlp_resource(dump_protobuf(snapshot)) == dict(RESOURCE)
    assert read_otlp_scope(dump_protobuf(snapshot)) == "tng"
    (resource,) = json.loads(dump_json(snapshot))["resourceMetrics"]
    attributes = resource["resource"]["attributes"]
    assert {each["key"]: each["value"]["stringValue"] for each in attributes} == dict(RESOURCE)
    assert resource["scopeMetrics"][0]["scope"] == {"name": "tng"}


def test_times_are_whole_microseconds_in_nanoseconds() -> None:
    """As strings: a double of JavaScript does not hold them."""
    entry = EntryMeter(cx_total=1)
    body = json.loads(dump_json(take_snapshot([entry], **AT)))
    point = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["sum"]["dataPoints"][0]
    assert point["startTimeUnixNano"] == "1795324633250000000"
    assert point["timeUnixNano"] == "1795324640500000000"
    assert point["asInt"] == "1"
