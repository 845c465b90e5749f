"""Passwords that are only remembered, for unit tests."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class FakePasswords:
    """See `ldoms.auth.passwords.PasswordChecker`."""

    passwords: dict[str, str] = field(default_factory=dict)

    async def check(self, user: str, password: str) -> bool:
        """Whether it is the one in the dictionary."""
        return self.passwords.get(user) == password
