"""A service behind the egress that does what its client's first line says; a process of its own.

    SINK            reads nothing, for as long as the connection lives
    SWALLOW         reads to the end, answers the count of octets and their SHA-256
    FLOOD n         sends n octets as fast as they are taken
    TOKENS n gap    sends n messages of 20 octets, `gap` seconds apart: the monotonic clock's time
    ECHO            sends back what it reads

`python service.py PORT` listens on loopback; standard library only.
"""

from __future__ import annotations

import hashlib
import socket
import sys
import threading
import time

BLOCK = bytes(range(256)) * 1024


def serve(sock: socket.socket) -> None:
    """One connection, to its end."""
    try:
        with sock, sock.makefile("rb", buffering=0) as reader:
            act(sock, reader.readline(100).decode("ascii", "replace").split())
    except OSError:
        return  # the client left, which is often the point


def act(sock: socket.socket, words: list[str]) -> None:
    """Do what the first line says."""
    match words:
        case ["SINK"]:
            while True:
                time.sleep(0.1)
                sock.send(b"")  # costs nothing, and fails once the connection is reset
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return
        case ["SWALLOW"]:
            digest, count = hashlib.sha256(), 0
            while data := sock.recv(1 << 18):
                digest.update(data)
                count += len(data)
            sock.sendall(f"{count} {digest.hexdigest()}\n".encode())
        case ["FLOOD", octets]:
            for _ in range(int(octets) // len(BLOCK)):
                sock.sendall(BLOCK)
        case ["TOKENS", count, gap]:
            began = time.monotonic()
            for number in range(int(count)):
                time.sleep(max(0.0, began + number * float(gap) - time.monotonic()))
                sock.sendall(b"%020d" % time.monotonic_ns())
        case ["ECHO"]:
            while data := sock.recv(1 << 16):
                sock.sendall(data)
        case _:
            sock.sendall(b"what?\n")


def main() -> None:
    """Accept until killed."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024) as listener:
        threading.stack_size(1 << 17)
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main()
