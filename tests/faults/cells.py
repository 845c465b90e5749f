"""One cell of the fault matrix, on a lab: a migration is held, something breaks, is mended, and what then is looked at.

What is asked is asked from outside: the kernel says which QEMU uses CPU, the guest what it has counted, and `ldm` and
the file system of each host what is left.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from faults.matrix import BOTH, COPYING, SOURCE, Cell
from ldoms.lab import lab as labs
from ldoms.lab.links import Cut, Shape
from support import Hosts, Watch, kill_command, other, wait_until

SETTLE_S = 120.0
STATE_MIB = 24
"""Size of the file system of a host's state, so that it can be filled."""
_LISTEN = """
import socket, sys, time
socket.create_server((sys.argv[1], 8101)); print("ready", flush=True); time.sleep(3600)
"""


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


def give_disk(hosts: Hosts, guest: str) -> Path:
    """Give the domain a disk on shared storage, before it is started; the image, which can be taken away."""
    image = hosts.lab.shared / f"{guest}.img"
    with image.open("wb") as file:
        file.truncate(4 << 20)
    for host in hosts.lab.hosts:
        hosts.ldm(host, "add-vdsdev", str(image), f"{guest}-data@primary-vds0")
    return image


def limit_state(hosts: Hosts, host: str) -> None:
    """Put a host's state on a file system of its own, which is small."""
    hosts.kill_manager(host)
    state = hosts.lab.root(host) / "var/lib/ldoms"
    script = f'cp -a "$0" "$0.kept" && mount -t tmpfs -o size={STATE_MIB}m,mode=700 none "$0" && cp -a "$0.kept/." "$0"'
    hosts.lab.space(host).run(["sh", "-c", script, str(state)])
    hosts.start_manager(host)


def run_cell(hosts: Hosts, cell: Cell, guest: str, source: str) -> dict[str, object]:
    """Break it, mend it, and ask everything; the result for the record.

    Raises:
        AssertionError: a promise is broken.
    """
    before = hosts.ask(guest)[0]
    held = _hold(hosts, cell, guest, source)
    held.host = source if cell.fault.place == SOURCE else other(source)
    try:
        with Watch(hosts, held.uuid) as watch:
            began = time.monotonic()
            with held.undo:
                _BREAKS[cell.fault.kind](held)
                _go_on(held)
                time.sleep(cell.fault.hold_s)
            mended = time.monotonic()
            _wait_settled(held)
            settled_s = time.monotonic() - mended
        watch.check()
        return _ask(held, before) | {"seconds": round(mended - began, 1), "settled_s": round(settled_s, 1)}
    finally:
        kill_command(held.command)


def _hold(hosts: Hosts, cell: Cell, guest: str, source: str) -> Held:
    view = hosts.view(source, guest)
    assert view is not None
    if cell.point.gate == COPYING:
        command = hosts.start(source, *hosts.migrate_words(guest, source, "--max-bandwidth", "16M"))
        wait_until(lambda: hosts.progress(source, guest) >= 10, 30, "the copy does not begin")
    else:
        hosts.close_gate(cell.point.gate)
        command = hosts.start(source, *hosts.migrate_words(guest, source))
        hosts.wait_at_gate(cell.point.gate)
    return Held(hosts, cell, guest, view["domain"]["uuid"], source, command)


def _go_on(held: Held) -> None:
    held.hosts.open_gate(held.cell.point.gate)


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
        assert said == (1 if host == held.source else 0), f"ldm says {said}, the domain is on {host}: {complaint}"
    wait_until(lambda: _is_clean(hosts, other(host)), 30, f"{other(host)} is not clean")
    hosts.check_clean(other(host))
    lost = host == held.killed or (held.cell.fault.kind == "host-gone" and host == held.host)
    state = hosts.state(host, guest)
    if lost:
        assert state in ("bound", "active"), f"the guest that has died is listed as {state}"
    else:
        wait_until(lambda: hosts.state(host, guest) == "active", 10, f"the guest is {state}")
        wait_until(lambda: hosts.answers(guest), 30, "the guest does not answer")
        count, errors = hosts.ask(guest)
        assert errors == 0, "the guest's memory was damaged"
        assert count > before, "the guest did not go on from where it was"
    return {"on": "source" if host == held.source else "target", "guest": "died" if lost else "runs", "ldm": said}


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


def _shape(shape: Shape) -> Callable[[Held], None]:
    def change(held: Held) -> None:
        one = held.source if shape.cut in (Cut.OUT, Cut.IN) else ""
        held.undo.callback(held.hosts.shape, Shape(), one)
        held.hosts.shape(shape, one)

    return change


def _take_image(held: Held) -> None:
    image = held.hosts.lab.shared / f"{held.guest}.img"
    away = image.with_suffix(".away")
    image.rename(away)
    held.undo.callback(away.rename, image)


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
def place(hosts: Hosts) -> Iterator[tuple[str, str]]:
    """A guest with a disk, and the host that it runs on; and the hosts in order again afterwards."""
    name = next((view for host in hosts.lab.hosts for view in _guests(hosts, host)), "")
    if not name:
        name = hosts.add_guest(pulse_fill=32, pulse_size=8, pulse_rate=4)
        give_disk(hosts, name)
        hosts.ldm("t4-1", "add-vdisk", "data", f"{name}-data@primary-vds0", name)
    (host,) = hosts.place(name)
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


def forget_guests(hosts: Hosts) -> None:
    """Remove all guests, wherever they are."""
    for host in hosts.lab.hosts:
        for name in _guests(hosts, host):
            hosts.remove_guest(name)
    for image in hosts.lab.shared.glob("*.img"):
        for host in hosts.lab.hosts:
            hosts.run(host, "ldm", "remove-vdsdev", f"{image.stem}-data@primary-vds0")
        image.unlink()


def _guests(hosts: Hosts, host: str) -> list[str]:
    views = hosts.lab.client(host).get("/domains")
    return [view["domain"]["name"] for view in views if view["domain"]["name"] != "primary"]
