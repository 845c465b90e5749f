"""Tokens by which a target knows the source of a migration again; it keeps only their digests."""

from __future__ import annotations

import hashlib
import hmac
import secrets


def make_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def matches(token: str, kept: str) -> bool:
    """Whether `kept` is the digest of `token`; takes the same time for any wrong one."""
    return hmac.compare_digest(digest(token), kept)
