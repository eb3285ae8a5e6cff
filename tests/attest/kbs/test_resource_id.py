from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.kbs.key_text import without_newline
from tng.attest.kbs.resource_id import ResourceId, parse_resource_path, parse_resource_uri


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "kbs:///default/aliyun/model-decryption-key",
            ("default", "aliyun", "model-decryption-key"),
        ),
        ("kbs:///_a/-b/c.d..e", ("_a", "-b", "c.d..e")),
        (f"kbs:///a/b/{'c' * 64}", ("a", "b", "c" * 64)),
    ],
)
def test_a_name_is_read_and_written(text, expected):
    resource = parse_resource_uri(text)
    assert (resource.repository, resource.kind, resource.tag) == expected
    assert str(resource) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kbs://host/a/b/c",
        "kbs:///a/b",
        "kbs:///a/b/c/d",
        "kbs:///a//c",
        "kbs:///a/b/..",
        "kbs:///../b/c",
        "kbs:///a/b/.c",
        "kbs:///a/b/c?x=1",
        "kbs:///a/b/c\n",
        "kbs:///a/b/é",
        "kbs:///a/b/c%2e",
        "kbs:///a/b/c,d",
        f"kbs:///a/b/{'c' * 65}",
        "http:///a/b/c",
        "KBS:///a/b/c",
    ],
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        parse_resource_uri(text)


@given(st.text(max_size=40))
def test_any_text_is_a_name_of_three_plain_file_names_or_an_error(text):
    try:
        resource = parse_resource_path(text)
    except ValueError:
        return
    assert isinstance(resource, ResourceId)
    assert resource.path == text
    for segment in text.split("/"):
        assert segment.isascii()
        assert not segment.startswith(".")


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (b"alibaba@1688\n", b"alibaba@1688"),
        (b"k", b"k"),
        (b"k\n\n", b"k\n"),
        (b"\n", b""),
        (b"k\r", b"k\r"),
    ],
)
def test_one_newline_at_the_end_is_no_part_of_a_key(data, key):
    assert without_newline(data) == key
