# ruff: noqa: E501 - the tables read best with a case a line

"""What the manager refuses: with one sentence that names the thing, a stable code, and nothing changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from pathlib import Path

import pytest

from ldoms.manager.manager import Manager
from ldoms.model.errors import LdomsError
from unit.manager.desk import at_desk
from unit.migration.harness import FakeHost

Verb = Callable[[Manager], object | Awaitable[object]]

INACTIVE: tuple[tuple[str, Verb, str, str], ...] = (
    ("add-domain twice", lambda m: m.domains.add("ldg1", {}), "already-exists", "LDom ldg1 already exists"),
    ("add-domain bad name", lambda m: m.domains.add("a b", {}), "bad-name", "'a b' cannot name a domain"),
    ("add-domain same uuid", lambda m: m.domains.add("x", {"uuid": m.host.store.domain("ldg1").uuid}), "already-exists", "with the UUID"),
    ("add-domain bad uuid", lambda m: m.domains.add("x", {"uuid": "1"}), "bad-property", "'1' is not a UUID"),
    ("add-domain same mac", lambda m: m.domains.add("x", {"mac-addr": m.host.store.domain("ldg1").mac}), "mac-in-use", "is in use by LDom ldg1"),
    ("add-domain bad mac", lambda m: m.domains.add("x", {"mac-addr": "zz"}), "bad-mac", "is not a MAC address"),
    ("add-domain bad property", lambda m: m.domains.add("x", {"colour": "red"}), "bad-property", "property colour is not known"),
    ("add-domain bad hostid", lambda m: m.domains.add("x", {"hostid": "0x1ffffffff"}), "bad-property", "at most 32 bits"),
    ("set-domain bad arch", lambda m: m.domains.set("ldg1", {"cpu-arch": "vax"}), "bad-property", "cpu-arch=vax has no meaning: use one of native"),
    ("add-domain bad boot-policy", lambda m: m.domains.add("x", {"boot-policy": "foo"}), "bad-property", "boot-policy=foo has no meaning: use one of enforce, none, warning"),
    ("set-domain bad mapin", lambda m: m.domains.set("ldg1", {"extended-mapin-space": "maybe"}), "bad-property", "use one of on, off"),
    ("set-domain bad rc-add-policy", lambda m: m.domains.set("ldg1", {"rc-add-policy": "all"}), "bad-property", "use one of iov"),
    ("set-domain uuid", lambda m: m.domains.set("ldg1", {"uuid": "x"}), "bad-property", "UUID of a domain cannot be changed"),
    ("set-domain group", lambda m: m.domains.set("ldg1", {"shutdown-group": "16"}), "bad-property", "between 0 and 15"),
    ("set-domain unknown master", lambda m: m.domains.set("ldg1", {"master": "nobody"}), "not-found", "LDom nobody was not found"),
    ("set-domain own master", lambda m: m.domains.set("ldg1", {"master": "ldg1"}), "dependency-circle", "that would be a circle"),
    ("set-domain many masters", lambda m: m.domains.set("ldg1", {"master": "a,b,c,d,e"}), "bad-property", "at most 4 masters"),
    ("remove-domain unknown", lambda m: m.domains.remove("nobody"), "not-found", "LDom nobody was not found"),
    ("remove-domain primary", lambda m: m.domains.remove("primary"), "control-domain", "primary is the control domain"),
    ("set-variable name", lambda m: m.domains.set_variables("ldg1", {"a b": "c"}), "bad-name", "'a b' cannot name a variable"),
    ("remove-variable unknown", lambda m: m.domains.remove_variables("ldg1", ["x"]), "not-found", "Variable x was not found in LDom ldg1"),
    ("add-vdisk twice", lambda m: m.disks.add("ldg1", "vdisk0", "a", "primary-vds0", 0, None), "already-exists", "disk vdisk0 already exists in LDom ldg1"),
    ("add-vdisk volume in use", lambda m: m.disks.add("ldg1", "vdisk1", "a", "primary-vds0", 0, None), "volume-in-use", "volume a@primary-vds0 is in use by disk vdisk0 of LDom ldg1"),
    ("add-vdisk no volume", lambda m: m.disks.add("ldg1", "vdisk1", "z", "primary-vds0", 0, None), "not-found", "Volume z@primary-vds0 was not found"),
    ("add-vdisk no service", lambda m: m.disks.add("ldg1", "vdisk1", "a", "nowhere", 0, None), "not-found", "Virtual disk service nowhere was not found"),
    ("remove-vdisk unknown", lambda m: m.disks.remove("ldg1", "x", force=False), "not-found", "Disk x was not found in LDom ldg1"),
    ("add-vdisk to primary", lambda m: m.disks.add("primary", "x", "a", "primary-vds0", 0, None), "control-domain", "LDom primary is the host itself"),
    ("add-vnet twice", lambda m: m.networks.add("ldg1", "vnet0", "primary-vsw0", {}), "already-exists", "virtual network vnet0 already exists"),
    ("add-vnet no switch", lambda m: m.networks.add("ldg1", "vnet1", "nowhere", {}), "not-found", "Virtual switch nowhere was not found"),
    ("add-vnet mtu", lambda m: m.networks.add("ldg1", "vnet1", "primary-vsw0", {"mtu": "9000"}), "bad-property", "virtual switch primary-vsw0 takes 1500 to 1500"),
    ("add-vnet id", lambda m: m.networks.add("ldg1", "vnet1", "primary-vsw0", {"id": "0"}), "id-in-use", "id 0 is taken by another network of LDom ldg1"),
    ("add-vnet high id", lambda m: m.networks.add("ldg1", "vnet1", "primary-vsw0", {"id": "64"}), "bad-property", "63 is the last"),
    ("add-vnet no number", lambda m: m.networks.add("ldg1", "vnet1", "primary-vsw0", {"id": "x"}), "bad-property", "id=x is not a number"),
    ("remove-vnet unknown", lambda m: m.networks.remove("ldg1", "x"), "not-found", "Virtual network x was not found in LDom ldg1"),
    ("set-vcons port", lambda m: m.vcons.set("ldg1", {"port": "6000"}), "bad-property", "port 6000 is not in the range"),
    ("set-vcons group", lambda m: m.vcons.set("ldg1", {"group": "a|b"}), "bad-name", "cannot name a console group"),
    ("set-vcons service", lambda m: m.vcons.set("ldg1", {"service": "x"}), "not-found", "concentrator x was not found"),
    ("set-vcpu none", lambda m: m.vcpus.set("ldg1", 0), "last-vcpu", "must keep at least one"),
    ("set-vcpu more than there is", lambda m: m.vcpus.set("ldg1", 9), "no-strands", "needs 8 free strands, and 6 of this host's 8 are free"),
    ("set-memory more than there is", lambda m: m.memory.set("ldg1", 9000), "no-memory", "4096M of this host's 8192M are free"),
    ("remove-memory all", lambda m: m.memory.remove("ldg1", 1024), "last-memory", "must keep at least 4M"),
    ("set-memory unaligned", lambda m: m.memory.set("primary", 4000), "bad-alignment", "Instead, run ldm set-mem 4096M primary"),
    ("set-crypto too many", lambda m: m.crypto.set("ldg1", 4097), "bad-property", "cannot ask for 4097: the number is from 0 to 4096"),
    ("remove-crypto too many", lambda m: m.crypto.remove("ldg1", 1), "bad-property", "asks for 0 cryptographic units and cannot ask for -1"),
    ("primary over all", lambda m: m.vcpus.add("primary", 7), "no-strands", "LDom primary cannot get 9 virtual CPUs"),
    ("add-vds twice", lambda m: m.disk_services.add("primary-vds0", "primary"), "already-exists", "virtual disk service primary-vds0 already exists"),
    ("add-vds elsewhere", lambda m: m.disk_services.add("x", "ldg1"), "no-service-domain", "LDom ldg1 cannot be a service domain"),
    ("remove-vds in use", lambda m: m.disk_services.remove("primary-vds0", force=False), "service-in-use", "volume a@primary-vds0 is attached to LDom ldg1"),
    ("add-vdsdev missing", lambda m: m.disk_services.add_volume("primary-vds0", "z", "/none", (), "", force=False, quick=False), "no-image", "there is no file or device /none"),
    ("add-vdsdev relative", lambda m: m.disk_services.add_volume("primary-vds0", "z", "a.qcow2", (), "", force=False, quick=False), "bad-path", "full path"),
    ("add-vdsdev option", lambda m: m.disk_services.add_volume("primary-vds0", "z", "/images/b.raw", ("fast",), "", force=False, quick=False), "bad-property", "options=fast has no meaning"),
    ("add-vdsdev twice", lambda m: m.disk_services.add_volume("primary-vds0", "z", "/images/a.qcow2", (), "", force=False, quick=False), "backend-in-use", "is offered as volume a already"),
    ("remove-vdsdev in use", lambda m: m.disk_services.remove_volume("primary-vds0", "a", force=False), "service-in-use", "remove it there first, or use -f"),
    ("add-vsw mtu", lambda m: m.switches.add("x", "primary", {"mtu": "100"}), "bad-property", "mtu=100 is out of range: use 1500 to 16000"),
    ("add-vsw uplink", lambda m: m.switches.add("x", "primary", {"net-dev": "eth9"}), "no-interface", "no network interface eth9"),
    ("add-vsw id", lambda m: m.switches.add("x", "primary", {"id": "0"}), "id-in-use", "id 0 is taken"),
    ("remove-vsw in use", lambda m: m.switches.remove("primary-vsw0", force=False), "service-in-use", "virtual switch primary-vsw0 is attached to LDom ldg1"),
    ("add-vcc range", lambda m: m.concentrators.add("x", "primary", "80-90"), "bad-property", "port-range=80-90 has no meaning"),
    ("add-vcc overlap", lambda m: m.concentrators.add("x", "primary", "5001-5002"), "bad-property", "overlap with those of virtual console concentrator primary-vcc0"),
    ("remove-vcc unknown", lambda m: m.concentrators.remove("x", force=False), "not-found", "concentrator x was not found"),
    ("start-domain inactive", lambda m: m.life.start("ldg1"), "domain-inactive", "bind it first ('ldm bind-domain ldg1')"),
    ("stop-domain inactive", lambda m: m.life.stop("ldg1", force=False), "domain-not-active", "LDom ldg1 is not active"),
    ("unbind-domain inactive", lambda m: m.life.unbind("ldg1"), "domain-inactive", "LDom ldg1 is not bound"),
    ("start-domain primary", lambda m: m.life.start("primary"), "control-domain", "runs already"),
    ("stop-domain primary", lambda m: m.life.stop("primary", force=True), "control-domain", "shut the host down"),
    ("unbind-domain primary", lambda m: m.life.unbind("primary"), "control-domain", "always bound"),
    ("cancel nothing", lambda m: m.migrations.cancel("ldg1", force=False), "no-migration", "no migration of LDom ldg1 is under way"),
    ("claim nothing", lambda m: m.migrations.claim("ldg1"), "no-copy", "no copy of LDom ldg1 waits"),
    ("report unknown", lambda m: m.migrations.report("0"), "not-found", "migration 0 was not found"),
)  # fmt: skip

ACTIVE: tuple[tuple[str, Verb, str, str], ...] = (
    ("bind-domain", lambda m: m.life.bind("ldg1"), "domain-bound", "LDom ldg1 is bound already"),
    ("start-domain", lambda m: m.life.start("ldg1"), "domain-active", "LDom ldg1 is active already"),
    ("unbind-domain", lambda m: m.life.unbind("ldg1"), "domain-active", "stop it first ('ldm stop-domain ldg1')"),
    ("remove-domain", lambda m: m.domains.remove("ldg1"), "domain-bound", "stop it and unbind it first"),
    ("set-vcpu none", lambda m: m.vcpus.set("ldg1", 0), "last-vcpu", "has 1 virtual CPU and must keep at least one"),
    ("add-vcpu more than is free", lambda m: m.vcpus.add("ldg1", 6), "no-strands", "needs 6 free strands, and 5 of this host's 8 are free"),
    ("add-vcpu more than sockets", lambda m: m.vcpus.add("ldg1", 8), "no-socket", "cannot have more than 8 virtual CPUs until it is bound again"),
    ("set-memory below", lambda m: m.memory.set("ldg1", 512), "boot-memory", "LDom ldg1 was started with 1024M, which a running guest cannot give back: at most 0M of its 1024M can be removed"),
    ("set-memory unaligned", lambda m: m.memory.set("ldg1", 2000), "bad-alignment", "A ldm set-mem 2000M command would add 976MB, which is not a\nmultiple of 256MB. Instead, run ldm set-mem 1792M ldg1\nto ensure"),
    ("remove-memory unaligned", lambda m: m.memory.remove("ldg1", 100), "bad-alignment", "A ldm rm-mem 100M command would remove 100MB"),
    ("remove-memory all", lambda m: m.memory.remove("ldg1", 1024), "last-memory", "must keep at least 4M"),
    ("remove-memory --auto-adj", lambda m: m.memory.remove("ldg1", 255, adjusted=True), "bad-alignment", "nothing is left of it when it is rounded down"),
    ("add-memory too much", lambda m: m.memory.add("ldg1", 8192), "no-memory-room", "cannot have more than 8192M while it runs"),
    ("add-memory more than is free", lambda m: m.memory.add("ldg1", 4096), "no-memory", "3072M of this host's 8192M are free"),
    ("cancel memdr", lambda m: m.memory.cancel("ldg1"), "no-memory-change", "no change of the memory of LDom ldg1 is under way"),
    ("set-domain cpu-arch", lambda m: m.domains.set("ldg1", {"cpu-arch": "generic"}), "domain-bound", "cannot be changed while it is bound"),
    ("set-vcons", lambda m: m.vcons.set("ldg1", {"port": "5001"}), "domain-active", "only log= can be changed while it runs"),
    ("remove-vdsdev -f", lambda m: m.disk_services.remove_volume("primary-vds0", "a", force=True), "service-in-use", "which is bound: unbind it first"),
    ("remove-vsw -f", lambda m: m.switches.remove("primary-vsw0", force=True), "service-in-use", "which is bound: unbind it first"),
    ("remove-vcc -f", lambda m: m.concentrators.remove("primary-vcc0", force=True), "service-in-use", "which is bound: unbind it first"),
)  # fmt: skip


async def refuse(host: FakeHost, manager: Manager, verb: Verb, code: str, words: str) -> None:
    """Call the verb, and compare the host before and after."""

    def everything() -> object:
        return (host.store.domains(), host.store.services(), dict(host.network.taps), dict(host.network.bridges))

    before = everything()

    async def ask() -> None:
        answer = verb(manager)
        if isawaitable(answer):
            await answer

    with pytest.raises(LdomsError) as caught:
        await ask()
    assert caught.value.code == code, caught.value.message
    assert words in caught.value.message
    assert everything() == before, "something was changed although the request was refused"


@pytest.mark.parametrize(("verb", "code", "words"), [case[1:] for case in INACTIVE], ids=[case[0] for case in INACTIVE])
def test_of_an_inactive_domain(tmp_path: Path, verb: Verb, code: str, words: str) -> None:
    """Each row of the table."""
    at_desk(tmp_path, lambda host, manager: refuse(host, manager, verb, code, words))


@pytest.mark.parametrize(("verb", "code", "words"), [case[1:] for case in ACTIVE], ids=[case[0] for case in ACTIVE])
def test_of_an_active_domain(tmp_path: Path, verb: Verb, code: str, words: str) -> None:
    """Each row of the table."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        await refuse(host, manager, verb, code, words)

    at_desk(tmp_path, work)
