"""Callers and what they may do."""

from __future__ import annotations

import grp
import pwd
from dataclasses import dataclass
from enum import IntEnum

from ldoms.model.errors import NotAuthorized


class Role(IntEnum):
    """What a caller may do; each includes the ones before."""

    NOBODY = 0
    REVIEW = 1
    """Look at everything."""
    MANAGE = 2
    """Change everything."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who asks.

    Attributes:
        user: name, for messages, logs and the history.
        how: the way in which that is known: ``local``, ``password``, ``certificate``, ``token``.
    """

    user: str
    role: Role
    how: str

    def require(self, role: Role, what: str) -> None:
        """Make sure that the caller may do `what`.

        Raises:
            NotAuthorized: it may not.
        """
        if self.role < role:
            raise NotAuthorized(
                f"Authorization failed: {self.user} may not {what}; an administrator can allow it by adding the user"
                " to the group ldoms, or to that which [auth] of ldmd.toml names",
                user=self.user,
            )


ANYBODY = Caller("nobody", Role.NOBODY, "unknown")


def local_caller(uid: int, group: str) -> Caller:
    """The caller behind a connection to the local socket, by its process's user id."""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        return Caller(f"uid {uid}", Role.MANAGE if uid == 0 else Role.NOBODY, "local")
    return Caller(user, role_of(user, group), "local")


def role_of(user: str, group: str) -> Role:
    """What a user of this host may do: root and the members of `group` may do everything."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return Role.NOBODY
    if entry.pw_uid == 0:
        return Role.MANAGE
    try:
        members = grp.getgrnam(group)
    except KeyError:
        return Role.NOBODY
    allowed = user in members.gr_mem or entry.pw_gid == members.gr_gid
    return Role.MANAGE if allowed else Role.NOBODY
