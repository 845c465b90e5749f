"""Connection strings keep what their writer said, lose the password, and never show it."""

from __future__ import annotations

import pytest

from ldoms.bench.connection import database_in, with_settings, without_password
from ldoms.bench.server import Server, server_at
from ldoms.model.errors import RequestError


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("host=h dbname=d", "connect_timeout='10' host=h dbname=d"),
        ("host=h connect_timeout=3", "host=h connect_timeout=3"),
        ("", "connect_timeout='10' "),
        ("postgresql://h/d", "postgresql://h/d?connect_timeout=10"),
        ("postgres://u@h:1/d?sslmode=disable", "postgres://u@h:1/d?sslmode=disable&connect_timeout=10"),
        ("postgresql://h/d?connect_timeout=3", "postgresql://h/d?connect_timeout=3"),
    ],
)
def test_settings_are_added(words: str, expected: str) -> None:
    """What is there already stays as it is."""
    assert with_settings(words, {"connect_timeout": "10"}) == expected


@pytest.mark.parametrize(
    ("words", "kept", "password"),
    [
        ("host=h password='a b\\'c' dbname=d", "host='h' dbname='d'", "a b'c"),
        ("host=h dbname=d", "host=h dbname=d", ""),
        ("postgresql://u:se%40cret@h:1/d?sslmode=disable", "postgresql://u@h:1/d?sslmode=disable", "se@cret"),
        ("postgresql://u@h/d?password=x&sslmode=disable", "postgresql://u@h/d?sslmode=disable", "x"),
        ("postgresql:///d?host=%2Ftmp", "postgresql:///d?host=%2Ftmp", ""),
    ],
)
def test_password_is_taken_out(words: str, kept: str, password: str) -> None:
    """Others see the words of a command, not its environment."""
    assert without_password(words) == (kept, password)


@pytest.mark.parametrize(
    ("words", "database"),
    [("dbname = 'my db'", "my db"), ("host=h", ""), ("postgresql://h/d?x=y", "d"), ("postgresql://h?dbname=e", "e")],
)
def test_database_is_found(words: str, database: str) -> None:
    """For messages."""
    assert database_in(words) == database


@pytest.mark.parametrize("words", ["nonsense secret", "host='open secret"])
def test_nonsense_is_refused_without_repeating_it(words: str) -> None:
    """There may be a password in it."""
    with pytest.raises(RequestError) as caught:
        server_at(words)
    assert caught.value.code == "bad-dsn"
    assert "secret" not in caught.value.message


def test_server_of_a_connection_string() -> None:
    """Its settings are used, the password goes into the environment, and is not shown with the value."""
    server = server_at("host=db1 dbname=shop user=sam password=secret")
    assert (server.database, server.environment) == ("shop", {"PGPASSWORD": "secret"})
    assert "secret" not in server.connection_words + server.place + repr(server)
    assert server.words_with({"options": "-c jit=off"}).endswith(
        "options='-c jit=off' host='db1' dbname='shop' user='sam'"
    )
    assert "tcp_user_timeout='60000'" in server.connection_words


def test_server_of_parts() -> None:
    """As it was before there were connection strings."""
    server = Server("127.0.0.1", 5433, database="x")
    assert server.place == "host='127.0.0.1' port='5433' user='postgres' dbname='x'"
    assert server.environment == {}
