"""What the forward proxy reads out of requests and lets travel on."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.endpoint import Endpoint
from tng.errors import RequestRejectedError
from tng.wire.http1 import (
    Forward,
    connect_destination,
    forward_request,
    forward_response,
    match_plain_connect,
)


def parse(head: bytes) -> h11.Request:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    return event


def forward(*lines: bytes) -> Forward:
    return forward_request(parse(b"\r\n".join(lines) + b"\r\n\r\n"))


def names(result: Forward) -> set[bytes]:
    return {name for name, _ in result.request.headers}


class TestPlainConnect:
    def test_the_usual_shape_is_read_at_once(self) -> None:
        head = b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"
        found = match_plain_connect(head + b"payload")
        assert found is not None
        assert found.destination == Endpoint("example.org", 443)
        assert found.length == len(head)

    @pytest.mark.parametrize(
        "head",
        [
            b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n",  # not complete
            b"CONNECT example.org:0 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"CONNECT example.org:65536 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"CONNECT example.org HTTP/1.1\r\nHost: x\r\n\r\n",
            b"CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"CONNECT example.org:443 HTTP/1.1\nHost: x\n\n",
            b"CONNECT example.org:443 HTTP/1.1\r\nHost : x\r\n\r\n",
            b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
            b"CONNECT example.org:443 HTTP/1.1\r\nX: a\x00b\r\n\r\n",
            b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
            b"GET http://example.org/ HTTP/1.1\r\nHost: x\r\n\r\n",
            b"",
        ],
    )
    def test_any_other_shape_is_left_to_the_full_parser(self, head: bytes) -> None:
        assert match_plain_connect(head) is None

    @given(st.binary(max_size=400))
    def test_garbage_is_no_connect(self, data: bytes) -> None:
        assert match_plain_connect(b"CONNECT " + data) is None or b":" in data

    def test_what_it_reads_the_full_parser_reads_alike(self) -> None:
        head = b"CONNECT a.b-c.d:8080 HTTP/1.1\r\nHost: a\r\nProxy-Connection: keep-alive\r\n\r\n"
        found = match_plain_connect(head)
        assert found is not None
        assert connect_destination(parse(head).target) == found.destination


class TestConnect:
    @pytest.mark.parametrize(
        ("target", "destination"),
        [
            (b"example.org:443", Endpoint("example.org", 443)),
            (b"example.org", Endpoint("example.org", 80)),
            (b"127.0.0.1:1", Endpoint("127.0.0.1", 1)),
            (b"[::1]:8080", Endpoint("::1", 8080)),
        ],
    )
    def test_the_target_is_an_authority(self, target: bytes, destination: Endpoint) -> None:
        assert connect_destination(target) == (destination)

    @pytest.mark.parametrize(
        "target", [b"/", b"example.org:x", b"a:0", b"a:70000", b"[::1", b"u@h:80", b":80"]
    )
    def test_what_is_no_authority_is_refused(self, target: bytes) -> None:
        with pytest.raises(RequestRejectedError, match="no authority"):
            connect_destination(target)


class TestDestination:
    @pytest.mark.parametrize(
        ("target", "destination", "origin"),
        [
            (b"http://a/x?y#z", Endpoint("a", 80), b"/x?y"),
            (b"http://a", Endpoint("a", 80), b"/"),
            (b"http://a?q=/", Endpoint("a", 80), b"/?q=/"),
            (b"HTTP://a:8080/", Endpoint("a", 8080), b"/"),
            (b"https://a/", Endpoint("a", 443), b"/"),
            (b"http://[::1]:8080/p", Endpoint("::1", 8080), b"/p"),
        ],
    )
    def test_an_absolute_form_goes_where_its_uri_says(
        self, target: bytes, destination: Endpoint, origin: bytes
    ) -> None:
        result = forward(b"GET %s HTTP/1.1" % target, b"Host: elsewhere.example")
        assert result.destination == destination
        assert result.request.target == origin
        assert b"elsewhere.example" not in dict(result.request.headers)[b"host"]

    def test_an_origin_form_goes_where_host_says(self) -> None:
        result = forward(b"GET /p HTTP/1.1", b"Host: a:8080")
        assert result.destination == Endpoint("a", 8080)
        assert result.request.target == b"/p"

    @pytest.mark.parametrize(
        ("line", "host", "status", "words"),
        [
            (b"GET ftp://a/ HTTP/1.1", b"a", 501, "only http and https"),
            (b"GET a/b HTTP/1.1", b"a", 400, "neither a path nor a URI"),
            (b"GET http:///x HTTP/1.1", b"a", 400, "no valid host"),
            (b"GET http://u:p@a/ HTTP/1.1", b"a", 400, "user information"),
            (b"GET http://a:0/ HTTP/1.1", b"a", 400, "no valid host"),
            (b"GET / HTTP/1.1", b"", 400, "not a valid host"),
            (b"GET / HTTP/1.1", b"a b", 400, "not a valid host"),
            (b"GET / HTTP/1.0", None, 400, "No 'HOST' header"),
            (b"PRI * HTTP/2.0", b"a", 505, "HTTP/1.0 and HTTP/1.1"),
        ],
    )
    def test_without_a_destination_it_is_refused(
        self, line: bytes, host: bytes | None, status: int, words: str
    ) -> None:
        lines = [line] if host is None else [line, b"Host: " + host]
        with pytest.raises(RequestRejectedError, match=words) as caught:
            forward(*lines)
        assert caught.value.http_status == status

    def test_a_loop_is_refused(self) -> None:
        result = forward(b"GET http://a/ HTTP/1.1", b"Host: a")
        assert (b"x-tng-http-forward", b"true") in list(result.request.headers)
        with pytest.raises(RequestRejectedError, match="recursion is detected"):
            forward(b"GET http://a/ HTTP/1.1", b"Host: a", b"X-TNG-HTTP-Forward: no")


class TestFields:
    def test_fields_for_this_hop_do_not_travel(self) -> None:
        result = forward(
            b"GET http://a/ HTTP/1.1",
            b"Host: a",
            b"Proxy-Authorization: Basic c2VjcmV0",
            b"Proxy-Connection: keep-alive",
            b"Connection: keep-alive, X-Private",
            b"Keep-Alive: 300",
            b"X-Private: 1",
            b"TE: gzip",
            b"Upgrade: h2c",
        )
        assert names(result) == {b"host", b"x-tng-http-forward"}

    def test_fields_for_the_service_do(self) -> None:
        result = forward(
            b"POST http://a/ HTTP/1.1",
            b"Host: a",
            b"Authorization: Bearer key",
            b"Content-Length: 3",
            b"X-Twice: 1",
            b"x-twice: 2",
        )
        assert {b"authorization", b"content-length"} <= names(result)
        assert [v for n, v in result.request.headers if n == b"x-twice"] == [b"1", b"2"]

    def test_a_length_beside_a_chunked_body_is_dropped(self) -> None:
        result = forward(
            b"POST http://a/ HTTP/1.1",
            b"Host: a",
            b"Content-Length: 3",
            b"Transfer-Encoding: chunked",
        )
        assert b"content-length" not in names(result)
        assert b"transfer-encoding" in names(result)

    def test_an_upgrade_keeps_its_two_fields(self) -> None:
        result = forward(
            b"GET http://a/ HTTP/1.1",
            b"Host: a",
            b"Connection: Upgrade, X-Private",
            b"Upgrade: websocket",
            b"X-Private: 1",
        )
        assert result.upgrades
        assert dict(result.request.headers)[b"upgrade"] == b"websocket"
        assert dict(result.request.headers)[b"connection"] == b"upgrade"
        assert b"x-private" not in names(result)

    def test_an_upgrade_field_alone_upgrades_nothing(self) -> None:
        result = forward(b"GET http://a/ HTTP/1.1", b"Host: a", b"Upgrade: websocket")
        assert not result.upgrades
        assert b"upgrade" not in names(result)

    def test_response_fields_keep_order_and_repetition(self) -> None:
        response = h11.Response(
            status_code=200,
            headers=[("Set-Cookie", "a"), ("Connection", "close"), ("Set-Cookie", "b")],
        )
        assert forward_response(response.headers, switching=False) == [
            (b"Set-Cookie", b"a"),
            (b"Set-Cookie", b"b"),
        ]

    def test_a_switching_response_keeps_upgrade(self) -> None:
        response = h11.InformationalResponse(
            status_code=101, headers=[("Upgrade", "websocket"), ("Connection", "upgrade")]
        )
        assert dict(forward_response(response.headers, switching=True))[b"Upgrade"] == b"websocket"
        assert forward_response(response.headers, switching=False) == []


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_garbage_targets_and_hosts_are_refused_or_routed(target: bytes, host: bytes) -> None:
    try:
        request = parse(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    except (h11.RemoteProtocolError, AssertionError):
        return
    try:
        port = forward_request(request).destination.port
    except RequestRejectedError as error:
        port = error.http_status
    assert 1 <= port <= 65535
