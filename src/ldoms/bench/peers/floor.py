"""``python -m ldoms.bench.peers.floor``: bytes over the link and nothing else, as plain TCP or with TLS.

::

    floor receive ADDRESS CERTIFICATES
    floor send ADDRESS BYTES [CERTIFICATES]

The sender prints a line of JSON: how long it took until the receiver had all of it, and the CPU time of both ends.
"""

from __future__ import annotations

import json
import resource
import socket
import ssl
import sys
import time
from pathlib import Path

PORT = 8290
BLOCK = 1 << 20
CIPHER = "ECDHE-RSA-AES128-GCM-SHA256"
"""The one that migrations of ours use with a shared key."""


def receive(address: str, certificates: Path) -> None:
    """Take in one stream after another; each says first whether it is encrypted, and how long it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server-cert.pem", certificates / "server-key.pem")
    _choose(context)
    with socket.create_server((address, PORT)) as server:
        while True:
            stream, _ = server.accept()
            began = _cpu_s()
            with stream:
                length, encrypted = _read_line(stream).split()
                stream.sendall(b"go\n")
                wrapped = context.wrap_socket(stream, server_side=True) if encrypted == "tls" else stream
                _take(wrapped, int(length))
                wrapped.sendall(f"{_cpu_s() - began}\n".encode())


def send(address: str, length: int, certificates: Path | None) -> dict[str, float]:
    """Send so many bytes, encrypted if there are certificates, and wait until all of them have come."""
    block = memoryview(bytes(range(256)) * (BLOCK // 256))
    began, used = time.perf_counter(), _cpu_s()
    with socket.create_connection((address, PORT)) as stream:
        stream.sendall(f"{length} {'tls' if certificates else 'plain'}\n".encode())
        _read_line(stream)
        wrapped = _wrapped(stream, address, certificates) if certificates else stream
        left = length
        while left:
            part = block[: min(BLOCK, left)]
            wrapped.sendall(part)
            left -= len(part)
        other = float(_read_line(wrapped))
    return {"seconds": time.perf_counter() - began, "cpu_s": _cpu_s() - used + other}


def _wrapped(stream: socket.socket, address: str, certificates: Path) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(certificates / "ca-cert.pem"))
    _choose(context)
    return context.wrap_socket(stream, server_hostname=address)


def _choose(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # Python cannot choose among the ciphers of 1.3
    context.set_ciphers(CIPHER)


def _take(stream: socket.socket, length: int) -> None:
    room = memoryview(bytearray(BLOCK))
    while length:
        got = stream.recv_into(room)
        if not got:
            raise ConnectionError("the sender has gone")
        length -= got


def _read_line(stream: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n"):
        got = stream.recv(1)
        if not got:
            raise ConnectionError("the other end has gone")
        line += got
    return line.decode().strip()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(words: list[str]) -> None:
    """Do what the words say."""
    match words:
        case ["receive", address, certificates]:
            receive(address, Path(certificates))
        case ["send", address, length, *certificates]:
            print(json.dumps(send(address, int(length), Path(certificates[0]) if certificates else None)))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
