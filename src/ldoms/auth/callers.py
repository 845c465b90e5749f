"""Callers and what they may do."""

from __future__ import annotations

import grp
import pwd
from dataclasses import dataclass
from enum import IntEnum

from ldoms.model.errors import NotAuthorized

CONSOLE_GROUP = "ldoms-console-"
"""Before the name of a console group: the group of users who may use its consoles, and nothing else."""


class Role(IntEnum):
    """What a caller may do; each includes the ones before."""

    NOBODY = 0
    REVIEW = 1
    """Look at everything: ``list`` and ``list-*``."""
    MANAGE = 2
    """Change everything."""


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of this host whose members may use the manager; root always may manage."""

    manage: str = "ldoms"
    review: str = "ldoms-review"

    def giving(self, role: Role) -> str:
        """The group that gives a role."""
        return self.manage if role is Role.MANAGE else self.review


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who asks.

    Attributes:
        user: name, for messages, logs and the history.
        how: the way in which that is known: ``local``, ``password``, ``certificate``, ``token``.
        groups: those that could give more, for messages.
    """

    user: str
    role: Role
    how: str
    groups: Groups = Groups()

    def require(self, role: Role, what: str) -> None:
        """Make sure that the caller may do `what`.

        Raises:
            NotAuthorized: it may not.
        """
        if self.role < role:
            raise NotAuthorized(
                f"Authorization failed: {self.user} may not {what}; an administrator can allow it by adding the user"
                f" to the group {self.groups.giving(role)}",
                user=self.user,
            )


ANYBODY = Caller("nobody", Role.NOBODY, "unknown")


def local_caller(uid: int, groups: Groups) -> Caller:
    """The caller behind a connection to the local socket, by its process's user id."""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        return Caller(f"uid {uid}", Role.MANAGE if uid == 0 else Role.NOBODY, "local", groups)
    return Caller(user, role_of(user, groups), "local", groups)


def may_use_console(uid: int | None, console_group: str, groups: Groups) -> bool:
    """Whether a user of this host may use the consoles of a group.

    Those who may manage may, and the members of the group ``ldoms-console-`` and the console group's name.
    """
    if uid is None:
        return False
    who = local_caller(uid, groups)
    if who.role >= Role.MANAGE:
        return True
    try:
        return _is_member(pwd.getpwuid(uid), f"{CONSOLE_GROUP}{console_group}")
    except KeyError:
        return False


def role_of(user: str, groups: Groups) -> Role:
    """What a user of this host may do: root may do everything, others what their groups give."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return Role.NOBODY
    if entry.pw_uid == 0:
        return Role.MANAGE
    for role in (Role.MANAGE, Role.REVIEW):
        if _is_member(entry, groups.giving(role)):
            return role
    return Role.NOBODY


def _is_member(entry: pwd.struct_passwd, group: str) -> bool:
    try:
        members = grp.getgrnam(group)
    except KeyError:
        return False
    return entry.pw_name in members.gr_mem or entry.pw_gid == members.gr_gid
