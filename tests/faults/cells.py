"""One cell of the fault matrix, on a lab: a migration is held, something breaks, is mended, and what then is looked at.

What is asked is asked from outside: the kernel says which QEMU uses CPU, the guest what it has counted, its disk what
it has written and where, and `ldm` and the file system of each host what is left.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from faults.disk import (
    RECORDS,
    RING_BYTES,
    Witness,
    check_acknowledged,
    check_chain,
    check_hosts,
    check_left_behind,
    parse,
    tell_hosts,
    witness,
)
from faults.matrix import BOTH, COPIED, COPYING, DISKS_COPYING, FETCHING, IN_PARTS, POSTCOPY, SOURCE, Cell
from ldoms.cli.migrate import UNKEPT
from ldoms.lab import lab as labs
from ldoms.lab.links import Cut, Shape
from support import Hosts, Watch, kill_command, other, wait_until

SETTLE_S = 120.0
TORN_S = 3.0
STEP_S = 3600.0
STATE_MIB = 24
"""Size of the file system of a host's state, so that it can be filled."""
DATA_BYTES = 12 << 20
"""Of a disk that is copied: what the guest never writes to, behind what it does."""
LINK, SLOW = Shape(rate_bit_s=80_000_000), Shape(rate_bit_s=12_000_000)
"""For postcopy: too slow for the guest; and what it then lacks comes so slowly that something can break meanwhile."""
_GUESTS = {POSTCOPY: {"pulse_fill": 8, "pulse_size": 16, "pulse_rate": 400}}
_USUAL_GUEST = {"pulse_fill": 32, "pulse_size": 8, "pulse_rate": 4}
_LISTEN = """
import socket, sys, time
socket.create_server((sys.argv[1], 8101)); print("ready", flush=True); time.sleep(3600)
"""


@dataclass(frozen=True)
class Disk:
    """What is known of the guest's records before anything breaks.

    Attributes:
        heard: what it says of them meanwhile.
        boot: the start of the guest that is migrated.
        first: its last record on the source for sure.
        older: earlier starts.
    """

    heard: Witness
    boot: str
    first: int
    older: frozenset[str]


@dataclass
class Held:
    """A migration that is held at some point, where something is about to break."""

    hosts: Hosts
    cell: Cell
    guest: str
    uuid: str
    source: str
    command: subprocess.Popen[str]
    host: str = ""
    """The one that the fault is about."""
    killed: str = ""
    """The host whose QEMU was killed, if it had one."""
    ended: bool = False
    """`ldm` was killed, so that it says nothing."""
    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


@contextlib.contextmanager
def prepared(hosts: Hosts) -> Iterator[None]:
    """Make the hosts of a new lab what the cells need; at the end their guests are gone.

    The state of each is on a file system of its own, which is small; each QEMU tells its guest where it runs; what is
    in ``own`` of the lab is on each host another directory; and the clock of each manager can be stepped.
    """
    before = os.environ.get("PYTHONPATH", "")
    clock = Path(__file__).with_name("clock")
    os.environ |= {"PYTHONPATH": f"{clock}:{before}".rstrip(":"), "STEPPED_CLOCKS": str(hosts.lab.path)}
    try:
        _prepare(hosts)
        yield
        forget_guests(hosts)
    finally:
        del os.environ["STEPPED_CLOCKS"]
        os.environ["PYTHONPATH"] = before


def _prepare(hosts: Hosts) -> None:
    tell_hosts(hosts)
    (hosts.lab.path / "own").mkdir()
    for host in hosts.lab.hosts:
        _limit_state(hosts, host)
        _own(hosts, host).mkdir()
        hosts.lab.space(host).run(["mount", "--bind", str(_own(hosts, host)), str(hosts.lab.path / "own")])


def _limit_state(hosts: Hosts, host: str) -> None:
    hosts.kill_manager(host)
    state = hosts.lab.root(host) / "var/lib/ldoms"
    script = f'cp -a "$0" "$0.kept" && mount -t tmpfs -o size={STATE_MIB}m,mode=700 none "$0" && cp -a "$0.kept/." "$0"'
    hosts.lab.space(host).run(["sh", "-c", script, str(state)])
    hosts.start_manager(host)


def _own(hosts: Hosts, host: str) -> Path:
    return hosts.lab.path / f"own-{host}"


def image(hosts: Hosts, storage: str, guest: str, host: str) -> Path:
    """The image of a guest's disk that a host has."""
    return (_own(hosts, host) if storage == COPIED else hosts.lab.shared) / f"{guest}.img"


def _volume(guest: str) -> str:
    return f"{guest}-data@primary-vds0"


def _give_disk(hosts: Hosts, storage: str, guest: str) -> None:
    """Give the domain a disk, before it is started: one that all hosts have, or one that t4-1 has."""
    first, *others = hosts.lab.hosts
    with image(hosts, storage, guest, first).open("wb") as file:
        file.truncate(RING_BYTES)
        file.seek(RING_BYTES)
        file.write(os.urandom(DATA_BYTES) if storage == COPIED else b"")
    path = (hosts.lab.path / "own" if storage == COPIED else hosts.lab.shared) / f"{guest}.img"
    for host in (first,) if storage == COPIED else (first, *others):
        hosts.ldm(host, "add-vdsdev", str(path), _volume(guest))
    hosts.ldm(first, "add-vdisk", "data", _volume(guest), guest)


def run_cell(hosts: Hosts, cell: Cell, guest: str, source: str) -> dict[str, object]:
    """Break it, mend it, and ask everything; the result for the record.

    Raises:
        AssertionError: a promise is broken.
    """
    before = hosts.ask(guest)[0]
    here = image(hosts, cell.storage, guest, source)
    boots, data = {record.boot for record in parse(here.read_bytes())}, _data(here)
    with witness(hosts, guest) as heard:
        boot, first = heard.said[-1]
        held = _hold(hosts, cell, guest, source)
        held.host = source if cell.fault.place == SOURCE else other(source)
        try:
            with Watch(hosts, held.uuid) as watch:
                began = time.monotonic()
                with held.undo:
                    _BREAKS[cell.fault.kind](held)
                    _go_on(held)
                    time.sleep(cell.fault.hold_s)
                    _ask_meanwhile(held)
                mended = time.monotonic()
                _hurry(held)
                _wait_settled(held)
                settled_s = time.monotonic() - mended
            watch.check()
            result = _ask(held, before)
            _ask_storage(held, data)
            disk = Disk(heard, boot, first, frozenset(boots - {boot}))
            result["records"] = _eventually(lambda: _ask_disk(held, disk, runs=result["guest"] == "runs"))
        finally:
            kill_command(held.command)
    return result | {"seconds": round(mended - began, 1), "settled_s": round(settled_s, 1)}


def _hold(hosts: Hosts, cell: Cell, guest: str, source: str) -> Held:
    view = hosts.view(source, guest)
    assert view is not None
    options = ["--copy-storage"] if cell.storage == COPIED else []
    if cell.way == POSTCOPY:
        return Held(hosts, cell, guest, view["domain"]["uuid"], source, _hold_in_parts(hosts, cell, guest, source))
    if cell.point.gate == COPYING:
        command = hosts.start(source, *hosts.migrate_words(guest, source, *options, "--max-bandwidth", "16M"))
        wait_until(lambda: _memory_percent(hosts, source, guest) >= 10, 30, "the copy does not begin")
    elif cell.point.gate == DISKS_COPYING:
        command = hosts.start(source, *hosts.migrate_words(guest, source, *options, "--max-bandwidth", "4M"))
        wait_until(lambda: _copied_bytes(hosts, source, guest) > 0, 30, "the disks are not copied")
    else:
        hosts.close_gate(cell.point.gate)
        command = hosts.start(source, *hosts.migrate_words(guest, source, *options))
        hosts.wait_at_gate(cell.point.gate)
    return Held(hosts, cell, guest, view["domain"]["uuid"], source, command)


def _hold_in_parts(hosts: Hosts, cell: Cell, guest: str, source: str) -> subprocess.Popen[str]:
    """A guest that goes over before all of its memory has, held on its way."""
    hosts.shape(LINK)
    gate = {COPYING: "", FETCHING: "source-suspend"}.get(cell.point.gate, cell.point.gate)
    if gate:
        hosts.close_gate(gate)
    command = hosts.start(source, *hosts.migrate_words(guest, source, "--on-stall=postcopy", "--max-suspend=300ms"))
    if gate:
        hosts.wait_at_gate(gate)
    else:
        wait_until(lambda: hosts.progress(source, guest) >= 10, 30, "the copy does not begin")
    hosts.shape(SLOW)
    if cell.point.gate == FETCHING:
        hosts.open_gate(gate)
        wait_until(lambda: _phase(hosts, source, guest) == POSTCOPY, 60, "it does not come to postcopy")
    return command


def _phase(hosts: Hosts, source: str, guest: str) -> str:
    view = hosts.view(source, guest)
    migration = view and view["status"]["migration"]
    return str(migration["phase"]) if migration else ""


def _figures(hosts: Hosts, source: str, guest: str) -> dict[str, Any]:
    operations = hosts.lab.client(source).get("/operations")
    return next((one["figures"] for one in operations if one["domain"] == guest and one["status"] == "running"), {})


def _copied_bytes(hosts: Hosts, source: str, guest: str) -> int:
    """Of the disks, while they alone are copied."""
    figures = _figures(hosts, source, guest)
    return sum(disk["copied_bytes"] for disk in figures["disks"]) if figures.get("status") == "disks" else 0


def _memory_percent(hosts: Hosts, source: str, guest: str) -> int:
    """How far the migration is, once the disks are copied."""
    return hosts.progress(source, guest) if _figures(hosts, source, guest).get("status") != "disks" else 0


def _hurry(held: Held) -> None:
    """What is still slow need not be any more; it may have ended."""
    if held.cell.way == POSTCOPY:
        held.hosts.shape(Shape())
    if held.cell.point.gate == DISKS_COPYING:
        held.hosts.run(held.source, "ldm", "set-migration", held.guest, "max-bandwidth=0")


def _go_on(held: Held) -> None:
    held.hosts.open_gate(held.cell.point.gate)


def _died(held: Held) -> str:
    """The host that has lost its QEMU, or all that it had; empty = none."""
    return held.killed or (held.host if held.cell.fault.kind == "host-gone" else "")


def _is_in_parts(cell: Cell) -> bool:
    return cell.way == POSTCOPY and cell.point.gate in IN_PARTS


def _wait_settled(held: Held) -> None:
    hosts = held.hosts
    if not held.ended:
        held.command.wait(SETTLE_S)
    hosts.settle(held.guest, SETTLE_S)
    wait_until(lambda: len(hosts.place(held.guest)) == 1, SETTLE_S, f"{held.guest} is on {hosts.place(held.guest)}")


def _ask(held: Held, before: int) -> dict[str, object]:
    hosts, guest = held.hosts, held.guest
    (host,) = hosts.place(guest)
    said = None if held.ended else held.command.returncode
    if said is not None and not (held.cell.fault.kind == "host-gone" and held.host == held.source):
        complaint = held.command.stderr.read() if held.command.stderr else ""
        may_be_lost = bool(_died(held)) and _is_in_parts(held.cell)
        wanted = (1, UNKEPT) if host == held.source else (0, 1) if may_be_lost else (0,)
        assert said in wanted, f"ldm says {said}, the domain is on {host}: {complaint}"
    wait_until(lambda: _is_clean(hosts, other(host)), 30, f"{other(host)} is not clean")
    hosts.check_clean(other(host))
    state = hosts.state(host, guest)
    # In parts it dies with the other host, too, and then `ldm` must not have said that it has moved.
    lost = bool(_died(held)) and (_died(held) == host or (_is_in_parts(held.cell) and said != 0))
    if lost:
        assert state in ("bound", "active"), f"the guest that has died is listed as {state}"
    else:
        wait_until(lambda: hosts.state(host, guest) == "active", 10, f"the guest is {state}")
        wait_until(lambda: hosts.answers(guest), 30, "the guest does not answer")
        count, errors = hosts.ask(guest)
        assert errors == 0, "the guest's memory was damaged"
        assert count > before, "the guest did not go on from where it was"
    return {"on": "source" if host == held.source else "target", "guest": "died" if lost else "runs", "ldm": said}


def _ask_meanwhile(held: Held) -> None:
    """Before it is mended: a guest that does not run is listed as one that does not, or cannot be listed at all."""
    hosts = held.hosts
    if held.cell.fault.hold_s == 0 or "hung" in held.cell.fault.kind or hosts.answers(held.guest):
        return
    shown = {}
    for host in hosts.lab.hosts:
        if labs.manager_process(hosts.lab, host) is None:
            return
        shown[host] = (hosts.state(host, held.guest), hosts.flags(host, held.guest))
    assert any(state in ("bound", "suspended") or flags[5:] in ("s", "t", "e") for state, flags in shown.values()), (
        f"the guest does not run, and ldm shows {shown}"
    )


def _data(path: Path) -> str:
    """What the guest does not write to."""
    return hashlib.sha256(path.read_bytes()[RING_BYTES:]).hexdigest()


def _ask_storage(held: Held, data: str) -> None:
    """Where both hosts have an image: the target's is there if the guest is, and the source's is there anyway."""
    if held.cell.storage != COPIED:
        return
    hosts, guest, target = held.hosts, held.guest, other(held.source)
    (now,) = hosts.place(guest)
    for host in {held.source, now}:
        assert _data(image(hosts, COPIED, guest, host)) == data, f"the image on {host} was damaged"
    wanted = {held.source: [f"{guest}.img"], target: [f"{guest}.img"] if now == target else []}
    wait_until(lambda: {host: _files(hosts, host) for host in wanted} == wanted, 30, "images are left, or gone")
    has_volume = _volume(guest).split("@")[0] in hosts.ldm(target, "list-services")
    assert has_volume == (now == target), f"{target} has{'' if has_volume else ' not'} the volume of {guest}"


def _files(hosts: Hosts, host: str) -> list[str]:
    return sorted(path.name for path in _own(hosts, host).iterdir())


def _ask_disk(held: Held, disk: Disk, *, runs: bool) -> int:
    """What the guest has written is on its disk, all of it, and was written in one place at a time; how much it was."""
    hosts, guest = held.hosts, held.guest
    acknowledged = disk.heard.of(disk.boot)
    (now,) = hosts.place(guest)
    records = parse(image(hosts, held.cell.storage, guest, now).read_bytes())
    overwritten = {record.count % RECORDS for record in records if record.boot not in (disk.boot, *disk.older)}
    chain = check_chain(records, disk.boot, overwritten)
    check_acknowledged(chain, acknowledged, overwritten)
    check_hosts(chain, disk.first, held.source, now)
    if runs:
        assert chain[-1].host == now, f"the guest is on {now}, and says it is on {chain[-1].host}"
        assert chain[-1].count > disk.first, "the guest does not write any more"
    if held.cell.storage == COPIED and now != held.source:
        left = parse(image(hosts, COPIED, guest, held.source).read_bytes())
        check_chain(left, disk.boot)
        check_left_behind(left, chain)
    return len(acknowledged)


def _eventually(question: Callable[[], int]) -> int:
    """Looked at while the guest writes, a file can have the next record and not yet the last one: not for long."""
    deadline = time.monotonic() + TORN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(AssertionError):
            return question()
        time.sleep(0.1)
    return question()


def _is_clean(hosts: Hosts, host: str) -> bool:
    with contextlib.suppress(AssertionError):
        hosts.check_clean(host)
        return True
    return False


# What breaks


def _qemu(held: Held) -> psutil.Process | None:
    return held.hosts.qemus(held.uuid).get(held.host)


def _kill_qemu(held: Held) -> None:
    process = _qemu(held)
    if process is not None:
        held.killed = held.host
        process.kill()
        wait_until(lambda: _has_ended(process), 10, "QEMU does not die")


def _hang_qemu(held: Held) -> None:
    process = _qemu(held)
    if process is not None:
        _stop(held, process)


def _kill_manager(held: Held) -> None:
    hosts = held.hosts.lab.hosts if held.cell.fault.place == BOTH else (held.host,)
    for host in hosts:
        held.hosts.kill_manager(host)
    _go_on(held)
    for host in hosts:
        held.hosts.start_manager(host)


def _hang_manager(held: Held) -> None:
    process = labs.manager_process(held.hosts.lab, held.host)
    assert process is not None
    _stop(held, process)


def _lose_host(held: Held) -> None:
    labs.power_off(held.hosts.lab, held.host)
    held.undo.callback(labs.power_on, held.hosts.lab, held.host)


def _fill_disk(held: Held) -> None:
    state, space = held.hosts.lab.root(held.host) / "var/lib/ldoms", held.hosts.lab.space(held.host)
    space.run(["sh", "-c", 'dd if=/dev/zero of="$0/filler" bs=4096 2>/dev/null || true', str(state)])
    held.undo.callback(space.run, ["rm", "-f", str(state / "filler")])


def _step_clock(held: Held) -> None:
    step = held.hosts.lab.path / f"clock-{held.host}"
    step.with_suffix(".new").write_text(f"{STEP_S}")
    step.with_suffix(".new").rename(step)
    held.undo.callback(step.unlink)


def _shape(shape: Shape) -> Callable[[Held], None]:
    def change(held: Held) -> None:
        one = held.source if shape.cut in (Cut.OUT, Cut.IN) else ""
        held.undo.callback(held.hosts.shape, Shape(), one)
        held.hosts.shape(shape, one)

    return change


def _take_image(held: Held) -> None:
    """The image that both hosts have; or one host's storage, as if it had been unmounted, where it has its own."""
    hosts = held.hosts
    if held.cell.storage == COPIED:
        own, space = str(hosts.lab.path / "own"), hosts.lab.space(held.host)
        space.run(["umount", "--lazy", own])
        held.undo.callback(space.run, ["mount", "--bind", str(_own(hosts, held.host)), own])
        return
    path = image(hosts, held.cell.storage, held.guest, held.host)
    away = path.with_suffix(".away")
    path.rename(away)
    held.undo.callback(away.rename, path)


def _take_port(held: Held) -> None:
    words = held.hosts.command(held.host, sys.executable, "-c", _LISTEN, held.hosts.lab.address(held.host))
    listener = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    held.undo.callback(kill_command, listener)
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"


def _kill_ldm(held: Held) -> None:
    kill_command(held.command)
    held.ended = True


_BREAKS: dict[str, Callable[[Held], None]] = {
    "qemu-killed": _kill_qemu,
    "qemu-hung": _hang_qemu,
    "ldmd-killed": _kill_manager,
    "ldmd-hung": _hang_manager,
    "host-gone": _lose_host,
    "disk-full": _fill_disk,
    "clock-step": _step_clock,
    "cut-control": _shape(Shape(cut=Cut.CONTROL)),
    "cut-data": _shape(Shape(cut=Cut.DATA)),
    "cut-both": _shape(Shape(cut=Cut.ALL)),
    "cut-to-target": _shape(Shape(cut=Cut.OUT)),
    "cut-to-source": _shape(Shape(cut=Cut.IN)),
    "loss-5-percent": _shape(Shape(loss=0.05)),
    "rate-10-mbit": _shape(Shape(rate_bit_s=10_000_000)),
    "image-gone": _take_image,
    "port-taken": _take_port,
    "ldm-killed": _kill_ldm,
}


def _stop(held: Held, process: psutil.Process) -> None:
    process.send_signal(signal.SIGSTOP)
    held.undo.callback(_continue, process)


def _continue(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(signal.SIGCONT)


def _has_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@contextlib.contextmanager
def place(hosts: Hosts, cell: Cell) -> Iterator[tuple[str, str]]:
    """A guest for a cell, and the host that it runs on; and the hosts in order again afterwards."""
    storage, wanted = cell.storage, _GUESTS.get(cell.way, _USUAL_GUEST)
    name = next((view for host in hosts.lab.hosts for view in _guests(hosts, host)), "")
    if name and not _is_like(hosts, name, storage, wanted["pulse_rate"]):
        forget_guests(hosts)
        name = ""
    if not name:
        name = hosts.add_guest(**wanted, pulse_disk=RECORDS)
        _give_disk(hosts, storage, name)
    (host,) = hosts.place(name)
    if storage == COPIED:
        _forget_disk(hosts, name, other(host))
    if hosts.state(host, name) == "bound":
        hosts.boot(name, host)
    wait_until(lambda: hosts.answers(name), 60, "the guest does not answer")
    wait_until(lambda: hosts.flags(host, name)[1] == "n", 30, "the host does not see that the guest has booted")
    try:
        yield name, host
    finally:
        for gate in hosts.gates.glob("*"):
            gate.unlink()
        hosts.shape(Shape())
        for host in hosts.lab.hosts:
            hosts.start_manager(host)


def _is_like(hosts: Hosts, guest: str, storage: str, rate: int) -> bool:
    """Whether a guest that is there has a disk of that kind, and changes its memory at that rate."""
    has_disk = any(image(hosts, storage, guest, host).exists() for host in hosts.lab.hosts)
    arguments = [
        dict(view["domain"]["variables"]).get("boot-args", "").split()
        for host in hosts.lab.hosts
        if (view := hosts.view(host, guest))
    ]
    return has_disk and all(f"pulse.rate={rate}" in words for words in arguments)


def forget_guests(hosts: Hosts) -> None:
    """Remove all guests, wherever they are, and their disks."""
    names = [name for host in hosts.lab.hosts for name in _guests(hosts, host)]
    for name in names:
        hosts.remove_guest(name)
        for host in hosts.lab.hosts:
            _forget_disk(hosts, name, host)


def _forget_disk(hosts: Hosts, guest: str, host: str) -> None:
    hosts.run(host, "ldm", "remove-vdsdev", _volume(guest))
    for path in (hosts.lab.shared, _own(hosts, host)):
        (path / f"{guest}.img").unlink(missing_ok=True)


def _guests(hosts: Hosts, host: str) -> list[str]:
    views = hosts.lab.client(host).get("/domains")
    return [view["domain"]["name"] for view in views if view["domain"]["name"] != "primary"]
