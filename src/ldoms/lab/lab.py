"""A lab: hosts, the switch between them, clients; made, looked at, shaped, and taken away without a trace."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import psutil

from ldoms.api.client import Client
from ldoms.api.exchange import SOCKET_VARIABLE
from ldoms.lab import clocks, wiring
from ldoms.lab.images import cache_directory, find
from ldoms.lab.links import Shape, drop_rules
from ldoms.lab.spaces import Space, make_space
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import HostError, LdomsError, NotFound, RequestError

DEFAULT_NAME = "lab"
CLIENT, SWITCH = "client", "switch"
USER = "ldmadmin"
READY_S = 60.0
STOP_S = 20.0
MANAGER_PORT, DATA_PORTS = 6482, (8101, 8199)
MAX_HOSTS = 16
MOST_MIB, ROOM_FOR_A_DATABASE_MIB = 8192, 2560
_NAME = re.compile(r"[a-z][a-z0-9-]{0,11}")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class HostPlan:
    """What each host of a lab is to have.

    Attributes:
        strands_per_cpu: into how many strands each CPU of the machine is divided; 0 = so many that there are eight.
        confine: threads run on the strands of their domain only, as on a real host. Without it strands are only
            counted, which suits several hosts on one small machine better.
        memory: to partition; empty = as `memory_of_each` says. Half of everything is taken from the control domain,
            for guests.
    """

    strands_per_cpu: int = 0
    confine: bool = False
    memory: str = ""


@dataclass(frozen=True, slots=True)
class Lab:
    """What is kept of a lab while it is up.

    Attributes:
        spaces: by name: every host, the clients' and the switch.
        hosts: their names, in order.
        shapes: of each host's cable.
        guests: addresses of the domains that were made from images, by name.
    """

    name: str
    directory: str
    hosts: tuple[str, ...]
    plan: HostPlan
    spaces: dict[str, Space]
    shapes: dict[str, Shape] = field(default_factory=dict)
    guests: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Everything that belongs to the lab is below."""
        return Path(self.directory)

    @property
    def shared(self) -> Path:
        """Storage that all hosts see."""
        return self.path / "shared"

    @property
    def password_file(self) -> Path:
        """The password of the lab's administrator, as ``ldm migrate-domain -p`` wants it."""
        return self.path / "pfile"

    def root(self, host: str) -> Path:
        """The ``--root`` of a host's manager."""
        return self.path / host

    def address(self, host: str) -> str:
        """A host's address on the link between hosts."""
        return wiring.link_address(self.hosts.index(host) + 1)

    @property
    def time_servers(self) -> tuple[str, ...]:
        """Where guests ask for the time: the control domains, on the clients' network."""
        return tuple(wiring.control_address(number) for number, _ in enumerate(self.hosts, start=1))

    def space(self, name: str) -> Space:
        """The namespaces of a host, the clients' or the switch's.

        Raises:
            NotFound: there are none of that name.
        """
        if name not in self.spaces:
            known = ", ".join(self.spaces)
            raise NotFound(f"lab {self.name} has no host {name}: it has {known}")
        return self.spaces[name]

    def environment(self, host: str) -> dict[str, str]:
        """The environment of commands on a host: its own manager, and our programs."""
        programs = Path(sys.executable).parent
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment = {**inherited, "PATH": f"{programs}:{os.environ.get('PATH', '/usr/bin:/bin')}"}
        if host in self.hosts:
            environment[SOCKET_VARIABLE] = str(self.root(host) / "run/ldoms/ldmd.sock")
        return environment

    def client(self, host: str) -> Client:
        """The API of a host's manager."""
        return Client(self.environment(host)[SOCKET_VARIABLE])


def labs_directory() -> Path:
    """Where labs are kept: ``$LDOMS_LABS`` or a short path, as that of a socket has 107 characters at most."""
    if own := os.environ.get("LDOMS_LABS"):
        return Path(own)
    return Path("/var/lib/ldoms-lab")


def load(name: str) -> Lab:
    """The lab of that name.

    Raises:
        NotFound: it is not up.
    """
    try:
        return from_wire(Lab, json.loads((labs_directory() / name / "lab.json").read_text()))
    except (OSError, ValueError) as error:
        raise NotFound(f"lab {name} is not up: 'ldoms-lab up' makes it") from error


def names() -> tuple[str, ...]:
    """The labs that are up."""
    return tuple(sorted(path.parent.name for path in labs_directory().glob("*/lab.json")))


def up(name: str, count: int, plan: HostPlan, progress: Progress) -> Lab:
    """Make a lab, or mend what is missing of it.

    Raises:
        RequestError: the name or the number of hosts is wrong.
        HostError: the machine does not allow it; nothing is left behind of a lab that was not there before.
    """
    if not _NAME.fullmatch(name):
        raise RequestError(f"'{name}' cannot name a lab: use at most 12 lower-case letters and digits", code="bad-name")
    if not 1 <= count <= MAX_HOSTS:
        raise RequestError(f"a lab has 1 to {MAX_HOSTS} hosts, not {count}", code="bad-count")
    with _locked(name):
        with suppress(NotFound):
            known = load(name)
            if all(space.is_alive for space in known.spaces.values()):
                _serve_time(known, progress)
                _start_managers(known, progress)
                return known
            progress("what is left of an earlier lab is taken away")
            _take_away(known)
        try:
            return _make(name, count, plan, progress)
        except BaseException:
            with suppress(LdomsError):
                _take_away(load(name))
            raise


def down(name: str) -> None:
    """Take a lab away, with everything in it."""
    with _locked(name):
        _take_away(load(name))
    (labs_directory() / f".{name}.lock").unlink(missing_ok=True)


def shape(lab: Lab, host: str, wanted: Shape) -> Lab:
    """Change the link of one host, or with an empty name that between all of them."""
    if host:
        lab.space(host)
    with _locked(lab.name):
        share = wanted
        if not host:
            # A packet from host to host passes two cables.
            share = replace(wanted, delay_s=wanted.delay_s / 2, loss=1 - math.sqrt(1 - wanted.loss))
        for target in (host,) if host else lab.hosts:
            _shape_cable(lab, target, share)
        shapes = {**lab.shapes, **dict.fromkeys((host,) if host else lab.hosts, share)}
        cuts = {wiring.port_name(name): known.cut for name, known in shapes.items()}
        lab.space(SWITCH).run(["nft", "-f", "-"], text=drop_rules(cuts, MANAGER_PORT, DATA_PORTS))
        return save(replace(lab, shapes=shapes))


def manager_process(lab: Lab, host: str) -> psutil.Process | None:
    """The manager of a host, if it runs."""
    for process in lab.space(host).processes():
        with suppress(psutil.Error):
            words = process.cmdline()
            if any(word.endswith("/ldmd") for word in words) and str(lab.root(host)) in words:
                return process
    return None


def start_manager(lab: Lab, host: str) -> None:
    """Start the manager of a host, unless it runs, and wait until it answers.

    Raises:
        HostError: it does not start; its log says why.
    """
    log = lab.root(host) / "ldmd.log"
    if manager_process(lab, host) is None:
        program = str(Path(sys.executable).with_name("ldmd"))
        lab.space(host).start([program, "--root", str(lab.root(host))], log, lab.environment(host))
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with suppress(LdomsError):
            lab.client(host).get("/host")
            return
        time.sleep(0.05)
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    raise HostError(f"ldmd on {host} does not start: {lines[-1] if lines else 'it says nothing'}", code="lab-failed")


def stop_manager(lab: Lab, host: str, *, kill: bool = False) -> None:
    """End the manager of a host, if it runs: as a service is stopped, or at once as a crash does."""
    process = manager_process(lab, host)
    if process is None:
        return
    if kill:
        process.kill()
    else:
        process.terminate()
    _, left = psutil.wait_procs([process], timeout=STOP_S)
    if left:
        raise HostError(f"ldmd on {host} does not end", code="lab-stuck")


def power_off(lab: Lab, host: str) -> None:
    """End everything on a host at once, as a power failure does: its manager, its guests, all of it.

    Raises:
        HostError: something does not end.
    """
    space = lab.space(host)
    if host not in lab.hosts:
        raise RequestError(f"{host} is not a host: it has no power to lose", code="bad-host")
    running = [process for process in space.processes() if process.pid != space.pid]
    for process in running:
        with suppress(psutil.Error):
            process.kill()
    _, left = psutil.wait_procs(running, timeout=STOP_S)
    if left:
        raise HostError(f"processes {[process.pid for process in left]} on {host} do not end", code="lab-stuck")


def power_on(lab: Lab, host: str) -> None:
    """Start a host that was off: its run-time files are gone, its boot id is another one, its manager starts."""
    if manager_process(lab, host) is not None:
        raise RequestError(f"{host} is on: 'ldoms-lab power off {host}' ends everything on it", code="already-running")
    run = lab.root(host) / "run/ldoms"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(mode=0o755, parents=True)
    # All hosts of a lab share the kernel of the machine, and with it the real boot id.
    (run / "boot-id").write_text(f"{uuid.uuid4()}\n")
    _serve_time_on(lab, host)
    start_manager(lab, host)


# Making


def _make(name: str, count: int, plan: HostPlan, progress: Progress) -> Lab:
    directory = labs_directory() / name
    hosts = tuple(f"t4-{number}" for number in range(1, count + 1))
    directory.mkdir(mode=0o711, parents=True)
    progress(f"lab {name}: {count} hosts, {CLIENT} and the switch between them")
    lab = Lab(name, str(directory), hosts, plan, {})
    for space in (SWITCH, CLIENT, *hosts):
        lab = save(replace(lab, spaces={**lab.spaces, space: make_space()}))
    pids = {host: lab.spaces[host].pid for host in hosts}
    _wire("build", {"switch": lab.spaces[SWITCH].pid, "client": lab.spaces[CLIENT].pid, "hosts": pids})
    lab.shared.mkdir(mode=0o755)
    password = secrets.token_urlsafe(12)
    _write_private(lab.password_file, password + "\n")
    for host in hosts:
        _furnish(lab, host, password)
    _serve_time(lab, progress)
    _start_managers(lab, progress)
    for host in hosts:
        _partition(lab, host)
    _introduce(lab)
    return lab


def _furnish(lab: Lab, host: str, password: str) -> None:
    """Give a host its own /etc, with its name, its peers and its administrator, and its manager's configuration."""
    space, root = lab.space(host), lab.root(host)
    root.mkdir(mode=0o755)
    shutil.copytree("/etc", root / "etc", symlinks=True, ignore_dangling_symlinks=True, ignore=_closed_to_us)
    (root / "etc/hostname").write_text(f"{host}\n")
    peers = "".join(f"{lab.address(peer)} {peer}\n" for peer in lab.hosts)
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{wiring.CLIENT_ADDRESS} {CLIENT}\n{peers}")
    (root / "etc/pam.d/ldmd").write_text("auth required pam_unix.so\naccount required pam_unix.so\n")
    (root / "etc/ldoms").mkdir(exist_ok=True)
    (root / "etc/ldoms/ldmd.toml").write_text(_configuration(lab, host))
    space.run(["hostname", host])
    space.run(["mount", "--bind", str(root / "etc"), "/etc"])
    space.run(["groupadd", "--force", "--system", "ldoms"])
    space.run(["useradd", "--no-create-home", "--groups", "ldoms", "--shell", "/usr/sbin/nologin", USER])
    space.run(["chpasswd"], text=f"{USER}:{password}\n")
    # Whether KVM works is found out once for this machine, not by every host of every lab.
    state = root / "var/lib/ldoms"
    state.mkdir(mode=0o700, parents=True)
    cache = cache_directory().parent
    cache.mkdir(parents=True, exist_ok=True)
    (state / "accelerator.json").symlink_to(cache / "accelerator.json")


def _closed_to_us(directory: str, names: list[str]) -> list[str]:
    """What a lab without root cannot read, such as ``shadow``: a host does without it."""
    readable = {name for name in names if os.access(path := Path(directory) / name, os.R_OK) or path.is_symlink()}
    return [name for name in names if name not in readable]


def memory_of_each(hosts: int, machine_mib: int) -> int:
    """MiB for each host: together half of the machine, but enough for a database guest, and no more than is used."""
    share = max(ROOM_FOR_A_DATABASE_MIB, machine_mib // 2 // hosts)
    return min(MOST_MIB, share, machine_mib) // 256 * 256


def _configuration(lab: Lab, host: str) -> str:
    cpus = len(os.sched_getaffinity(0))
    strands = lab.plan.strands_per_cpu or max(1, math.ceil(8 / cpus))
    tiny = find("tiny")
    memory = lab.plan.memory or f"{memory_of_each(len(lab.hosts), psutil.virtual_memory().total >> 20)}M"
    return "\n".join(
        [
            "[host]",
            f'name = "{host}"',
            f"strands_per_cpu = {strands}",
            f"confine = {str(lab.plan.confine).lower()}",
            f'memory = "{memory}"',
            "[network]",
            f'data_address = "{lab.address(host)}"',
            "[hypervisor]",
            f'probe_kernel = "{tiny.kernel if tiny else ""}"',
            "",
        ]
    )


def _serve_time(lab: Lab, progress: Progress) -> None:
    if not all(_serve_time_on(lab, host) for host in lab.hosts):
        progress("chronyd is not installed: guests get no time from this lab")


def _serve_time_on(lab: Lab, host: str) -> bool:
    return clocks.serve(lab.space(host), lab.root(host) / "time", f"{wiring.CLIENT_NETWORK}.0/{wiring.PREFIX}")


def _partition(lab: Lab, host: str) -> None:
    """Take half of the host from the control domain, and make the customary services."""
    size = lab.client(host).get("/host")["facts"]["size"]
    strands = len(size["cpus"]) * size["strands_per_cpu"]
    for words in (
        ["set-vcpu", str(strands // 2), "primary"],
        ["set-memory", f"{size['memory_mib'] // 512 * 256}M", "primary"],
        ["add-vds", "primary-vds0", "primary"],
        ["add-vcc", "port-range=5000-5100", "primary-vcc0", "primary"],
        ["add-vsw", "net-dev=net0", "primary-vsw0", "primary"],
    ):
        ldm(lab, host, words)


def _introduce(lab: Lab) -> None:
    """Have all hosts trust each other."""
    fingerprints = {host: lab.client(host).get("/host")["facts"]["identity"] for host in lab.hosts}
    for host in lab.hosts:
        for peer, fingerprint in fingerprints.items():
            if peer != host:
                ldm(lab, host, ["add-trust", "--fingerprint", fingerprint, peer])


def ldm(lab: Lab, host: str, words: Sequence[str]) -> str:
    """Run an `ldm` command on a host and return what it prints.

    Raises:
        HostError: it failed; the message has what it said.
    """
    done = subprocess.run(
        lab.space(host).command(["ldm", *words]),
        env=lab.environment(host),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise HostError(f"'ldm {' '.join(words)}' on {host}: {done.stderr.strip()}", code="lab-failed")
    return done.stdout


def _start_managers(lab: Lab, progress: Progress) -> None:
    for host in lab.hosts:
        if manager_process(lab, host) is None:
            progress(f"{host}: starting ldmd")
            start_manager(lab, host)


# Shaping


def _shape_cable(lab: Lab, host: str, wanted: Shape) -> None:
    plan = {
        "switch": lab.space(SWITCH).pid,
        "host": host,
        "pid": lab.space(host).pid,
        "rate_bit_s": wanted.rate_bit_s,
        "delay_s": wanted.delay_s,
        "loss": wanted.loss,
    }
    _end_relay(lab, host)
    if _wire("shape", plan).strip() == "relay":
        words = [
            sys.executable,
            "-m",
            "ldoms.lab.relay",
            *wiring.relay_taps(host),
            str(wanted.delay_s),
            str(wanted.loss),
        ]
        lab.space(SWITCH).start(words, lab.path / f"relay-{host}.log", lab.environment(SWITCH))
        _wait_for_taps(lab, host)
        _wire("join-relay", plan)


def _wait_for_taps(lab: Lab, host: str) -> None:
    log = lab.path / f"relay-{host}.log"
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if log.exists() and "ready" in log.read_text():
            return
        time.sleep(0.02)
    raise HostError(f"the relay of {host} does not start", code="lab-failed")


def _end_relay(lab: Lab, host: str) -> None:
    for process in lab.space(SWITCH).processes():
        with suppress(psutil.Error):
            if wiring.relay_taps(host)[0] in process.cmdline():
                process.terminate()
                psutil.wait_procs([process], timeout=5)
    (lab.path / f"relay-{host}.log").unlink(missing_ok=True)


# Inside


def _take_away(lab: Lab) -> None:
    for space in lab.spaces.values():
        space.end()
    for host in lab.hosts:
        _remove_cgroups(lab.root(host))
    shutil.rmtree(lab.path)


def _remove_cgroups(root: Path) -> None:
    """The manager removes its groups when it stops; one that was killed could not."""
    instance = sha256(str(root.resolve()).encode()).hexdigest()[:8]
    for base in (Path("/sys/fs/cgroup/cpu/ldoms") / instance, Path("/sys/fs/cgroup/ldoms.slice") / instance):
        with suppress(OSError):  # of others, where this lab is one without root
            for group in [child for child in base.iterdir() if child.is_dir()]:
                with suppress(OSError):
                    group.rmdir()
            base.rmdir()


def _wire(verb: str, plan: dict[str, object]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ldoms.lab.wiring", verb],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise HostError(f"the lab's cables cannot be made: {said[-1] if said else 'no reason'}", code="lab-failed")
    return done.stdout


def save(lab: Lab) -> Lab:
    """Write down how a lab is now."""
    path = lab.path / "lab.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(to_wire(lab), indent=2))
    temporary.replace(path)
    return lab


def _write_private(path: Path, content: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as file:
        file.write(content)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One change of a lab at a time."""
    directory = labs_directory()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
