"""From text to configuration: the seed's text is taken, and what is not JSON is refused exactly."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import sys
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.config.loader import (
    MAX_DEPTH,
    MAX_TEXT,
    load_config,
    parse_config,
    prepare_config,
    read_config,
)
from tng.errors import ConfigError

SEED = """
            {
                "add_ingress": [
                    {
                        "http_proxy": {
                            "proxy_listen": {
                                "host": "127.0.0.1",
                                "port": 41000
                            }
                        },
                        "verify": {
                            "as_addr": "http://trustee.example.com/cai-test/as/",
                            "policy_ids": [
                                "default"
                            ]
                        }
                    }
                ]
            }
        """


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return caught.value.problems


def test_the_text_of_the_deployment_article_is_taken_as_it_stands() -> None:
    config = prepare_config(SEED)
    (ingress,) = config.add_ingress
    assert ingress.mode == "http_proxy"
    assert ingress.http_proxy is not None
    assert ingress.http_proxy.proxy_listen.port == 41000
    assert ingress.http_proxy.dst_filters == []
    (verify,) = ingress.verifiers
    assert verify.as_addr == "http://trustee.example.com/cai-test/as/"
    assert (verify.model, verify.as_provider, verify.as_type) == (
        "background_check",
        "coco",
        "restful",
    )
    assert verify.allow_simulated is False
    assert config.drain_timeout_secs == 10


def test_a_file_is_loaded_with_and_without_a_byte_order_mark(tmp_path: pathlib.Path) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        file = tmp_path / encoding
        file.write_text(SEED, encoding=encoding)
        assert len(load_config(file).add_ingress) == 1


def test_a_file_that_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_config(tmp_path / "nope.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(pathlib.Path("a\0b"))


def test_a_file_that_is_not_utf8_is_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "latin1.json"
    file.write_bytes(b'{"\xe9": 1}')
    with pytest.raises(ConfigError, match="expected UTF-8"):
        load_config(file)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "{",
            "configuration: not JSON: Expecting property name enclosed in double quotes "
            "at line 1 column 2",
        ),
        ("", "configuration: not JSON: Expecting value at line 1 column 1"),
        ("{}\n}", "configuration: not JSON: Extra data at line 2 column 1"),
        ("[]", "configuration: expected a JSON object"),
        ("null", "configuration: expected a JSON object"),
        ('{"drain_timeout_secs": NaN}', "configuration: not JSON: NaN is not a number"),
        ('{"drain_timeout_secs": -Infinity}', "configuration: not JSON: -Infinity is not a number"),
        ('{"a": ' + "9" * 5000 + "}", "configuration: not JSON: a number is too long"),
        (
            " " * (MAX_TEXT + 1),
            f"configuration: expected at most {MAX_TEXT} characters, got more",
        ),
        (
            "[" * (MAX_DEPTH + 1),
            f"configuration: expected at most {MAX_DEPTH} nested levels",
        ),
        (
            "{}",
            "add_ingress: nothing to do: give an entry in add_ingress or in add_egress",
        ),
        (
            '{"add_ingress": [], "add_egress": []}',
            "add_ingress: nothing to do: give an entry in add_ingress or in add_egress",
        ),
    ],
)
def test_a_text_that_is_no_configuration_gives_one_line(text: str, line: str) -> None:
    assert problems(text) == [line]


def test_brackets_and_quotes_inside_strings_do_not_count_as_nesting() -> None:
    text = json.dumps({"x": '[{"\\' * (MAX_DEPTH * 2)})
    assert problems(text)[0].startswith('configuration: unknown key "x"')


def test_an_open_string_of_the_greatest_length_is_refused_at_once() -> None:
    assert problems('"' + '\\"' * (MAX_TEXT // 2 - 1))[0].startswith("configuration: not JSON")


def test_a_key_that_stands_twice_is_an_error_with_its_path() -> None:
    text = SEED.replace('"port": 41000', '"port": 41000, "port": 41001')
    text = text.replace('"policy_ids"', '"as_addr": "http://other/", "policy_ids"')
    assert sorted(problems(text)) == [
        'add_ingress[0].http_proxy.proxy_listen: duplicate key "port": give it once',
        'add_ingress[0].verify: duplicate key "as_addr": give it once',
    ]


def test_a_duplicate_inside_a_value_that_is_itself_replaced_is_an_error_too() -> None:
    assert problems('{"a": {"b": 1, "b": 2}, "a": 1}') == [
        'configuration: duplicate key "a": give it once'
    ]


def test_all_problems_of_all_entries_are_reported_at_once() -> None:
    config = {
        "metrics": {},
        "add_ingress": [
            {"http_proxy": {"proxy_listen": {"port": "41999"}}, "no_ra": True},
            {"mapping": {"in": {"port": 1}, "out": {"host": "h", "port": 1}}},
        ],
        "add_egress": [
            {"mapping": {"in": {"port": 1}, "out": {"port": 1}}, "attest": {"as_address": 1}}
        ],
    }
    found = problems(json.dumps(config))
    port = "add_ingress[0].http_proxy.proxy_listen.port"
    assert f'{port}: expected an integer 1-65535, got the string "41999"' in found
    assert any(line.startswith("add_ingress[1]: at least one of 'attest'") for line in found)
    assert any(line.startswith("add_egress[0].mapping.out.host:") for line in found)
    assert any(line.startswith('add_egress[0].attest: unknown key "as_address"') for line in found)
    metrics = 'configuration: unknown key "metrics", did you mean "metric"?'
    assert any(line.startswith(metrics) for line in found)
    assert len(found) == 5


def test_what_a_later_version_has_is_parsed_but_not_prepared() -> None:
    text = json.dumps(
        {
            "trace": {"exporters": []},
            "add_ingress": [{"socks5": {"proxy_listen": {"port": 1080}}, "no_ra": True}],
        }
    )
    assert parse_config(text).add_ingress[0].mode == "socks5"
    with pytest.raises(ConfigError, match=r"^trace: not available in this"):
        prepare_config(text)


def test_a_secret_is_in_no_message_and_in_no_traceback() -> None:
    secret = "tell-nobody-4711"
    verify = {
        "as_addr": f"http://user:{secret}@h/",
        "policy_ids": ["default"],
        "as_headers": {"Authorization": f"Bearer {secret}\r\nX: y"},
        "api_key": [secret],
        "api_keys": secret,
    }
    socks = {
        "proxy_listen": {"port": 1},
        "auth": {"username": "u", "password": {"is": secret}},
    }
    text = json.dumps({"add_ingress": [{"socks5": socks, "verify": verify}]})
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert len(caught.value.problems) == 5
    assert secret not in "".join(traceback.format_exception(caught.value))
    assert "***" in str(caught.value)


KEYS = """
    add_ingress add_egress mapping rules in out host port port_end http_proxy proxy_listen
    dst_filters verify attest as_headers policy_ids ohttp key source no_ra metric exporters type
    capture_dst hook rats_tls direct_forward
"""
MODES = """
    mapping http_proxy socks5 netfilter netfilter_udp hook mapping_udp ohttp quic attest verify
"""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=8) | st.sampled_from(KEYS.split()),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(st.text(max_size=200))
def test_garbage_text_gives_a_config_error_only(text: str) -> None:
    assert problems(text)


@pytest.mark.slow
@given(JSON)
def test_garbage_json_gives_a_config_error_only(value: object) -> None:
    for line in problems(json.dumps(value)):
        assert line.isprintable()


@pytest.mark.slow
@given(JSON, st.sampled_from(["add_ingress", "add_egress"]))
def test_garbage_entries_give_a_config_error_only(value: object, where: str) -> None:
    for line in problems(json.dumps({where: [value]})):
        assert line.isprintable()


MODES = (
    "mapping http_proxy socks5 netfilter netfilter_udp hook mapping_udp ohttp quic attest verify"
)


@pytest.mark.slow
@given(JSON, st.sampled_from(MODES.split()))
def test_garbage_under_a_key_is_a_configuration_or_a_config_error(value: object, key: str) -> None:
    for where in ("add_ingress", "add_egress"):
        with contextlib.suppress(ConfigError):
            parse_config(json.dumps({where: [{key: value, "no_ra": True}]}))


def test_hundreds_of_problems_are_cut() -> None:
    entries = [{f"key{n}": 1 for n in range(10)} for _ in range(100)]
    found = problems(json.dumps({"add_ingress": entries}))
    assert len(found) == 51
    assert found[-1] == "configuration: and more problems like these"


def test_many_duplicates_are_cut() -> None:
    text = "[" + ",".join(['{"a":1,"a":1}'] * 500) + "]"
    assert len(problems(text)) == 50


@pytest.mark.slow
def test_loading_needs_neither_the_regex_engine_nor_the_network_stack() -> None:
    """What is slow to import is imported by those who need it: a launch starts fast."""
    code = (
        "import sys\nfrom tng.config.loader import prepare_config\n"
        f"prepare_config({SEED!r})\n"
        "print(sorted({'re2', 'httpx', 'trio', 'rich', 'OpenSSL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
