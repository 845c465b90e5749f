"""Consoles of domains: who shares a port, what `set-vcons` changes, what is kept, and what clients are told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ldoms.hypervisor.fake import FakeGuest
from ldoms.manager.consoles import Attachment, _Line
from ldoms.manager.manager import Manager
from ldoms.model.domain import Domain
from ldoms.model.errors import LdomsError
from unit.clock import run
from unit.manager.desk import at_desk, fake_host, furnish
from unit.migration.harness import FakeHost


async def add_second(manager: Manager) -> None:
    """A second domain that can be bound."""
    await manager.domains.add("ldg2", {})
    await manager.vcpus.set("ldg2", 1)
    await manager.memory.set("ldg2", 256)


def attach(manager: Manager, name: str = "ldg1", *, force: bool = False) -> Attachment:
    return manager.consoles.attach(manager.host.store.domain(name), force=force)


async def seen(manager: Manager, attachment: Attachment) -> str:
    """Everything that a client was shown until it was cut."""
    return b"".join([data async for data in attachment.output()]).decode()


def said(manager: Manager, name: str, text: str) -> None:
    """The guest of a domain says something."""
    uuid = manager.host.store.domain(name).uuid
    manager.consoles._consoles[uuid].console.said(text.encode())


def console_of(domain: Domain) -> tuple[str, int]:
    assert domain.bindings is not None
    return domain.bindings.console_service, domain.bindings.console_port


def test_domains_of_one_group_share_a_port(tmp_path: Path) -> None:
    """The second gets that of the first, and who asks for another is refused; the port stays until both are gone."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await add_second(manager)
        await manager.vcons.set("ldg1", {"group": "web"})
        await manager.vcons.set("ldg2", {"group": "web"})
        assert console_of(await manager.life.bind("ldg1")) == ("primary-vcc0", 5000)
        with pytest.raises(
            LdomsError, match="ldg2 asks for console port 5001, but its console group web has port 5000"
        ):
            await manager.vcons.set("ldg2", {"port": "5001"})
        assert console_of(await manager.life.bind("ldg2")) == ("primary-vcc0", 5000)
        menu = attach(manager, "ldg2")
        await manager.life.unbind("ldg1")
        await manager.life.unbind("ldg2")
        assert "LDom ldg2 has been unbound: its console is closed." in await seen(manager, menu)

    at_desk(tmp_path, work)


def test_a_group_that_asks_for_two_ports_is_told_when_it_is_bound(tmp_path: Path) -> None:
    """Neither was bound when that was said."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await add_second(manager)
        await manager.vcons.set("ldg1", {"group": "web", "port": "5000"})
        await manager.vcons.set("ldg2", {"group": "web", "port": "5001"})
        await manager.life.bind("ldg1")
        with pytest.raises(LdomsError) as caught:
            await manager.life.bind("ldg2")
        assert caught.value.code == "console-group-clash"
        await manager.vcons.set("ldg2", {"group": "other", "port": "5000"})
        with pytest.raises(LdomsError, match="port 5000 is taken by console group web, which is that of LDom ldg1"):
            await manager.life.bind("ldg2")

    at_desk(tmp_path, work)


def test_a_bound_domain_gets_its_new_console_at_once(tmp_path: Path) -> None:
    """And its clients are told where it is; the same wish again changes nothing."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.life.bind("ldg1")
        before = attach(manager)
        changed = await manager.vcons.set("ldg1", {"port": "5001"})
        assert console_of(changed) == ("primary-vcc0", 5001)
        assert "is now in group ldg1, port 5001." in await seen(manager, before)
        again = attach(manager)
        await manager.vcons.set("ldg1", {"port": "5001"})
        assert not again.client.is_gone

    at_desk(tmp_path, work)


def test_a_console_that_cannot_move_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program has taken the port in the last moment."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.life.bind("ldg1")

        async def taken(self: object, port: int) -> None:
            if port == 5001:
                raise OSError(98, "Address already in use")

        monkeypatch.setattr("unit.migration.harness.NoPort.open", taken)
        with pytest.raises(LdomsError, match="console port 5001 of LDom ldg1 cannot be opened: Address already in use"):
            await manager.vcons.set("ldg1", {"port": "5001"})
        assert console_of(manager.host.store.domain("ldg1")) == ("primary-vcc0", 5000)
        attach(manager)

    at_desk(tmp_path, work)


def test_a_console_is_logged_until_that_is_switched_off(tmp_path: Path) -> None:
    """Also while the domain is active, and nobody looks; an empty value means on."""

    async def work(host: FakeHost, manager: Manager) -> None:
        path = manager.host.places.console_log("ldg1") / "console-log"
        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        said(manager, "ldg1", "one ")
        await manager.vcons.set("ldg1", {"log": "off"})
        said(manager, "ldg1", "two ")
        await manager.vcons.set("ldg1", {"log": ""})
        said(manager, "ldg1", "three")
        assert path.read_text() == "one three"
        with pytest.raises(LdomsError, match="log=maybe has no meaning: use one of on, off"):
            await manager.vcons.set("ldg1", {"log": "maybe"})

    at_desk(tmp_path, work)


def test_a_log_outlives_its_domain_and_is_no_other_domains(tmp_path: Path) -> None:
    """It can be read after the domain was removed; a new domain of that name begins with nothing."""

    async def work(host: FakeHost, manager: Manager) -> None:
        path = manager.host.places.console_log("ldg1") / "console-log"
        await manager.life.bind("ldg1")
        said(manager, "ldg1", "a secret")
        await manager.life.unbind("ldg1")
        manager.domains.remove("ldg1")
        assert path.read_text() == "a secret"
        with pytest.raises(LdomsError):
            await manager.domains.add("ldg1", {"mac-addr": "nonsense"})
        assert path.exists()
        await manager.domains.add("ldg1", {})
        assert not path.exists()

    at_desk(tmp_path, work)


@pytest.mark.parametrize("log", ["on", "off"])
def test_what_was_said_survives_a_restart(tmp_path: Path, log: str) -> None:
    """With a log even one that nobody has asked for; a new start of the guest begins anew."""

    async def main() -> None:
        host = fake_host(tmp_path)
        manager = await host.start()
        await furnish(manager)
        await manager.vcons.set("ldg1", {"log": log})
        domain = await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        manager.host.places.domain(domain.uuid).mkdir(parents=True)  # the fake has no use for it
        said(manager, "ldg1", "Kernel panic")
        cut = attach(manager)
        await host.stop()
        assert "ldmd stops on this host; the guest goes on." in cut._waiting.decode()
        manager = await host.start()
        after = attach(manager)
        assert after._waiting.endswith(b"Kernel panic")
        if log == "on":
            manager.consoles._history_file(domain.uuid).unlink()
            host.manager = None  # killed
            manager = await host.start()
            assert attach(manager)._waiting.endswith(b"Kernel panic")
        await manager.life.stop("ldg1", force=True)
        assert attach(manager)._waiting.count(b"Kernel panic") == 1, "a guest that has ended is what one looks for"
        await manager.life.start("ldg1")
        assert b"Kernel panic" not in attach(manager)._waiting
        await host.stop()

    run(main())


def test_a_client_of_the_api(tmp_path: Path) -> None:
    """It is told whether it may write, takes that by force, and is forgotten when nobody listens any more."""

    async def work(host: FakeHost, manager: Manager) -> None:
        for name, words in (("primary", "is the host itself"), ("ldg1", "is not bound and has no console yet")):
            with pytest.raises(LdomsError, match=words):
                attach(manager, name)
        await manager.life.bind("ldg1")
        first, second = attach(manager), attach(manager)
        assert first.client.has_write_access
        assert b"Another user has write access to this console; ~w takes it." in second._waiting
        third = attach(manager, force=True)
        assert third.client.has_write_access
        assert b"forced into read-only mode" in first._waiting
        assert manager.consoles.attachment(third.id) is third
        manager.consoles.detach(third)
        with pytest.raises(LdomsError, match="it has left"):
            manager.consoles.attachment(third.id)
        assert first.client.has_write_access

    at_desk(tmp_path, work)


def test_who_does_not_listen_loses_what_is_too_much(tmp_path: Path) -> None:
    """The guest is never waited for on its account, nor are the others."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.life.bind("ldg1")
        slow = attach(manager)
        for _ in range(1000):
            said(manager, "ldg1", "x" * 4096)
        assert len(slow._waiting) <= 256 * 1024 + 4096

    at_desk(tmp_path, work)


def test_a_concentrator_gets_other_ports(tmp_path: Path) -> None:
    """Unless somebody has, or asks for, one that would be left out; or another concentrator has them."""

    async def work(host: FakeHost, manager: Manager) -> None:
        manager.concentrators.add("vcc1", "primary", "6000-6010")
        manager.concentrators.set("primary-vcc0", "5000-5010")
        await manager.vcons.set("ldg1", {"port": "5005"})
        for ports, words in (
            ("5006-5020", "port 5005 of .* attached to LDom ldg1, and is not in 5006-5020: change its console first"),
            ("5000-6000", "overlap with those of virtual console concentrator vcc1"),
            ("many", "has no meaning"),
        ):
            with pytest.raises(LdomsError, match=words):
                manager.concentrators.set("primary-vcc0", ports)
        await manager.life.bind("ldg1")
        with pytest.raises(LdomsError, match="unbind it first"):
            manager.concentrators.set("primary-vcc0", "5000-5004")
        manager.concentrators.set("primary-vcc0", "5005-5005")
        assert manager.host.store.services().concentrator("primary-vcc0").port_min == 5005

    at_desk(tmp_path, work)


def test_domains_that_are_bound_at_once_get_different_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strands and port; or the same port, if they share a group."""

    async def slowly(self: object, port: int) -> None:
        await asyncio.sleep(0.1)

    monkeypatch.setattr("unit.migration.harness.NoPort.open", slowly)

    async def work(host: FakeHost, manager: Manager) -> None:
        await add_second(manager)
        one, other = await asyncio.gather(manager.life.bind("ldg1"), manager.life.bind("ldg2"))
        assert {console_of(one)[1], console_of(other)[1]} == {5000, 5001}
        assert one.bindings is not None
        assert other.bindings is not None
        assert not set(one.bindings.strands) & set(other.bindings.strands)
        for name in ("ldg1", "ldg2"):
            await manager.life.unbind(name)
            await manager.vcons.set(name, {"group": "web"})
        one, other = await asyncio.gather(manager.life.bind("ldg1"), manager.life.bind("ldg2"))
        assert console_of(one) == console_of(other) == ("primary-vcc0", 5000)

    at_desk(tmp_path, work)


def test_a_port_that_is_taken_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The console does without: its guest is heard, logged, and reached with `ldm console`."""

    async def taken(self: object, port: int) -> None:
        raise OSError(98, "Address already in use")

    async def main() -> None:
        host = fake_host(tmp_path)
        manager = await host.start()
        await furnish(manager)
        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        await host.stop()
        with monkeypatch.context() as patch:
            patch.setattr("unit.migration.harness.NoPort.open", taken)
            manager = await host.start()
        said(manager, "ldg1", "all is well")
        assert attach(manager)._waiting.endswith(b"all is well")
        assert manager.consoles._consoles[manager.host.store.domain("ldg1").uuid].log.tail(11) == b"all is well"
        await manager.life.stop("ldg1", force=True)
        await manager.life.unbind("ldg1")
        await manager.life.bind("ldg1")
        await host.stop()

    run(main())


class Socket:
    """The guest's end of a serial line; the order of things in one list."""

    def __init__(self, guest: FakeGuest) -> None:
        self.order: list[object] = []
        self.transport = self
        self._guest = guest

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.order += [data, self._guest.breaks] if data else []

    def close(self) -> None:
        self.order.append("closed")


def test_a_break_keeps_its_place(tmp_path: Path) -> None:
    """What comes before it must not be taken for its command, and what comes after it is."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        guest = host.guest
        assert guest is not None
        there = Socket(guest)
        line = _Line(guest, there, "ldg1")  # type: ignore[arg-type]
        line.write(b"before")
        line.send_break()
        line.send_break()
        line.write(b"b")
        await asyncio.sleep(1)
        line.write(b"later")
        assert there.order == [b"before", 0, b"b", 1, b"later", 1]
        guest.die()
        line.send_break()
        await asyncio.sleep(1)
        line.write(b"into the void")
        assert there.order[-2] == b"into the void", "a break that cannot be sent holds up nothing"
        line.close()

    at_desk(tmp_path, work)
