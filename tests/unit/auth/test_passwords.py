"""Passwords: guessing is slow, and the error tells nothing."""

from __future__ import annotations

import asyncio

import pytest

from ldoms.auth.callers import Groups, Role
from ldoms.auth.fake import FakePasswords
from ldoms.auth.passwords import FORGET_S, MAX_DELAY_S, Gatekeeper, PamPasswords
from ldoms.model.errors import HostError, NotAuthorized
from unit.clock import run


def gatekeeper() -> Gatekeeper:
    passwords = FakePasswords({"tracy": "secret", "root": "toor"})
    return Gatekeeper(passwords, Groups(), lambda user, groups: Role.MANAGE if user == "tracy" else Role.NOBODY)


async def fail(guard: Gatekeeper, user: str) -> float:
    """How long a wrong password takes."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(NotAuthorized) as caught:
        await guard.admit(user, "guess", "192.0.2.1")
    assert caught.value.code == "authentication-failed"
    return loop.time() - began


def test_the_right_password_says_who_is_asking() -> None:
    """With the role that the group gives."""

    async def main() -> None:
        caller = await gatekeeper().admit("tracy", "secret", "192.0.2.1")
        assert (caller.user, caller.role, caller.how) == ("tracy", Role.MANAGE, "password")
        assert (await gatekeeper().admit("root", "toor", "192.0.2.1")).role is Role.NOBODY

    run(main())


@pytest.mark.parametrize("user", ["tracy", "nobody-of-that-name"])
def test_each_failure_makes_the_next_attempt_slower(user: str) -> None:
    """Twice as slow each time, up to a limit; for names that do not exist as well."""

    async def main() -> None:
        guard = gatekeeper()
        delays = [await fail(guard, user) for _ in range(8)]
        assert delays == [0, 1, 2, 4, 8, 16, MAX_DELAY_S, MAX_DELAY_S]

    run(main())


def test_guessing_in_parallel_is_no_faster() -> None:
    """Attempts of one address wait for each other; somebody elsewhere does not wait for them."""

    async def main() -> None:
        guard, loop = gatekeeper(), asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(fail(guard, "tracy") for _ in range(4)))
        assert loop.time() - began == 0 + 1 + 2 + 4
        guesses = asyncio.gather(*(fail(guard, "tracy") for _ in range(100)))
        await asyncio.sleep(0)
        began = loop.time()
        await guard.admit("tracy", "secret", "192.0.2.2")
        assert loop.time() - began <= MAX_DELAY_S
        guesses.cancel()

    run(main())


def test_a_success_forgives_and_time_forgets() -> None:
    """And one user's failures do not slow another down."""

    async def main() -> None:
        guard = gatekeeper()
        await fail(guard, "tracy")
        assert await fail(guard, "root") == 0
        await guard.admit("tracy", "secret", "192.0.2.1")
        assert await fail(guard, "tracy") == 0
        await asyncio.sleep(FORGET_S + 1)
        assert await fail(guard, "tracy") == 0

    run(main())


def test_a_flood_of_names_is_forgotten() -> None:
    """Guessing names cannot fill the memory."""

    async def main() -> None:
        guard = gatekeeper()
        for number in range(50):
            await fail(guard, f"user{number}")
        await asyncio.sleep(FORGET_S + 1)
        await fail(guard, "another")
        assert list(guard._failures) == ["another"]

    run(main())


def test_neither_log_nor_error_has_the_password(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor whether the user exists."""

    async def main() -> list[str]:
        messages = []
        for user in ("tracy", "nobody-of-that-name"):
            with pytest.raises(NotAuthorized) as caught:
                await gatekeeper().admit(user, "open sesame", "192.0.2.1")
            messages.append(f"{caught.value.message} {caught.value.details}".replace(user, "USER"))
        return messages

    first, second = run(main())
    assert first == second
    assert "open sesame" not in first + capsys.readouterr().out


@pytest.mark.parametrize(("user", "password"), [("tra\0cy", "secret"), ("tracy", "sec\0ret"), ("tracy", "\udc80")])
async def test_what_pam_cannot_be_asked_is_wrong(user: str, password: str) -> None:
    """Anybody on the network can send such things: they are refused like any other guess."""
    assert not await PamPasswords("ldmd").check(user, password)


def test_a_silent_pam_is_an_error_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directory server may be gone; nobody is let in, and no failure is counted."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        guard = Gatekeeper(PamPasswords("ldmd"), Groups())
        with pytest.raises(HostError, match="PAM did not answer within 30 s") as caught:
            await guard.admit("tracy", "secret", "192.0.2.1")
        assert caught.value.code == "pam-silent"
        assert guard._failures == {}

    monkeypatch.setattr(asyncio, "to_thread", never)
    run(main())
