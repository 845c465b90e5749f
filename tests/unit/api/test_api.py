"""The API: who may call what, what an error looks like, and that the answers are the model."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from ldoms.api.client import error_from
from ldoms.api.errors import STATUS, body_of, status_of
from ldoms.api.wire import COMMAND_HEADER, CONSOLE_HEADER, NOTICE_HEADER, RUN_HEADER
from ldoms.manager.manager import Manager
from ldoms.manager.power_on import NOTICE
from ldoms.model import errors
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.domain import DomainView
from ldoms.model.errors import CheckFailed, LdomsError, MigrationError
from ldoms.model.host import HostView
from ldoms.model.migration import DescriptionAnswer
from ldoms.model.phases import Phase
from ldoms.model.services import Services
from unit.api.counter import NETWORK, NOBODY, PREFIX, ROOT, Caller, application, error_of
from unit.manager.desk import at_desk
from unit.migration.harness import FakeHost

ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    # A cancelled operation is no error of a request.
    if issubclass(kind, LdomsError) and kind not in (LdomsError, errors.Cancelled)
]


def with_api(directory: Path, work: Callable[[Manager, FastAPI], Awaitable[None]]) -> None:
    """Do some work with the application of a furnished host."""

    async def main(host: FakeHost, manager: Manager) -> None:
        await work(manager, application(manager, directory))

    at_desk(directory, main)


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Every method and path."""
    found = [(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods]
    assert len(found) > 30
    return found


def filled(path: str) -> str:
    """A path with a name in place of each parameter."""
    return "/".join("x" if part.startswith("{") else part for part in path.split("/")).removeprefix(PREFIX)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_has_its_status(kind: type[LdomsError]) -> None:
    """The table knows it, or what it is a sort of."""
    assert any(issubclass(kind, known) for known in STATUS)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_comes_back_as_it_went(kind: type[LdomsError]) -> None:
    """Code, sentence and details; and for whoever catches it the same family."""
    error = (
        kind("it broke", phase=Phase.COPY, code="broken") if kind is MigrationError else kind("it broke", code="broken")
    )
    error.details = {"wanted": 4}
    again = error_from(body_of(error)["error"])
    assert (again.message, again.code) == ("it broke", "broken")
    if kind not in (MigrationError,):
        assert type(again) is kind
    if kind is not CheckFailed:
        assert again.details == {"wanted": 4}
    assert 400 <= status_of(error) < 600


def test_special_errors_come_before_general_ones() -> None:
    """The first entry that fits decides."""
    order = list(STATUS)
    for position, kind in enumerate(order):
        assert not any(issubclass(kind, earlier) for earlier in order[:position]), kind


def test_nobody_may_anything(tmp_path: Path) -> None:
    """Every route asks who is there: a process without a role, a stranger from the network."""

    async def work(manager: Manager, app: FastAPI) -> None:
        for connection in (NOBODY, NETWORK):
            async with Caller(app, connection) as caller:
                for method, path in routes(app):
                    answer = await caller.request(method, filled(path), json={})
                    # A wrong body may be told before the caller is: it says nothing about the host.
                    assert answer.status_code in (403, 400), f"{method} {path}: {answer.text}"
                    if answer.status_code == 403:
                        assert error_of(answer)["code"] == "not-authorized"

    with_api(tmp_path, work)


def test_a_password_opens_what_its_user_may(tmp_path: Path) -> None:
    """Over the network; a wrong one is told apart from a missing role."""

    async def work(manager: Manager, app: FastAPI) -> None:
        for user, password, status, code in (
            ("tracy", "secret", 200, ""),
            ("tracy", "guess", 403, "authentication-failed"),
            ("plain", "secret", 403, "not-authorized"),
        ):
            async with Caller(app, NETWORK, auth=(user, password)) as caller:
                answer = await caller.get("/domains")
                assert answer.status_code == status
                assert not code or error_of(answer)["code"] == code
                assert password not in answer.text

    with_api(tmp_path, work)


def test_a_reviewer_looks_at_everything_and_changes_nothing(tmp_path: Path) -> None:
    """By password; what is refused is told with the group that would allow it, and logged with who asked for what."""

    async def work(manager: Manager, app: FastAPI) -> None:
        async with Caller(app, NETWORK, auth=("larry", "secret")) as caller:
            for path in (
                "/domains",
                "/services",
                "/host",
                "/operations",
                "/events",
                "/migrations",
                "/history",
                "/trust",
            ):
                assert (await caller.get(path)).status_code == 200, path
            with capture_logs() as logs:
                answer = await caller.post("/domains/ldg1/bind", headers={COMMAND_HEADER: "bind-domain ldg1"})
            assert answer.status_code == 403
            assert error_of(answer)["message"] == (
                "Authorization failed: larry may not change the domains of this host; an administrator can allow it by"
                " adding the user to the group ldoms"
            )
            (denied,) = [entry for entry in logs if entry["event"] == "access-denied"]
            assert (denied["user"], denied["address"], denied["call"], denied["command"]) == (
                *("larry", "192.0.2.1"),
                *("POST /v1/domains/ldg1/bind", "bind-domain ldg1"),
            )
            for method, path in routes(app):
                if method != "GET":
                    answer = await caller.request(method, filled(path), json={})
                    assert answer.status_code in (403, 400), f"{method} {path}: {answer.text}"
        assert manager.host.store.commands() == ()

    with_api(tmp_path, work)


@pytest.mark.parametrize("header", ["Basic ???", "Basic", "Bearer x", "Basic /w==", "Digest x"])
def test_a_broken_login_is_none(tmp_path: Path, header: str) -> None:
    """And no crash."""

    async def work(manager: Manager, app: FastAPI) -> None:
        async with Caller(app, NETWORK, headers={"Authorization": header}) as caller:
            assert (await caller.get("/domains")).status_code == 403

    with_api(tmp_path, work)


def test_answers_are_the_model(tmp_path: Path) -> None:
    """Domains, services and the host as the manager has them."""

    async def work(manager: Manager, app: FastAPI) -> None:
        async with Caller(app) as caller:
            views = [from_wire(DomainView, view) for view in (await caller.get("/domains")).json()]
            assert [view.domain for view in views] == list(manager.host.store.domains())
            services = from_wire(Services, (await caller.get("/services")).json())
            assert services == manager.host.store.services()
            host = from_wire(HostView, (await caller.get("/host")).json())
            assert host.facts == manager.host.facts
            one = (await caller.get("/domains", params={"name": "ldg1"})).json()
            assert [view["domain"]["name"] for view in one] == ["ldg1"]

    with_api(tmp_path, work)


def test_an_error_is_told_in_the_one_shape(tmp_path: Path) -> None:
    """Of the manager, of the path, of the method, of the body; a value that was wrong is not repeated."""

    async def work(manager: Manager, app: FastAPI) -> None:
        async with Caller(app) as caller:
            for method, path, body, status, code in (
                ("POST", "/domains/nobody/bind", None, 404, "not-found"),
                ("POST", "/domains", {"name": "ldg1"}, 409, "already-exists"),
                ("POST", "/domains/ldg1/start", {}, 400, "domain-inactive"),
                ("GET", "/nowhere", None, 404, "no-such-call"),
                ("PUT", "/domains", None, 405, "no-such-call"),
                ("POST", "/domains", {"name": 5}, 400, "bad-request"),
                ("POST", "/domains/ldg1/migrate", {"host": "t4-2", "password": ["hush"]}, 400, "bad-request"),
                ("POST", "/domains/ldg1/migrate", {"host": "t4-2", "colour": "hush"}, 400, "bad-request"),
            ):
                answer = await caller.request(method, path, json=body)
                assert (answer.status_code, error_of(answer)["code"]) == (status, code), answer.text
                assert "hush" not in answer.text

    with_api(tmp_path, work)


@pytest.mark.parametrize(("after", "some"), [(-(10**30), True), (0, True), (10**30, False)])
def test_events_after_any_number(tmp_path: Path, after: int, some: bool) -> None:
    """Also one that no event can have."""

    async def work(manager: Manager, app: FastAPI) -> None:
        async with Caller(app) as caller:
            answer = await caller.get("/events", params={"after": after})
            assert (answer.status_code, bool(answer.json())) == (200, some)

    with_api(tmp_path, work)


def test_what_changes_something_is_remembered(tmp_path: Path) -> None:
    """With who asked, the command behind it, and whether it worked; what only looks is not."""

    async def work(manager: Manager, app: FastAPI) -> None:
        async with Caller(app, ROOT) as caller:
            for command, path in (
                ("bind-domain ldg1", "/domains/ldg1/bind"),
                ("bind-domain nobody", "/domains/nobody/bind"),
            ):
                await caller.post(path, headers={"X-Ldm-Command": command})
            await caller.get("/domains", headers={"X-Ldm-Command": "list-domain"})
        assert [(one.user, one.command, one.succeeded) for one in manager.host.store.commands()] == [
            ("root", "bind-domain ldg1", True),
            ("root", "bind-domain nobody", False),
        ]

    with_api(tmp_path, work)


def test_a_command_has_one_row(tmp_path: Path) -> None:
    """However many requests `ldm` makes for it; one that fails makes it a failure, and the next command a row."""

    async def work(manager: Manager, app: FastAPI) -> None:
        async with Caller(app, ROOT) as caller:
            for run, names in (("1-1", ("ldg2", "ldg2", "ldg3")), ("1-2", ("ldg4", "ldg5")), ("", ("ldg6", "ldg7"))):
                typed = {COMMAND_HEADER: f"create {' '.join(names)}", RUN_HEADER: run}
                for name in names:
                    await caller.post("/domains", json={"name": name}, headers=typed)
        assert [(one.command, one.succeeded) for one in manager.host.store.commands()] == [
            ("create ldg2 ldg2 ldg3", False),
            ("create ldg4 ldg5", True),
            ("create ldg6 ldg7", True),
            ("create ldg6 ldg7", True),
        ]

    with_api(tmp_path, work)


def test_what_goes_on_is_remembered_by_its_end(tmp_path: Path) -> None:
    """A stop that is under way has not succeeded yet; one that ends in an error, or is called off, has failed."""

    async def work(manager: Manager, app: FastAPI) -> None:
        def history() -> list[bool | None]:
            return [one.succeeded for one in manager.host.store.commands()]

        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        async with Caller(app, ROOT) as caller:
            for limit_s, outcome in ((1.0, False), (None, True)):
                body = {"mode": "halt" if limit_s else "force", "limit_s": limit_s, "message": ""}
                headers = {"X-Ldm-Command": "stop-domain ldg1"}
                begun = await caller.post("/domains/ldg1/stop", json=body, headers=headers)
                assert begun.status_code == 202
                if limit_s:
                    assert history() == [None]
                await manager.host.operations.wait(begun.json()["id"])
                assert history()[-1] is outcome
            listed = (await caller.get("/history")).json()
        assert [(one["succeeded"], one["command"]) for one in listed] == [
            (False, "stop-domain ldg1"),
            (True, "stop-domain ldg1"),
        ]

    with_api(tmp_path, work)


def test_another_host_needs_the_token_of_its_migration(tmp_path: Path) -> None:
    """A login opens `describe` alone; what follows needs what `describe` has given, for that migration."""

    async def work(manager: Manager, app: FastAPI) -> None:
        calls = [(method, filled(path)) for method, path in routes(app) if "/peer/migrations/" in path]
        assert len(calls) >= 6
        async with Caller(app, NETWORK, auth=("tracy", "secret")) as caller:
            for method, path in calls:
                assert (await caller.request(method, path, json={})).status_code in (403, 400)
        for token in ("guess", ""):
            async with Caller(app, NETWORK, headers={"Authorization": f"Bearer {token}"}) as caller:
                for method, path in calls:
                    answer = await caller.request(method, path, json={"phase": "copy", "progress": 1, "reason": "x"})
                    assert answer.status_code in (403, 404), answer.text

    with_api(tmp_path, work)


def test_a_description_is_answered_with_a_token_that_works(tmp_path: Path) -> None:
    """For the clock of that migration, and for no other migration."""

    async def work(manager: Manager, app: FastAPI) -> None:
        domain = manager.host.store.domain("ldg1")
        description = {
            "migration": "m1",
            "source": to_wire(manager.host.facts),
            "domain": {"domain": to_wire(domain), "active": False},
            "new_name": "",
            "encrypted": True,
            "beacon": ".x",
        }
        async with Caller(app, NETWORK, auth=("tracy", "secret")) as caller:
            answer = from_wire(DescriptionAnswer, (await caller.post("/peer/describe", json=description)).json())
            wrong = await caller.post("/peer/describe", json={**description, "source": 5})
            assert error_of(wrong)["code"] == "bad-request"
        async with Caller(app, NETWORK, headers={"Authorization": f"Bearer {answer.token}"}) as caller:
            clock = (await caller.post("/peer/migrations/m1/clock")).json()
            assert clock["answered_at"] >= clock["received_at"]
            assert (await caller.post("/peer/migrations/m2/clock")).status_code == 404

    with_api(tmp_path, work)


def test_the_description_of_the_api_is_whole(tmp_path: Path) -> None:
    """Every route is in it, with a sentence that says what it is for."""

    async def work(manager: Manager, app: FastAPI) -> None:
        paths = app.openapi()["paths"]
        for method, path in routes(app):
            assert paths[path][method.lower()].get("description"), f"{method} {path} has no docstring"

    with_api(tmp_path, work)


def test_whoever_types_a_command_is_told(tmp_path: Path) -> None:
    """In a header, once, and only of requests that come from a command line."""

    async def work(manager: Manager, app: FastAPI) -> None:
        manager.host.store.remember(NOTICE, "a newer autosave\nis there")
        async with Caller(app) as caller:
            assert NOTICE_HEADER not in (await caller.get("/domains")).headers
            typed = {COMMAND_HEADER: "list-domain"}
            assert NOTICE_HEADER not in (await caller.get("/nowhere", headers=typed)).headers
            told = (await caller.get("/domains", headers=typed)).headers[NOTICE_HEADER]
            assert unquote(told) == "a newer autosave\nis there"
            assert NOTICE_HEADER not in (await caller.get("/domains", headers=typed)).headers

    with_api(tmp_path, work)


def test_a_delayed_change_of_primary_is_told(tmp_path: Path) -> None:
    """Each time, in the words that scripts know; the answer has the domain as it still is."""

    async def work(manager: Manager, app: FastAPI) -> None:
        typed = {COMMAND_HEADER: "set-vcpu 3 primary"}
        async with Caller(app) as caller:
            assert (await caller.post("/domains/primary/reconfiguration")).status_code == 204
            for _ in range(2):
                answer = await caller.put("/domains/primary/vcpus", json={"action": "set", "amount": 3}, headers=typed)
                assert answer.json()["constraints"]["vcpus"] == 2
                notice = unquote(answer.headers[NOTICE_HEADER]).splitlines()
                assert notice[0] == notice[-1] == "-" * 78
                assert notice[1] == "Notice: LDom primary is in the process of a delayed reconfiguration."
            pending = manager.reconfiguration.pending
            assert pending is not None
            assert pending.cpus is not None
            assert (pending.cpus.vcpus, pending.memory_mib) == (3, None)
            assert (
                await caller.put("/domains/primary/cores", json={"action": "set", "core_ids": [1]}, headers=typed)
            ).is_success
            pending = manager.reconfiguration.pending
            assert pending is not None
            assert pending.cpus is not None
            assert pending.cpus.core_ids == (1,)
            answer = await caller.put("/domains/primary/cores", json={"action": "set", "core_ids": []}, headers=typed)
            assert "delayed reconfiguration" in unquote(answer.headers[NOTICE_HEADER])
            assert (await caller.put("/domains/primary/memory", json={"action": "add", "amount": 256})).is_success
            assert (await caller.delete("/domains/primary/reconfiguration")).status_code == 204
            assert NOTICE_HEADER not in (await caller.get("/domains", headers=typed)).headers

    with_api(tmp_path, work)


def test_configurations_over_the_api(tmp_path: Path) -> None:
    """Saved, listed, chosen and forgotten."""

    async def work(manager: Manager, app: FastAPI) -> None:
        async with Caller(app) as caller:
            assert (await caller.post("/configurations", json={"name": "mine"})).status_code == 204
            assert (await caller.post("/configurations", json={"name": "mine"})).status_code == 409
            names = [view["name"] for view in (await caller.get("/configurations")).json()]
            assert names == ["factory-default", "mine"]
            assert (await caller.put("/configurations/next", json={"name": "factory-default"})).status_code == 204
            assert (await caller.get("/configurations")).json()[0]["is_next"]
            assert [view["name"] for view in (await caller.get("/autosaves")).json()] == ["mine"]
            assert (await caller.get("/autosaves?name=x")).status_code == 404
            assert (await caller.delete("/autosaves/mine")).status_code == 404
            body = {"name": "other", "autosave": "mine"}
            assert (await caller.post("/configurations", json=body)).status_code == 204
            assert (await caller.delete("/configurations/mine")).status_code == 204
            assert (await caller.delete("/configurations/mine")).status_code == 404

    with_api(tmp_path, work)


def test_a_console_over_the_api(tmp_path: Path) -> None:
    """What the guest says streams in, what is typed goes out, and both ends can leave."""

    async def work(manager: Manager, app: FastAPI) -> None:
        await manager.life.bind("ldg1")
        async with Caller(app) as caller:
            unknown = await caller.post("/consoles/nobody", content=b"x")
            assert (unknown.status_code, error_of(unknown)["code"]) == (404, "not-found")
            following = asyncio.create_task(caller.post("/domains/ldg1/console", json={}))
            while not (clients := manager.consoles._attachments):
                await asyncio.sleep(0)
            (identity,) = clients
            typed = await caller.post(f"/consoles/{identity}", content=b"~?~.")
            assert typed.status_code == 204
            answer = await following
            assert answer.headers[CONSOLE_HEADER] == identity
            assert 'Connecting to console "ldg1" in group "ldg1" ....' in answer.text
            assert "VNTSD commands" in answer.text
            assert not clients, "who has left is forgotten"
            inactive = await caller.post("/domains/primary/console", json={})
            assert (inactive.status_code, error_of(inactive)["code"]) == (400, "control-domain")

    with_api(tmp_path, work)
