"""The env file of the deployment article, and what follows from it."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.config.cai_env import AGENT_SOCKET, config_from_cai_env, parse_cai_env
from tng.config.loader import prepare_config
from tng.errors import ConfigError

ARTICLE = """
# Address of the service
TRUSTEE_URL="http://alb.example.com/xxxx/"
TRUSTEE_POLICY="default"
# written as kbs:///default/aliyun/<name>, "${bucket}:/${path}"
MODEL_KEY_ID="kbs:///default/test/model_key"
MODEL_OSS_SECRET_ACCESS_KEY="<oss access key secret>"
MODEL_OSS_SESSION_TOKEN=
    # MODEL_SHARING_PEER="172.30.0.1 172.30.0.2"
MODEL_SERVICE_PORT=8080
    MODEL_MOUNT_POINT=/tmp/model
"""


def test_the_file_of_the_article_is_read() -> None:
    assert parse_cai_env(ARTICLE) == {
        "TRUSTEE_URL": "http://alb.example.com/xxxx/",
        "TRUSTEE_POLICY": "default",
        "MODEL_KEY_ID": "kbs:///default/test/model_key",
        "MODEL_OSS_SECRET_ACCESS_KEY": "<oss access key secret>",
        "MODEL_OSS_SESSION_TOKEN": "",
        "MODEL_SERVICE_PORT": "8080",
        "MODEL_MOUNT_POINT": "/tmp/model",
    }


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=", ""),
        ("A=b c", "b c"),
        ("export A = b", "b"),
        ("A=b # comment", "b"),
        ("A=# comment", ""),
        ("A=b#c", "b#c"),
        ("A='b # $c'  # comment", "b # $c"),
        ('A="b # c" # comment', "b # c"),
        (r'A="a\"b\n\\ \$x"', 'a"b\n\\ $x'),
        ("A=1\nA=2", "2"),
        ("A=a$5", "a$5"),
    ],
)
def test_quotes_and_comments_are_those_of_compose(line: str, value: str) -> None:
    assert parse_cai_env(line) == {"A": value}


@pytest.mark.parametrize(
    "line",
    [
        *("A", "=b", "1A=b", "A-B=c", "A='b", 'A="b', "A='b' c", 'A="b" c', 'A="b\\"'),
        *("A=$B", "A=${B}", 'A="x$(y)"'),
    ],
)
def test_a_line_that_means_nothing_certain_is_refused_by_number(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cai_env(f"X=1\n{line}\nY=2\n")
    assert [p.partition(":")[0] for p in caught.value.problems] == ["cai.env line 2"]


def test_no_value_is_in_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cai_env("KEY='hush\nOTHER=\"hush\n+hush\n")
    assert len(caught.value.problems) == 3
    assert "hush" not in str(caught.value)


def test_a_file_that_is_too_long_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most"):
        parse_cai_env("#" * 65_537)


@given(st.text())
def test_any_text_is_a_dictionary_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_cai_env(text), dict)


def test_an_egress_listens_where_clients_connect() -> None:
    config = config_from_cai_env(parse_cai_env(ARTICLE))
    (egress,) = prepare_config(json.dumps(config)).add_egress
    assert egress.mapping is not None
    ((listen, target),) = egress.mapping.rules[0].pairs()
    assert (str(listen), str(target)) == ("0.0.0.0:8080", "127.0.0.1:8081")
    assert egress.attest is not None
    assert egress.attest.aa_addr == AGENT_SOCKET
    moved = config_from_cai_env(parse_cai_env(ARTICLE), backend_port=9000)
    assert prepare_config(json.dumps(moved)).add_egress[0].mapping is not None


@pytest.mark.parametrize("base", ["http://alb.example.com/xxxx/", "http://alb.example.com/xxxx"])
def test_an_ingress_asks_the_service_below_the_base(base: str) -> None:
    values = {"TRUSTEE_URL": base, "TRUSTEE_POLICY": "default, other"}
    config = config_from_cai_env(values, role="ingress")
    (ingress,) = prepare_config(json.dumps(config)).add_ingress
    assert ingress.verifiers[0].as_addr == "http://alb.example.com/xxxx/as/"
    assert ingress.verifiers[0].policy_ids == ["default", "other"]


@pytest.mark.parametrize("port", ["", "0", "65535", "80x", "٨٠", "999999"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(ConfigError, match="MODEL_SERVICE_PORT"):
        config_from_cai_env({"MODEL_SERVICE_PORT": port})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="TRUSTEE_URL: required"):
        config_from_cai_env({}, role="ingress")
