"""``ldmd``: reads the configuration, puts the rooms together, serves, and stops without touching guests."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from ldoms import __version__
from ldoms.api.access import Services
from ldoms.api.peer import HttpConnector
from ldoms.api.server import Servers, make_app
from ldoms.auth.callers import Groups, may_use_console
from ldoms.auth.certificates import Certificates
from ldoms.auth.passwords import Gatekeeper, PamPasswords
from ldoms.hypervisor.confinement import Confinement, detect
from ldoms.hypervisor.probe import Probe, probe
from ldoms.hypervisor.qemu import QemuEngine
from ldoms.manager.config import Config, Places, host_size, read_config
from ldoms.manager.consoles import Consoles
from ldoms.manager.events import EventHub
from ldoms.manager.guests import GuestBook
from ldoms.manager.host import Host
from ldoms.manager.logs import LogControl
from ldoms.manager.manager import Manager
from ldoms.manager.operations import Operations
from ldoms.manager.softstate import watch
from ldoms.model.errors import HostError, LdomsError
from ldoms.model.host import PROTOCOL_VERSION, HostFacts
from ldoms.net.linux import LinuxNetwork
from ldoms.net.multicast import MulticastNeighbours
from ldoms.storage.files import FileStorage
from ldoms.store import Store

_log = structlog.get_logger(__name__)


def main() -> None:
    """Run the daemon until it is asked to stop."""
    arguments = make_parser().parse_args()
    logs = LogControl(arguments.log_level)
    _set_up_logs(logs)
    # Several ldmd of different --root can run side by side: all files are private to root unless said otherwise.
    os.umask(0o077)
    try:
        asyncio.run(_serve(Places(arguments.root.resolve()), logs))
    except LdomsError as error:
        sys.exit(f"ldmd: {error.message}")


def make_parser() -> argparse.ArgumentParser:
    """What `ldmd` takes on its command line; the manual page is written from it."""
    parser = argparse.ArgumentParser(
        prog="ldmd", description="The Logical Domains Manager of a host. Guests go on running when it stops."
    )
    parser.add_argument("--version", action="version", version=f"ldmd {__version__}")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="keep configuration, state and sockets below DIR (default: /)",
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="default: info"
    )
    return parser


async def _serve(places: Places, logs: LogControl) -> None:
    config = read_config(places.config)
    async with AsyncExitStack() as stack:
        _prepare_places(places, stack)
        certificates = Certificates(places.state, config.host.name)
        confinement = detect(places.instance)
        found = await probe(
            config.hypervisor.accelerator,
            _probe_kernels(config),
            places.state / "accelerator.json",
            dirty_ring=config.hypervisor.dirty_ring,
        )
        neighbours = MulticastNeighbours(config.host.name)
        stack.callback(neighbours.close)
        manager = _make_manager(config, places, certificates, confinement, found, neighbours, logs)
        await _meet(neighbours, config.network.address, manager.host)
        await manager.start()
        stack.push_async_callback(manager.stop)
        groups = Groups(config.auth.group, config.auth.review_group)
        servers = Servers(
            make_app(
                Services(
                    manager=manager,
                    gatekeeper=Gatekeeper(PamPasswords(config.auth.pam_service), groups),
                    certificates=certificates,
                    groups=groups,
                )
            )
        )
        stack.push_async_callback(servers.close)
        await servers.open_socket(places.socket)
        if config.network.address:
            await servers.open_port(config.network.address, config.network.port, certificates.server_context())
        stack.callback(manager.consoles.hang_up)  # before the servers stop, which wait for whoever is connected
        _log.info(
            "ready",
            version=__version__,
            host=config.host.name,
            accelerator=found.facts.accelerator,
            accelerator_reason=found.facts.accelerator_reason,
            qemu=found.facts.version,
            confinement=confinement.kind,
        )
        await _until_asked_to_stop()
        _log.info("stopping", consequence="guests go on running")


async def _meet(neighbours: MulticastNeighbours, address: str, host: Host) -> None:
    if not address:
        return
    try:
        await neighbours.open(address, lambda mac: mac in host.macs())
    except OSError as error:
        _log.warning("neighbours-not-asked", consequence="MAC addresses are picked without asking", reason=str(error))


def _make_manager(
    config: Config,
    places: Places,
    certificates: Certificates,
    confinement: Confinement,
    found: Probe,
    neighbours: MulticastNeighbours,
    logs: LogControl,
) -> Manager:
    store = Store(places.state / "ldoms.db")
    facts = HostFacts(
        name=config.host.name,
        identity=certificates.fingerprint,
        version=__version__,
        protocol=PROTOCOL_VERSION,
        size=host_size(config.host),
        cpu_model=_cpu_info("model name"),
        cpu_flags=tuple(sorted({"aes"} & set(_cpu_info("flags").split()))),
        hypervisor=found.facts,
        data_address=config.network.data_address,
        confinement=confinement.kind,
        incoming_enabled=config.migration.incoming,
        outgoing_enabled=config.migration.outgoing,
        saves_configuration=config.migration.save_spconfig,
    )
    host = Host(
        config=config,
        places=places,
        facts=facts,
        store=store,
        engine=QemuEngine(found.facts, found.cpus, confinement),
        network=LinuxNetwork(),
        storage=FileStorage(),
        events=EventHub(store),
        operations=Operations(store),
        guests=GuestBook(watch),
        neighbours=neighbours,
        logs=logs,
        boot_id=_boot_id(places),
    )
    return Manager(host, HttpConnector(certificates, config.network.port), _make_consoles(config, places))


def _make_consoles(config: Config, places: Places) -> Consoles:
    if not config.console.authorization:
        return Consoles(places, config.host.name)
    groups = Groups(config.auth.group, config.auth.review_group)
    return Consoles(places, config.host.name, lambda uid, group: may_use_console(uid, group, groups))


def _prepare_places(places: Places, stack: AsyncExitStack) -> None:
    """Make the directories, and make sure that no other ldmd works on them."""
    try:
        for directory, mode in ((places.state, 0o700), (places.run, 0o755), (places.run / "domains", 0o700)):
            for missing in [parent for parent in reversed(directory.parents) if not parent.exists()]:
                missing.mkdir()
                missing.chmod(0o755)  # users of this host pass through it on their way to the socket
            directory.mkdir(exist_ok=True)
            directory.chmod(mode)
        pid_file = stack.enter_context(places.pid_file.open("a+"))
    except OSError as error:
        raise HostError(f"cannot use {error.filename}: {error.strerror}", code="no-place") from error
    try:
        fcntl.flock(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise HostError(f"another ldmd runs on {places.root} already", code="already-running") from error
    pid_file.truncate(0)
    pid_file.write(f"{os.getpid()}\n")
    pid_file.flush()


def _boot_id(places: Places) -> str:
    """Another one after each start of the machine."""
    pretended = places.boot_id
    return (pretended if pretended.exists() else Path("/proc/sys/kernel/random/boot_id")).read_text().strip()


def _probe_kernels(config: Config) -> list[Path]:
    if config.hypervisor.probe_kernel:
        return [Path(config.hypervisor.probe_kernel)]
    return sorted(Path("/boot").glob("vmlinuz-*"), key=lambda path: path.stat().st_mtime, reverse=True)


def _cpu_info(key: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown"


async def _until_asked_to_stop() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _set_up_logs(control: LogControl) -> None:
    """Key and value, for people on a terminal and as JSON elsewhere; libraries speak up from warnings on."""
    on_terminal = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer() if on_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            control,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
