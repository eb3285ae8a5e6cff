"""An exporter's address and headers can be used, or are refused."""

from __future__ import annotations

import json

import pytest

from tng.config.loader import prepare_config
from tng.errors import ConfigError


def config(**exporter: object) -> str:
    full = {"type": "oltp", "protocol": "http/json", "endpoint": "http://c:4318/x", "step": 1}
    mapping = {"in": {"port": 9}, "out": {"host": "127.0.0.1", "port": 9}}
    return json.dumps(
        {
            "add_ingress": [{"mapping": mapping, "no_ra": True}],
            "metric": {"exporters": [{**full, **exporter}]},
        }
    )


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        prepare_config(text)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("protocol", ["http/json", "http/protobuf", "grpc"])
@pytest.mark.parametrize(
    "endpoint", ["http://c:4317", "https://[::1]:4317/", "http://c/a/b?key=1", "http://1.2.3.4"]
)
def test_the_url_of_a_collector_is_one(endpoint: str, protocol: str) -> None:
    parsed = prepare_config(config(endpoint=endpoint, protocol=protocol))
    assert parsed.metric is not None
    assert parsed.metric.exporters[0].endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "c:4317",
        "127.0.0.1:4317",
        "ftp://c",
        "http://",
        "http://:4317",
        "http://c:0",
        "http://c:99999",
        "http://[c",
        "http://c/a b",
        "http://c/#part",
        "http://ü.example",
    ],
)
def test_what_is_no_url_of_a_collector_is_refused_and_not_repeated(endpoint: str) -> None:
    (line,) = problems(config(endpoint=endpoint))
    assert line.startswith("metric.exporters[0].endpoint: expected the URL of the collector")
    assert endpoint not in line.removesuffix(
        "it must start with http:// or https://, and name a host"
    )


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    (line,) = problems(config(endpoint="http://me:hidden@c"))
    assert "use a header" in line
    assert "hidden" not in line


def test_falcon_names_a_machine_not_an_address() -> None:
    falcon = {"type": "falcon", "server_url": "http://f", "endpoint": "not a URL"}
    entry = json.loads(config())["add_ingress"]
    text = json.dumps({"add_ingress": entry, "metric": {"exporters": [falcon]}})
    assert prepare_config(text).metric is not None


@pytest.mark.parametrize("value", ["a", "a b", "", "Bearer x.y=="])
def test_a_header_is_text_that_http_can_carry(value: str) -> None:
    assert prepare_config(config(headers={"X-A": value})).metric is not None


@pytest.mark.parametrize("value", [" hidden", "hidden ", "hïdden"])
def test_another_header_is_refused_and_not_shown(value: str) -> None:
    (line,) = problems(config(headers={"X-A": value}))
    assert line.startswith("metric.exporters[0].headers.X-A: expected printable ASCII")
    assert value.strip() not in line


def test_headers_are_shown_nowhere() -> None:
    parsed = prepare_config(config(headers={"X-A": "hidden"}))
    assert "hidden" not in repr(parsed)
    assert "hidden" not in parsed.model_dump_json()
