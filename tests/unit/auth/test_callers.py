"""Who may do what."""

from __future__ import annotations

import grp
import pwd
from types import SimpleNamespace

import pytest

from ldoms.auth.callers import ANYBODY, Caller, Groups, Role, local_caller, may_use_console, role_of
from ldoms.auth.tokens import digest, make_token, matches
from ldoms.model.errors import NotAuthorized

GROUPS = Groups("ldoms", "ldoms-review")


@pytest.fixture(autouse=True)
def _users(monkeypatch: pytest.MonkeyPatch) -> None:
    """root; tracy of the group ldoms, larry whose own group it is; rita and ralph likewise of ldoms-review; plain."""
    users = {
        "root": (0, 0),
        "tracy": (1000, 1000),
        "larry": (1001, 500),
        "rita": (1003, 1003),
        "ralph": (1004, 501),
        "plain": (1002, 1002),
    }

    def by_name(name: str) -> SimpleNamespace:
        uid, gid = users[name]
        return SimpleNamespace(pw_name=name, pw_uid=uid, pw_gid=gid)

    def by_uid(uid: int) -> SimpleNamespace:
        return by_name({entry[0]: name for name, entry in users.items()}[uid])

    monkeypatch.setattr(pwd, "getpwnam", by_name)
    monkeypatch.setattr(pwd, "getpwuid", by_uid)
    groups = {
        "ldoms": SimpleNamespace(gr_mem=["tracy"], gr_gid=500),
        "ldoms-console-web": SimpleNamespace(gr_mem=["plain"], gr_gid=502),
        "ldoms-review": SimpleNamespace(gr_mem=["rita", "tracy"], gr_gid=501),
    }
    monkeypatch.setattr(grp, "getgrnam", groups.__getitem__)


@pytest.mark.parametrize(
    ("user", "groups", "role"),
    [
        ("root", GROUPS, Role.MANAGE),
        ("tracy", GROUPS, Role.MANAGE),
        ("larry", GROUPS, Role.MANAGE),
        ("rita", GROUPS, Role.REVIEW),
        ("ralph", GROUPS, Role.REVIEW),
        ("plain", GROUPS, Role.NOBODY),
        ("nobody-of-that-name", GROUPS, Role.NOBODY),
        ("tracy", Groups("no-such-group", "ldoms-review"), Role.REVIEW),
        ("rita", Groups("ldoms", "no-such-group"), Role.NOBODY),
        ("root", Groups("no-such-group", "no-such-group"), Role.MANAGE),
    ],
)
def test_groups_give_roles(user: str, groups: Groups, role: Role) -> None:
    """The larger of two; root needs none, and whoever is in neither may nothing."""
    assert role_of(user, groups) is role


def test_a_local_caller_is_known_by_its_process() -> None:
    """A user id without a name may nothing, unless it is root's."""
    assert local_caller(1000, GROUPS) == Caller("tracy", Role.MANAGE, "local", GROUPS)
    assert local_caller(1003, GROUPS) == Caller("rita", Role.REVIEW, "local", GROUPS)
    assert local_caller(4711, GROUPS) == Caller("uid 4711", Role.NOBODY, "local", GROUPS)


def test_what_a_role_lacks_is_refused_with_the_way_to_get_it() -> None:
    """A larger role includes the smaller ones; the group is the one of the configuration."""
    groups = Groups("operators", "auditors")
    Caller("tracy", Role.MANAGE, "local").require(Role.REVIEW, "look")
    with pytest.raises(NotAuthorized, match=r"^Authorization failed: plain may not stop domains; .* group operators$"):
        Caller("plain", Role.REVIEW, "local", groups).require(Role.MANAGE, "stop domains")
    with pytest.raises(NotAuthorized, match=r"adding the user to the group auditors$"):
        Caller("plain", Role.NOBODY, "local", groups).require(Role.REVIEW, "look")
    with pytest.raises(NotAuthorized):
        ANYBODY.require(Role.REVIEW, "look")


@pytest.mark.parametrize(
    ("uid", "group", "allowed"),
    [(0, "db", True), (1000, "db", True), (1003, "web", False), (1002, "web", True), (1002, "db", False),
     (4711, "web", False), (None, "web", False)],
)  # fmt: skip
def test_who_may_use_the_port_of_a_console(uid: int | None, group: str, allowed: bool) -> None:
    """Who may manage, and the members of a group for these consoles alone; nobody whom the kernel does not name."""
    assert may_use_console(uid, group, GROUPS) is allowed


def test_tokens_are_known_by_their_digests() -> None:
    """Of what is kept nobody can make the token, and no two are the same."""
    token = make_token()
    kept = digest(token)
    assert token not in kept
    assert matches(token, kept)
    assert not matches(make_token(), kept)
    assert not matches("", kept)
    assert not matches(kept, kept)
