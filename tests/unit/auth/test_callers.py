"""Who may do what."""

from __future__ import annotations

import grp
import pwd
from types import SimpleNamespace

import pytest

from ldoms.auth.callers import ANYBODY, Caller, Role, local_caller, role_of
from ldoms.auth.tokens import digest, make_token, matches
from ldoms.model.errors import NotAuthorized


@pytest.fixture(autouse=True)
def _users(monkeypatch: pytest.MonkeyPatch) -> None:
    """root, tracy of the group ldoms, larry whose own group it is, and plain."""
    users = {"root": (0, 0), "tracy": (1000, 1000), "larry": (1001, 500), "plain": (1002, 1002)}

    def by_name(name: str) -> SimpleNamespace:
        uid, gid = users[name]
        return SimpleNamespace(pw_name=name, pw_uid=uid, pw_gid=gid)

    def by_uid(uid: int) -> SimpleNamespace:
        return by_name({entry[0]: name for name, entry in users.items()}[uid])

    monkeypatch.setattr(pwd, "getpwnam", by_name)
    monkeypatch.setattr(pwd, "getpwuid", by_uid)
    groups = {"ldoms": SimpleNamespace(gr_mem=["tracy"], gr_gid=500)}
    monkeypatch.setattr(grp, "getgrnam", groups.__getitem__)


@pytest.mark.parametrize(
    ("user", "group", "role"),
    [
        ("root", "ldoms", Role.MANAGE),
        ("tracy", "ldoms", Role.MANAGE),
        ("larry", "ldoms", Role.MANAGE),
        ("plain", "ldoms", Role.NOBODY),
        ("nobody-of-that-name", "ldoms", Role.NOBODY),
        ("tracy", "no-such-group", Role.NOBODY),
        ("root", "no-such-group", Role.MANAGE),
    ],
)
def test_root_and_the_group_may_manage(user: str, group: str, role: Role) -> None:
    """And nobody else."""
    assert role_of(user, group) is role


def test_a_local_caller_is_known_by_its_process() -> None:
    """A user id without a name may nothing, unless it is root's."""
    assert local_caller(1000, "ldoms") == Caller("tracy", Role.MANAGE, "local")
    assert local_caller(4711, "ldoms") == Caller("uid 4711", Role.NOBODY, "local")


def test_what_a_role_lacks_is_refused_with_the_way_to_get_it() -> None:
    """A larger role includes the smaller ones."""
    Caller("tracy", Role.MANAGE, "local").require(Role.REVIEW, "look")
    with pytest.raises(NotAuthorized, match=r"plain may not stop domains; .* adding the user to the group ldoms"):
        Caller("plain", Role.REVIEW, "local").require(Role.MANAGE, "stop domains")
    with pytest.raises(NotAuthorized):
        ANYBODY.require(Role.REVIEW, "look")


def test_tokens_are_known_by_their_digests() -> None:
    """Of what is kept nobody can make the token, and no two are the same."""
    token = make_token()
    kept = digest(token)
    assert token not in kept
    assert matches(token, kept)
    assert not matches(make_token(), kept)
    assert not matches("", kept)
    assert not matches(kept, kept)
