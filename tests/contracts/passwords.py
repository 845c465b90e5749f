"""The contract of `ldoms.auth.passwords.PasswordChecker`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from ldoms.auth.passwords import PasswordChecker

USER, PASSWORD = "tracy", "a secret: ä"
LOCKED_USER = "larry"
"""Has the same password, and the account is locked."""


class PasswordBench(Protocol):
    """Whoever knows the passwords of two users."""

    checker: PasswordChecker


async def check_the_right_password_is_right(bench: PasswordBench) -> None:
    """Every time."""
    assert await bench.checker.check(USER, PASSWORD)
    assert await bench.checker.check(USER, PASSWORD)


async def check_other_passwords_are_wrong(bench: PasswordBench) -> None:
    """Also none at all, a part, and one in other letters."""
    for password in ("guess", "", PASSWORD[:-1], f"{PASSWORD} ", PASSWORD.upper(), f"{PASSWORD}\0"):
        assert not await bench.checker.check(USER, password), repr(password)


async def check_nobody_has_no_password(bench: PasswordBench) -> None:
    """A name that does not exist is no error, and another user's password does not help."""
    for user in ("nobody-of-that-name", "", f"{USER}\0", "*"):
        assert not await bench.checker.check(user, PASSWORD), repr(user)


async def check_a_locked_account_is_not_let_in(bench: PasswordBench) -> None:
    """Although the password is the right one."""
    assert not await bench.checker.check(LOCKED_USER, PASSWORD)


CHECKS: tuple[Callable[[PasswordBench], Awaitable[None]], ...] = tuple(
    check for name, check in list(globals().items()) if name.startswith("check_")
)
