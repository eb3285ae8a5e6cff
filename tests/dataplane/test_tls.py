"""TLS ends: against each other, and against the standard library's ssl as an independent peer."""

from __future__ import annotations

import dataclasses
import datetime as dt
import gc
import hashlib
import socket
import ssl
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from tng.dataplane import tls_calls
from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.dataplane.task import Wait
from tng.dataplane.tls import TlsEnd
from tng.dataplane.tls_calls import FASTEST, PUBLIC, make_binding_calls, tls_failure, translate
from tng.dataplane.tls_context import (
    TlsCredential,
    client_context,
    make_native_tolerate,
    server_context,
)
from tng.errors import (
    LocalProtocolError,
    NetError,
    RemoteProtocolError,
    StartError,
    TngError,
)

BULK = bytes(range(256)) * 20_000


@pytest.fixture(params=[FASTEST, PUBLIC], ids=lambda calls: calls.name)
def calls(request):
    return request.param


async def pause(reactor, seconds=0.0):
    wait = Wait()
    reactor.call_later(seconds, wait.set, None)
    await wait


async def open_pair(reactor, pair, contexts, calls=FASTEST, server_name=None):
    """Two TLS ends of one connection, handshake done."""
    near, far = pair
    client = TlsEnd(
        reactor, near, contexts[0], server_side=False, server_name=server_name, calls=calls
    )
    server = TlsEnd(reactor, far, contexts[1], server_side=True, calls=calls)
    served = Wait()

    async def serve():
        try:
            await server.handshake(5)
        except TngError as error:
            server.close()
            served.fail(error)
        else:
            served.set(None)

    reactor.spawn(serve(), "serve")
    try:
        await client.handshake(5)
        await served
    except BaseException:
        client.close()
        server.close()
        raise
    return client, server


@pytest.fixture
def contexts(credential):
    return client_context([b"rats-tls"], None), server_context([b"rats-tls"], credential, False)


async def receive_all(end):
    chunks = []
    while chunk := await end.receive():
        chunks.append(chunk)
    return b"".join(chunks)


# --- handshake ---


def test_both_sides_see_the_certificate_and_the_protocol_of_the_other(
    reactor, run, sockets, credential, make_credential, calls
):
    mine = make_credential(10)
    contexts = (
        client_context([b"h2", b"rats-tls"], mine),
        server_context([b"rats-tls", b"h2"], credential, True),
    )

    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts, calls, "tng.internal")
        seen = client.alpn, server.alpn, client.peer_certificate, server.peer_certificate
        name = server._connection.get_servername()
        client.close()
        server.close()
        return seen, name

    (client_alpn, server_alpn, servers, clients), name = run(reactor, talk)
    assert client_alpn == server_alpn == b"rats-tls"  # our order decides
    assert servers == credential.certificate.public_bytes(Encoding.DER)
    assert clients == mine.certificate.public_bytes(Encoding.DER)
    assert name == b"tng.internal"


def test_an_address_is_not_asked_for_as_a_name(reactor, run, sockets, contexts):
    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts, server_name="192.0.2.1")
        name = server._connection.get_servername()
        client.close()
        server.close()
        return name

    assert run(reactor, talk) is None


@pytest.mark.parametrize("name", ["a" * 64, "a..b", "a\0b"])
def test_what_cannot_be_a_server_name_is_refused(reactor, run, sockets, contexts, name):
    near, _ = sockets()

    async def talk():
        TlsEnd(reactor, near, contexts[0], server_side=False, server_name=name)

    with pytest.raises(LocalProtocolError, match="cannot be a TLS server name"):
        run(reactor, talk)


def test_a_client_without_alpn_goes_on_without_protocol(reactor, run, sockets, credential):
    contexts = client_context([], None), server_context([b"h2"], credential, False)

    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts)
        seen = client.alpn, server.alpn, server.peer_certificate
        client.close()
        server.close()
        return seen

    assert run(reactor, talk) == (b"", b"", None)


def test_disjoint_protocols_end_in_alert_120(reactor, run, sockets, credential):
    contexts = client_context([b"serf"], None), server_context([b"h2"], credential, False)
    heard = []

    async def talk():
        near, far = sockets()
        client = TlsEnd(reactor, near, contexts[0], server_side=False)
        server = TlsEnd(reactor, far, contexts[1], server_side=True)

        async def serve():
            try:
                await server.handshake(5)
            except RemoteProtocolError as error:
                heard.append(str(error))
            server.close()

        reactor.spawn(serve(), "serve")
        try:
            await client.handshake(5)
        finally:
            client.close()

    with pytest.raises(RemoteProtocolError, match="sent TLS alert: no application protocol"):
        run(reactor, talk)
    assert "client offers ALPN [b'serf'], we speak [b'h2']" in heard[0]


def test_a_client_without_the_certificate_asked_for_is_refused(reactor, run, sockets, credential):
    """TLS 1.3: the client has finished before it learns so (RFC 8446 section 4.4.2.4)."""
    contexts = client_context([], None), server_context([], credential, True)
    heard = []

    async def talk():
        near, far = sockets()
        client = TlsEnd(reactor, near, contexts[0], server_side=False)
        server = TlsEnd(reactor, far, contexts[1], server_side=True)

        async def serve():
            try:
                await server.handshake(5)
            except RemoteProtocolError as error:
                heard.append(str(error))
            server.close()

        reactor.spawn(serve(), "serve")
        try:
            await client.handshake(5)
            await client.receive()
        finally:
            client.close()

    with pytest.raises(RemoteProtocolError, match="sent TLS alert: certificate required"):
        run(reactor, talk)
    assert "peer did not return a certificate" in heard[0]


def test_a_certificate_list_over_100_kib_is_named(reactor, run, sockets, make_credential):
    contexts = client_context([], None), server_context([], make_credential(110_000), False)
    with pytest.raises(RemoteProtocolError, match="over 100 KiB"):
        run(reactor, open_pair, reactor, sockets(), contexts)


def test_a_large_client_certificate_below_that_is_fine(
    reactor, run, sockets, credential, make_credential
):
    contexts = client_context([], make_credential(90_000)), server_context([], credential, True)

    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts)
        size = len(server.peer_certificate)
        client.close()
        server.close()
        return size

    assert run(reactor, talk) > 90_000


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 20, b"SSH-2.0-x\r\n"])
def test_octets_that_are_not_tls_are_called_so(reactor, run, sockets, contexts, octets):
    near, far = sockets()
    far.sendall(octets)

    async def talk(server_side):
        end = TlsEnd(reactor, near, contexts[server_side], server_side=bool(server_side))
        try:
            await end.handshake(5)
        finally:
            end.close()

    with pytest.raises(RemoteProtocolError, match=r"not TLS|failed|alert"):
        run(reactor, talk, octets[0] % 2)


def test_http_at_the_tls_port_and_at_the_servers_side_are_not_tls(reactor, run, sockets, contexts):
    async def talk(sock, server_side):
        end = TlsEnd(reactor, sock, contexts[server_side], server_side=bool(server_side))
        try:
            await end.handshake(5)
        finally:
            end.close()

    for server_side, octets in ((1, b"GET / HTTP/1.1\r\n\r\n"), (0, b"HTTP/1.1 400 Bad\r\n\r\n")):
        near, far = sockets()
        far.sendall(octets)
        with pytest.raises(RemoteProtocolError, match="not TLS"):
            run(reactor, talk, near, server_side)


def test_a_silent_peer_ends_the_handshake_after_the_time_limit(reactor, run, sockets, contexts):
    near, _ = sockets()

    async def talk():
        end = TlsEnd(reactor, near, contexts[0], server_side=False)
        try:
            await end.handshake(0.02)
        finally:
            end.abort()

    with pytest.raises(NetError, match=r"not finished in 0.02 s"):
        run(reactor, talk)


def test_a_peer_that_hangs_up_in_the_handshake_is_a_net_error(reactor, run, sockets, contexts):
    async def talk(near, far, reset):
        end = TlsEnd(reactor, near, contexts[0], server_side=False)
        other = PlainEnd(reactor, far)
        if reset:
            other.abort()
        else:
            other.shut()
        try:
            await end.handshake(5)
        finally:
            end.close()
            other.close()

    with pytest.raises(NetError, match="closed the connection during the TLS handshake"):
        run(reactor, talk, *sockets(), False)
    with pytest.raises(NetError, match=r"Connection reset|Broken pipe"):
        run(reactor, talk, *sockets(), True)


def test_an_end_closed_during_its_handshake_says_so(reactor, run, sockets, contexts):
    near, _ = sockets()

    async def talk():
        end = TlsEnd(reactor, near, contexts[0], server_side=False)
        reactor.call_later(0.01, end.close)
        await end.handshake(5)

    with pytest.raises(NetError, match="closed on our side"):
        run(reactor, talk)


# --- data ---


def test_bulk_goes_both_ways_at_once_and_half_close_leaves_the_other_way_open(
    reactor, run, sockets, contexts, calls
):
    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts, calls)
        echoed = Wait()

        async def echo():
            got = await receive_all(server)
            await server.send(got)
            await server.send(b"late")
            server.shut()
            echoed.set(got)

        reactor.spawn(echo(), "echo")
        await client.send(BULK)
        client.shut()
        client.shut()
        with pytest.raises(NetError, match="ended already"):
            client.write(memoryview(b"x"))
        back = await receive_all(client)
        assert await client.receive() == b""
        there = await echoed
        counted = client.bytes_out, client.bytes_in, server.bytes_in
        client.close()
        server.close()
        return there == BULK, back == BULK + b"late", counted

    size = len(BULK)
    assert run(reactor, talk) == (True, True, (size, size + 4, size))


@given(st.lists(st.integers(1, 70_000), min_size=1, max_size=6), st.integers(1, 40_000))
def test_any_sizes_of_writes_and_reads_give_the_same_octets(sizes, read_size):
    reactor, contexts = shared_reactor()

    async def talk(pair):
        client, server = await open_pair(reactor, pair, contexts)
        data = BULK[: sum(sizes)]

        async def write():
            rest = data
            for size in sizes:
                await client.send(rest[:size])
                rest = rest[size:]
            client.close()

        reactor.spawn(write(), "write")
        got = []
        while chunk := await server.receive(read_size):
            assert len(chunk) <= read_size
            got.append(chunk)
        server.close()
        return b"".join(got) == data

    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    assert reactor.spawn_threadsafe(talk((near, far)), "talk").result(10)


_shared: list[tuple[Reactor, tuple[SSL.Context, SSL.Context]]] = []


def shared_reactor():
    return _shared[0]


@pytest.fixture(autouse=True, scope="module")
def _shared_reactor(credential):
    reactor = Reactor()
    reactor.start()
    _shared.append((reactor, (client_context([], None), server_context([], credential, False))))
    yield
    reactor.stop(5)


def test_closing_says_close_notify_and_a_mere_fin_is_a_truncation(
    reactor, run, sockets, contexts, calls
):
    async def talk(how):
        client, server = await open_pair(reactor, sockets(), contexts, calls)
        await client.send(b"last words")
        if how == "fin":
            client._sock.shutdown(socket.SHUT_WR)
        else:
            getattr(client, how)()
        try:
            got = await receive_all(server)
        finally:
            server.close()
            client.abort()
        return got

    assert run(reactor, talk, "close") == b"last words"
    with pytest.raises(RemoteProtocolError, match="without close_notify"):
        run(reactor, talk, "fin")
    with pytest.raises(NetError, match="Connection reset"):
        run(reactor, talk, "abort")


def test_a_forged_record_is_an_error_and_stays_one(reactor, run, sockets, contexts, calls):
    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts, calls)
        client._sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        for _ in range(2):
            with pytest.raises(RemoteProtocolError, match="bad record mac"):
                await server.receive()
        server.close()
        client.abort()

    run(reactor, talk)


@pytest.mark.parametrize("name", ["read_into", "write"])
def test_an_error_caught_in_a_reference_cycle_can_be_collected(sockets, contexts, name):
    """No address of a buffer may be in its traceback: see the theory of operation."""
    near, _ = sockets()

    def fail(handle, result, label):
        raise ZeroDivisionError

    calls = dataclasses.replace(FASTEST, read=lambda *_: -1, write=lambda *_: -1, outcome=fail)
    reactor = Reactor()
    octets = TlsEnd(reactor, near, contexts[0], server_side=False, calls=calls)

    def make_garbage():
        try:
            getattr(octets, name)(memoryview(bytearray(100))[:50])
        except ZeroDivisionError as error:
            error.cycle = error

    gc.collect()
    make_garbage()
    assert gc.collect() > 0
    reactor.stop(5)


def test_octets_before_the_end_are_delivered_before_it(reactor, run, sockets, contexts, calls):
    """A full record and close_notify in one flight: one read sees both."""

    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts, calls)
        await client.send(bytes(16384))
        client.close()
        await pause(reactor, 0.02)
        first = server.read_into(reactor.scratch)
        fired = Wait()
        server.on_readable = lambda: fired.set(server.read_into(reactor.scratch))
        server.watch(True, False)
        second = await fired
        server.watch(False, False)
        third = server.read_into(reactor.scratch)
        server.close()
        return first, second, third

    assert run(reactor, talk) == (16384, 0, 0)


def test_what_is_left_inside_openssl_is_announced_again(reactor, run, sockets, contexts, calls):
    """A reader with a small buffer gets the whole record without another packet."""

    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts, calls)
        await client.send(b"0123456789")
        got = []
        whole = Wait()
        buffer = memoryview(bytearray(3))

        def take():
            if (count := server.read_into(buffer)) > 0:
                got.append(bytes(buffer[:count]))
            if sum(map(len, got)) == 10:
                whole.set(None)

        server.on_readable = take
        server.watch(True, False)
        await whole
        server.unread(b"back")
        server.on_readable = None
        assert await server.receive() == b"back"
        client.close()
        server.close()
        return got

    assert run(reactor, talk) == [b"012", b"345", b"678", b"9"]


def test_a_blocked_write_counts_one_record_and_survives_different_data(
    reactor, run, sockets, contexts, calls
):
    """What was taken arrives once and in order, though the writer went on with other octets."""

    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts, calls)
        sent = bytearray()
        letters = b"abcdefghij"
        index = 0
        while True:
            data = letters[index % 10 : index % 10 + 1] * (40_000 + index)
            taken = client.write(memoryview(data))
            sent += data[:taken]
            index += 1
            if taken < len(data):
                break
        assert client._held
        assert client.write(memoryview(b"refused")) == 0
        collected = Wait()

        async def collect():
            collected.set(await receive_all(server))

        reactor.spawn(collect(), "collect")
        await client.wait_writable()
        await client.send(b"the end")
        client.shut()
        got = await collected
        client.close()
        server.close()
        return got == bytes(sent) + b"the end"

    assert run(reactor, talk)


def test_closing_with_a_full_socket_still_delivers_everything(reactor, run, sockets, contexts):
    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts)
        taken = 0
        while (count := client.write(memoryview(BULK)[:100_000])) == 100_000:
            taken += count
        taken += count
        assert client._held
        client.close()
        client.close()
        client.abort()
        assert reactor.at_stop
        with pytest.raises(NetError):
            client.read_into(reactor.scratch)
        with pytest.raises(NetError):
            client.write(memoryview(b"x"))
        got = await receive_all(server)
        server.close()
        await pause(reactor, 0.02)
        assert not reactor.at_stop
        return len(got) == taken

    assert run(reactor, talk)


@pytest.mark.parametrize("how", ["time", "reset", "stop"])
def test_a_closed_end_does_not_wait_for_ever_for_its_peer(
    reactor, run, sockets, contexts, how, monkeypatch
):
    monkeypatch.setattr("tng.dataplane.socket_end.LINGER_S", 0.05 if how == "time" else 60)

    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts)
        while client.write(memoryview(BULK)[:100_000]) == 100_000:
            pass
        client.close()
        if how == "reset":
            server.abort()
        if how != "stop":
            await pause(reactor, 0.15)
            assert client._sock.fileno() == -1
            assert not reactor.at_stop
        server.close()
        return client

    client = run(reactor, talk)
    reactor.stop(5)
    assert client._sock.fileno() == -1


def test_a_write_that_failed_in_the_background_is_told_to_the_next_writer(
    reactor, run, sockets, contexts
):
    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts)
        while client.write(memoryview(BULK)[:100_000]) == 100_000:
            pass
        server.abort()
        await pause(reactor, 0.02)
        with pytest.raises(NetError, match=r"broke: (Connection reset|Broken pipe)"):
            await client.send(b"x")
        client.close()

    run(reactor, talk)


def test_nobody_reading_costs_nothing_also_with_octets_inside(reactor, run, sockets, contexts):
    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts)
        await client.send(b"0123456789")
        assert await server.receive(3) == b"012"
        client.close()
        server.watch(True, False)
        before = time.thread_time()
        await pause(reactor, 0.1)
        spent = time.thread_time() - before
        assert await receive_all(server) == b"3456789"
        server.close()
        return spent

    assert run(reactor, talk) < 0.03


# --- an independent implementation as the peer ---


@pytest.fixture
def peer_files(credential, tmp_path):
    certificate = tmp_path / "certificate.pem"
    key = tmp_path / "key.pem"
    certificate.write_bytes(credential.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


def stdlib_client():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def echo_once(reactor, sock, context):
    end = TlsEnd(reactor, sock, context, server_side=True)
    try:
        await end.handshake(5)
        await end.send(await receive_all(end))
    finally:
        end.close()


def test_a_stdlib_client_gets_its_octets_back_and_cannot_resume(
    reactor, run, sockets, contexts, peer_files
):
    context = stdlib_client()
    session = None
    for _ in range(2):
        near, far = sockets()
        future = reactor.spawn_threadsafe(echo_once(reactor, far, contexts[1]), "echo")
        # The certificate's unknown critical extension is judged by neither side here.
        with context.wrap_socket(near, session=session) as peer:
            assert peer.version() == "TLSv1.3"
            assert not peer.session_reused
            sender = threading.Thread(target=peer.sendall, args=(BULK[:1_000_000],))
            sender.start()
            sender.join()
            session = peer.session
        with pytest.raises((RemoteProtocolError, NetError)):
            future.result(5)


def test_a_stdlib_server_sees_our_close_notify(reactor, run, sockets, contexts, peer_files):
    near, far = sockets()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*peer_files)
    context.set_alpn_protocols(["rats-tls"])
    got = hashlib.sha256()
    suppressed = []

    def serve():
        with context.wrap_socket(far, server_side=True, suppress_ragged_eofs=False) as peer:
            suppressed.append(peer.cipher()[0])
            while chunk := peer.recv(65536):
                got.update(chunk)

    thread = threading.Thread(target=serve)
    thread.start()

    async def talk():
        end = TlsEnd(reactor, near, contexts[0], server_side=False)
        await end.handshake(5)
        alpn = end.alpn
        await end.send(BULK)
        end.close()
        return alpn

    assert run(reactor, talk) == b"rats-tls"
    thread.join(5)
    assert got.digest() == hashlib.sha256(BULK).digest()


def test_a_tls_1_2_client_and_server_are_refused(reactor, run, sockets, contexts, peer_files):
    near, far = sockets()
    context = stdlib_client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    future = reactor.spawn_threadsafe(echo_once(reactor, far, contexts[1]), "echo")
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        context.wrap_socket(near)
    with pytest.raises(RemoteProtocolError, match="unsupported protocol"):
        future.result(5)

    near, far = sockets()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*peer_files)

    def serve():
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(far, server_side=True)

    thread = threading.Thread(target=serve)
    thread.start()

    async def talk():
        end = TlsEnd(reactor, near, contexts[0], server_side=False)
        try:
            await end.handshake(5)
        finally:
            end.close()

    with pytest.raises(RemoteProtocolError, match="alert: protocol version"):
        run(reactor, talk)
    thread.join(5)


# --- contexts and errors by themselves ---


def test_a_key_of_another_certificate_is_refused(credential, make_credential):
    with pytest.raises(StartError, match="refuses our TLS key"):
        client_context([], TlsCredential(make_credential(0).key, credential.certificate))
    assert "key" not in repr(credential).replace("TlsCredential", "")


def test_groups_are_left_alone_or_refused_when_openssl_cannot_set_them(monkeypatch):
    monkeypatch.setattr("tng.dataplane.tls_context.GROUP_LISTS", (b"NOSUCH",))
    with pytest.raises(StartError, match="none of the key exchange groups"):
        client_context([], None)


def test_a_differently_built_binding_is_noticed(monkeypatch):
    assert make_binding_calls() is not None
    monkeypatch.setattr(SSL, "_ffi", None)
    assert make_binding_calls() is None


def test_a_connection_without_the_expected_pointer_is_noticed(monkeypatch):
    class Other(SSL.Connection):
        def __init__(self, *args):
            super().__init__(*args)
            self._ssl = 7

    monkeypatch.setattr(SSL, "Connection", Other)
    assert make_binding_calls() is None


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (SSL.ZeroReturnError(), RemoteProtocolError, "close_notify"),
        (SSL.SysCallError(104, "ECONNRESET"), NetError, "Connection reset by peer"),
        (SSL.SysCallError(-1, "Unexpected EOF"), RemoteProtocolError, "truncated"),
        (SSL.Error([("SSL", "", "wrong version number")]), RemoteProtocolError, "not TLS"),
        (SSL.Error([("SSL", "", "tlsv13 alert certificate required")]), RemoteProtocolError,
         "alert: certificate required"),
        (SSL.Error([]), RemoteProtocolError, "no reason given"),
        (SSL.Error(), RemoteProtocolError, "no reason given"),
    ],
)  # fmt: skip
def test_every_error_of_openssl_becomes_one_of_ours(error, kind, text):
    made = translate("peer", error)
    assert type(made) is kind
    assert text in str(made)


@given(st.text())
def test_any_reason_gives_an_error_that_names_the_peer(reasons):
    assert "the peer" in str(tls_failure("the peer", reasons))


class ScriptedLibrary:
    """Calls whose outcomes are given beforehand: states that a real peer hardly brings about."""

    def __init__(self, outcomes):
        self.outcomes = list(outcomes)

    def calls(self):
        def step(handle, at, size):
            outcome = self.outcomes.pop(0) if self.outcomes else tls_calls.WANT_READ
            return min(outcome, size)

        return tls_calls.Calls(
            name="scripted",
            handle_of=lambda connection: connection,
            handshake=lambda connection, label: tls_calls.ESTABLISHED,
            pointer=lambda buffer: PUBLIC.pointer(buffer),
            read=step,
            write=step,
            pending=lambda handle: 0,
            outcome=lambda handle, result, label: result,
        )


def test_a_read_that_waits_for_room_to_write_goes_on_when_there_is(reactor, run, sockets, contexts):
    """Answering a KeyUpdate needs room to write (RFC 8446 section 4.6.3)."""

    async def talk():
        near, _ = sockets()
        script = ScriptedLibrary([5, tls_calls.WANT_WRITE, 7])
        end = TlsEnd(reactor, near, contexts[0], server_side=False, calls=script.calls())
        sizes = [len(await end.receive()), len(await end.receive())]
        with pytest.raises(NetError), reactor.deadline(0.02, lambda: NetError("quiet")):
            await end.receive()
        script.outcomes += [16384, tls_calls.WANT_WRITE]
        assert end.read_into(reactor.scratch) == 16384
        assert end._has_more
        end.abort()
        return sizes

    assert run(reactor, talk) == [5, 7]


def test_two_tickets_in_front_of_the_octets_cost_one_event(reactor, run, sockets, contexts):
    """Servers send two; more take turns with the others."""

    async def talk():
        near, _ = sockets()
        script = ScriptedLibrary([tls_calls.WANT_READ, tls_calls.WANT_READ, 5])
        end = TlsEnd(reactor, near, contexts[0], server_side=False, calls=script.calls())
        sizes = []
        end.on_readable = lambda: sizes.append("read")
        end.on_octets = lambda data: sizes.append(len(data)) or len(data)
        end.watch(True, False)
        end._on_event(1)
        left = len(script.outcomes)
        end._on_event(1)
        end.on_readable = None
        end.abort()
        return left, sizes

    assert run(reactor, talk) == (1, [5])


def test_records_are_handed_out_and_all_else_is_left_to_whoever_reads(
    reactor, run, sockets, contexts, calls
):
    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts, calls)
        taken, told = bytearray(), []

        def take(data):
            taken.extend(data[:20_000])
            return min(20_000, len(data))

        def read():
            count = server.read_into(reactor.scratch)
            told.append(bytes(reactor.scratch[:count]))
            if count == 0:
                server.watch(False, False)

        server.on_octets, server.on_readable = take, read
        server.watch(True, False)
        await client.send(b"short")
        await pause(reactor, 0.02)
        await client.send(bytes(range(256)) * 100)
        await pause(reactor, 0.02)
        client.close()
        await pause(reactor, 0.02)
        server.close()
        return bytes(taken) + b"".join(told), len(taken), told[-1]

    octets, count, last = run(reactor, talk)
    assert octets == b"short" + bytes(range(256)) * 100
    assert count <= 20_005
    assert last == b""


def test_a_forged_record_found_while_handing_out_is_left_to_whoever_reads(
    reactor, run, sockets, contexts, calls
):
    async def talk():
        client, server = await open_pair(reactor, sockets(), contexts, calls)
        told = []

        def read():
            try:
                server.read_into(reactor.scratch)
            except RemoteProtocolError as error:
                told.append(str(error))
                server.watch(False, False)

        server.on_octets, server.on_readable = len, read
        server.watch(True, False)
        client._sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        await pause(reactor, 0.02)
        server.abort()
        client.abort()
        return told

    [reason] = run(reactor, talk)
    assert "bad record mac" in reason


def test_a_write_that_waits_for_something_to_read_goes_on_when_there_is(
    reactor, run, sockets, contexts
):
    async def talk():
        near, far = sockets()
        script = ScriptedLibrary([tls_calls.WANT_READ])
        end = TlsEnd(reactor, near, contexts[0], server_side=False, calls=script.calls())
        assert end.write(memoryview(b"12345")) == 5
        assert end._held == b"12345"
        script.outcomes.append(5)
        far.send(b"!")
        await end.wait_writable()
        assert not end._held
        script.outcomes.append(tls_calls.ENDED)
        with pytest.raises(NetError, match="takes no more"):
            end.write(memoryview(b"x"))
        end.abort()

    run(reactor, talk)


def test_the_certificate_of_the_tests_is_what_they_say(credential):
    [extension] = credential.certificate.extensions
    assert extension.critical
    assert isinstance(extension.value, x509.UnrecognizedExtension)


# --- what the handshake itself refuses in a certificate, asked for in both ways ---


@pytest.fixture(params=["binding", "pyOpenSSL"])
def way_of_asking(request, monkeypatch):
    if request.param == "pyOpenSSL":
        monkeypatch.setattr("tng.dataplane.tls_context._NATIVE_TOLERATE", None)


def self_signed(purpose, days):
    """A credential for one purpose, valid for some days from now on or up to now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
    now = dt.datetime.now(dt.UTC)
    begin, end = sorted((now, now + dt.timedelta(days=days)))
    builder = x509.CertificateBuilder(name, name, key.public_key(), 5, begin, end)
    usage = x509.ExtendedKeyUsage([purpose])
    return TlsCredential(key, builder.add_extension(usage, False).sign(key, hashes.SHA256()))


@pytest.mark.usefixtures("way_of_asking")
@pytest.mark.parametrize("days", [-9, 9])
def test_a_self_signed_certificate_is_left_to_the_judge_expired_or_not(
    reactor, run, sockets, calls, days
):
    server, client = (
        self_signed(ExtendedKeyUsageOID.SERVER_AUTH, days),
        self_signed(ExtendedKeyUsageOID.CLIENT_AUTH, days),
    )

    async def talk():
        contexts = client_context([], client), server_context([], server, True)
        ends = await open_pair(reactor, sockets(), contexts, calls)
        seen = [end.peer_certificate for end in ends]
        for end in ends:
            end.close()
            with pytest.raises(NetError, match="closed"):
                _ = end.peer_certificate
        return seen

    shown = [one.certificate.public_bytes(Encoding.DER) for one in (server, client)]
    assert run(reactor, talk) == shown


@pytest.mark.usefixtures("way_of_asking")
@pytest.mark.parametrize("at_fault", ["server", "client"])
def test_a_certificate_for_another_purpose_is_refused_in_the_handshake(
    reactor, run, sockets, calls, at_fault
):
    for_server, for_client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
    server = self_signed(for_client if at_fault == "server" else for_server, 9)
    client = self_signed(for_server if at_fault == "client" else for_client, 9)

    async def talk():
        contexts = client_context([], client), server_context([], server, True)
        await open_pair(reactor, sockets(), contexts, calls)

    with pytest.raises(RemoteProtocolError, match=r"certificate verify failed|unsupported cert"):
        run(reactor, talk)


def test_the_certificate_is_not_known_before_the_handshake(reactor, run, sockets, contexts):
    async def talk():
        end = TlsEnd(reactor, sockets()[0], contexts[0], server_side=False)
        try:
            return end.peer_certificate
        finally:
            end.abort()

    with pytest.raises(NetError, match="not finished"):
        run(reactor, talk)


def test_a_binding_that_cannot_ask_about_certificates_is_noticed(monkeypatch):
    assert make_native_tolerate() is not None
    monkeypatch.setattr(SSL, "_lib", None)
    assert make_native_tolerate() is None


def test_a_connection_without_the_expected_errors_is_noticed(monkeypatch):
    monkeypatch.delattr(SSL.Connection, "_raise_ssl_error")
    assert make_binding_calls() is None


def test_a_handshake_that_failed_without_an_error_is_not_finished(monkeypatch, sockets, contexts):
    monkeypatch.setattr(SSL.Connection, "_raise_ssl_error", lambda *_: None)
    near, far = sockets()
    near.settimeout(None)
    connection = SSL.Connection(contexts[0], near)
    connection.set_connect_state()
    far.sendall(b"no TLS" * 10)
    calls = make_binding_calls()
    with pytest.raises(RemoteProtocolError, match="the handshake stopped"):
        calls.handshake(connection, "peer")
    SSL._lib.ERR_clear_error()
