"""Connection strings of libpq: settings added to them, and the password taken out.

A connection string is a URI (``postgresql://user@host:5432/database?name=value``) or a list of settings
(``host=... dbname='...'``); PostgreSQL's manual, "Connection Strings".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, unquote

from ldoms.model.errors import RequestError

_URI = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)"
    r"(?:(?P<user>[^:@/?]*)(?::(?P<password>[^@/?]*))?@)?"
    r"(?P<place>[^?]*)(?:\?(?P<query>.*))?"
)
_SETTING = re.compile(r"\s*(?P<name>\w+)\s*=\s*(?:'(?P<quoted>(?:[^'\\]|\\.)*)'|(?P<plain>(?:[^\s'\\]|\\.)*))(?=\s|$)")


def is_uri(words: str) -> bool:
    """Whether a connection string is a URI."""
    return words.startswith(("postgresql://", "postgres://"))


def with_settings(words: str, settings: Mapping[str, str]) -> str:
    """Add settings to a connection string; those that it has already stay as they are.

    Raises:
        RequestError: it is not a connection string, code ``bad-dsn``.
    """
    if not is_uri(words):
        own = dict(_settings(words))
        return " ".join([*(f"{name}={quoted(value)}" for name, value in settings.items() if name not in own), words])
    found = _uri(words)
    own = dict(parse_qsl(found["query"] or "", keep_blank_values=True))
    added = "&".join(f"{name}={quote(value, safe='')}" for name, value in settings.items() if name not in own)
    return words + (("&" if "?" in words else "?") + added if added else "")


def without_password(words: str) -> tuple[str, str]:
    """A connection string that everybody may see, and the password that was in it; empty = there was none.

    Raises:
        RequestError: it is not a connection string, code ``bad-dsn``.
    """
    if not is_uri(words):
        settings = _settings(words)
        password = dict(settings).get("password", "")
        kept = [f"{name}={quoted(value)}" for name, value in settings if name != "password"]
        return (" ".join(kept), password) if password else (words, "")
    found = _uri(words)
    pairs = parse_qsl(found["query"] or "", keep_blank_values=True)
    password = dict(pairs).get("password") or unquote(found["password"] or "")
    if not password:
        return words, ""
    user = f"{found['user']}@" if found["user"] else ""
    rest = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs if name != "password")
    return f"{found['scheme']}{user}{found['place']}" + (f"?{rest}" if rest else ""), password


def database_in(words: str) -> str:
    """The database that a connection string names; empty = libpq's default."""
    if not is_uri(words):
        return dict(_settings(words)).get("dbname", "")
    found = _uri(words)
    return dict(parse_qsl(found["query"] or "")).get("dbname") or unquote(found["place"].partition("/")[2])


def quoted(value: str) -> str:
    """As libpq wants a value in a connection string."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _uri(words: str) -> re.Match[str]:
    found = _URI.fullmatch(words)
    if found is None:
        raise RequestError(f"this is not a connection URI: {words.partition('://')[0]}://...", code="bad-dsn")
    return found


def _settings(words: str) -> list[tuple[str, str]]:
    found, position = [], 0
    text = words.rstrip()
    while position < len(text):
        one = _SETTING.match(text, position)
        if one is None:
            # Not the words themselves: there may be a password in them.
            raise RequestError(
                "this is not a connection string: it must be postgresql://USER@HOST:PORT/DATABASE or "
                "host=HOST port=PORT dbname=DATABASE user=USER",
                code="bad-dsn",
            )
        value = one["quoted"] if one["quoted"] is not None else one["plain"]
        found.append((one["name"], re.sub(r"\\(.)", r"\1", value)))
        position = one.end()
    return found
