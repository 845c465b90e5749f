"""Passwords of this host's users, checked through PAM, more slowly after each failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol
from weakref import WeakValueDictionary

import pam
import structlog

from ldoms.auth.callers import Caller, Groups, Role, role_of
from ldoms.model.errors import HostError, NotAuthorized

FIRST_DELAY_S = 1.0
MAX_DELAY_S = 30.0
FORGET_S = 900.0
PAM_LIMIT_S = 30.0

_log = structlog.get_logger(__name__)


class PasswordChecker(Protocol):
    """Whoever knows the passwords."""

    async def check(self, user: str, password: str) -> bool:
        """Whether that is the user's password.

        Raises:
            HostError: they cannot be asked now.
        """


class PamPasswords:
    """The PAM of this host."""

    def __init__(self, service: str) -> None:
        """Use the PAM service of that name: ``/etc/pam.d/SERVICE``, or ``other`` where there is none."""
        self._service = service

    async def check(self, user: str, password: str) -> bool:
        """Whether PAM accepts the user and password.

        Raises:
            HostError: code ``pam-silent``: it does not answer in time.
        """
        try:
            async with asyncio.timeout(PAM_LIMIT_S):
                return await asyncio.to_thread(self._check, user, password)
        except TimeoutError as error:
            raise HostError(
                f"Authentication failed: PAM did not answer within {PAM_LIMIT_S:g} s; is the directory of this host's"
                " users there?",
                code="pam-silent",
            ) from error

    def _check(self, user: str, password: str) -> bool:
        # A handle for each call: a PAM conversation is not to be shared between threads.
        authenticator = pam.pam()
        try:
            return bool(authenticator.authenticate(user, password, service=self._service, resetcreds=False))
        except ValueError:
            return False  # no user and no password has such characters


class Gatekeeper:
    """Lets users in by password: PAM says who they are, their groups say what they may do, and guessing is slow."""

    def __init__(
        self, passwords: PasswordChecker, groups: Groups, role: Callable[[str, Groups], Role] = role_of
    ) -> None:
        """Guard with `passwords`; what a user may do depends on `groups`."""
        self._passwords = passwords
        self._groups = groups
        self._role = role
        self._failures: dict[str, tuple[int, float]] = {}
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def admit(self, user: str, password: str, address: str) -> Caller:
        """The caller with that name and password.

        Raises:
            NotAuthorized: code ``authentication-failed``; it does not say whether the user exists.
        """
        # One after the other, or guessing in parallel would be fast; by address, so that it holds up nobody else.
        async with self._turns.setdefault((user, address), asyncio.Lock()):
            await asyncio.sleep(self._delay_s(user))
            if not await self._passwords.check(user, password):
                self._note_failure(user)
                _log.warning("login-failed", user=user, address=address, failures=self._failures[user][0])
                raise NotAuthorized(
                    f"Authentication failed: user name or password is wrong (user {user})",
                    code="authentication-failed",
                )
            self._failures.pop(user, None)
        role = self._role(user, self._groups)
        _log.info("login", user=user, address=address, role=role.name.lower())
        return Caller(user, role, "password", self._groups)

    def _delay_s(self, user: str) -> float:
        count, last = self._failures.get(user, (0, 0.0))
        if count == 0 or _now() - last > FORGET_S:
            self._failures.pop(user, None)
            return 0.0
        return float(min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** (count - 1)))

    def _note_failure(self, user: str) -> None:
        # Names that do not exist are counted too; old entries go, so that guessing names cannot fill the memory.
        now = _now()
        self._failures = {name: entry for name, entry in self._failures.items() if now - entry[1] <= FORGET_S}
        count, _ = self._failures.get(user, (0, 0.0))
        self._failures[user] = (count + 1, now)


def _now() -> float:
    return asyncio.get_running_loop().time()
