"""What is moved by every tool, and over what link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

from ldoms.bench.solo import Image
from ldoms.model.errors import NotFound

SPARE_MIB = 256
"""Of a guest's memory, for its kernel; also the least that one has."""
FIRST_ADDRESS = 10
BEAT_MS = 100
DATABASE_MIB, DATABASE_VCPUS, CLIENTS = 1024, 2, 8


@dataclass(frozen=True, slots=True)
class Scenario:
    """Guests of one kind, and the link that they move over.

    Attributes:
        fill_mib: of each guest, written once, with what does not compress.
        change_mib, rate_mib_s: rewritten round and round, at that rate.
        guests: how many move, two at once if they are more than one.
        rate: of the link, as ``ldoms-lab shape`` takes it; empty = as fast as the machine can.
        delay: one way.
        limit_s: a migration that takes longer is called off.
        database: a PostgreSQL guest instead, whose clients order as fast as it can; it has a disk.
    """

    name: str
    fill_mib: int
    change_mib: int = 0
    rate_mib_s: int = 0
    guests: int = 1
    rate: str = ""
    delay: str = ""
    limit_s: float = 180.0
    database: bool = False

    @property
    def title(self) -> str:
        """All of it, for people."""
        if self.database:
            return f"PostgreSQL, {DATABASE_MIB} MiB, two virtual CPUs, {CLIENTS} clients, link not limited"
        parts = [f"{self.guests} guests, {self.at_once} at once"] if self.guests > 1 else []
        parts += [f"{self.fill_mib} MiB filled"] if self.fill_mib else []
        parts += [f"{self.change_mib} MiB rewritten at {self.rate_mib_s} MiB/s"] if self.change_mib else ["idle"]
        link = self.rate.replace("gbit", " Gbit/s").replace("mbit", " Mbit/s") if self.rate else "link not limited"
        return ", ".join([*parts, link, *([f"{self.delay} delay"] if self.delay else [])])

    @property
    def memory_mib(self) -> int:
        """Of each guest."""
        if self.database:
            return DATABASE_MIB
        return self.fill_mib + self.change_mib + SPARE_MIB

    @property
    def at_once(self) -> int:
        """Migrations that are under way together."""
        return min(2, self.guests)

    @property
    def shape(self) -> tuple[str, ...]:
        """The options of ``ldoms-lab shape``."""
        rate = ("--rate", self.rate) if self.rate else ()
        return (*rate, "--delay", self.delay) if self.delay else rate


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("idle", 2048),
    Scenario("10gbit", 1024, rate="10gbit"),
    Scenario("1gbit", 384, 32, 16, rate="1gbit"),
    Scenario("1gbit-far", 384, 32, 16, rate="1gbit", delay="2.5ms"),
    Scenario("200mbit-far", 128, 16, 4, rate="200mbit", delay="2.5ms"),
    Scenario("hot", 0, 128, 400, rate="1gbit", limit_s=100.0),
    Scenario("ten", 64, guests=10),
    Scenario("database", 0, database=True),
)


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest to be started and moved; the same for every tool.

    Attributes:
        image: what it boots, with its own kernel arguments.
        disk: a qcow2 file; None = it has none.
    """

    name: str
    uuid: str
    mac: str
    address: str
    memory_mib: int
    image: Image
    vcpus: int = 1
    disk: Path | None = None


def guests_of(
    scenario: Scenario, image: Image, disk: Path | None = None, network: str = "10.77.0"
) -> tuple[Guest, ...]:
    """The guests of a scenario, from the tiny image or that with a database; that one has the disk."""
    values = {"fill": scenario.fill_mib, "size": scenario.change_mib, "rate": scenario.rate_mib_s, "period": BEAT_MS}
    words = " ".join(f"pulse.{name}={value}" for name, value in values.items())
    made = []
    for number in range(scenario.guests):
        name, address = f"peer{number}", f"{network}.{FIRST_ADDRESS + number}"
        own = f"pulse.ip={address}/24 {words}"
        if scenario.database:
            own = f"root=/dev/vda ldoms.ip={address}/24 ldoms.hostname={name}"
        made.append(
            Guest(
                name=name,
                uuid=str(uuid5(NAMESPACE_OID, f"ldoms-bench-{name}")),
                mac=f"52:54:00:70:65:{number:02x}",
                address=address,
                memory_mib=scenario.memory_mib,
                image=replace(image, boot_args=f"{image.boot_args} {own}"),
                vcpus=DATABASE_VCPUS if scenario.database else 1,
                disk=disk,
            )
        )
    return tuple(made)


def chosen(names: Sequence[str], fill_mib: int = 0) -> tuple[Scenario, ...]:
    """The scenarios of these names, all if there are none; none has more filled than `fill_mib`, 0 = as it is.

    Raises:
        NotFound: there is none of that name.
    """
    known = {scenario.name: scenario for scenario in SCENARIOS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise NotFound(f"there is no scenario {unknown[0]}: there are {', '.join(known)}")
    found = [known[name] for name in names] or list(SCENARIOS)
    return tuple(replace(one, fill_mib=min(one.fill_mib, fill_mib or one.fill_mib)) for one in found)
