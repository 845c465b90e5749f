"""One request and its answer, over a pair of sockets: what comes back is an answer, or an error of the connection."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.api.exchange import Answer, exchange

HEAD = b"HTTP/1.1 200 OK\r\n"


def answered(reply: bytes, use: Callable[[Answer], object], *what: object) -> tuple[object, bytes]:
    """What `use` makes of a reply, and what was sent before it."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(reply)
        theirs.shutdown(socket.SHUT_WR)
        with exchange(ours, *(what or ("GET", "/domains"))) as answer:  # type: ignore[arg-type]
            result = use(answer)
        return result, theirs.recv(65536)


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (HEAD + b"Content-Length: 5\r\n\r\nhello and more", b"hello"),
        (HEAD + b"content-length: 0\r\n\r\n", b""),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", b"hello"),
        (HEAD + b"\r\nhello", b"hello"),
    ],
)
def test_each_way_to_tell_the_length(reply: bytes, body: bytes) -> None:
    """By its number of bytes, in pieces, or until the end."""
    assert answered(reply, Answer.read)[0] == body


def test_a_notice_comes_with_the_answer() -> None:
    """In a header, percent-encoded; mostly there is none."""
    reply = HEAD + b"x-ldm-notice: a%20newer%0Aone\r\nContent-Length: 2\r\n\r\nok"
    assert answered(reply, lambda answer: (answer.notice, answer.read()))[0] == ("a%20newer%0Aone", b"ok")
    assert answered(HEAD + b"\r\n", lambda answer: answer.notice)[0] == ""


def test_what_is_sent() -> None:
    """A request that any server of HTTP/1.1 understands, and the connection is closed after it."""
    _, sent = answered(HEAD + b"\r\n", Answer.read, "POST", "/domains?name=a", {"X-Y": "z"}, '{"a": "ä"}')
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        *(b"POST /v1/domains?name=a HTTP/1.1", b"Host: localhost", b"Connection: close", b"X-Y: z"),
        *(b"Content-Type: application/json", b"Content-Length: 11"),
    ]
    assert body == '{"a": "ä"}'.encode()


def test_lines_come_one_by_one() -> None:
    """Also one that is cut in two by the pieces that it comes in, and one without an end."""
    reply = HEAD + b"Transfer-Encoding: chunked\r\n\r\n7\r\none\n\ntw\r\n5\r\no\nend\r\n0\r\n\r\n"
    assert answered(reply, lambda answer: list(answer.lines()))[0] == [b"one", b"", b"two", b"end"]


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        HEAD,
        HEAD + b"Content-Length: x\r\n\r\n",
        HEAD + b"Content-Length: 9\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ],
)
def test_what_is_no_answer(reply: bytes) -> None:
    """It is an error of the connection, which the client makes a sentence of."""
    with pytest.raises(OSError, match=r"HTTP|too early"):
        answered(reply, Answer.read)


@given(st.binary(max_size=200))
def test_no_reply_breaks_it(rest: bytes) -> None:
    """Bytes of any kind."""
    try:
        answered(HEAD + rest, Answer.read)
    except OSError:
        return
