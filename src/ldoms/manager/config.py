"""The configuration of a host's manager: ``/etc/ldoms/ldmd.toml``, and where things live."""

from __future__ import annotations

import hashlib
import os
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import psutil

from ldoms.model.errors import RequestError
from ldoms.model.partition import HostSize
from ldoms.model.sizes import ACTIVE_ALIGNMENT_MIB, MIB, parse_size_mib

MANAGER_PORT = 6482
DATA_PORTS = (8101, 8199)
MOST_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Places:
    """Where things live, below one root directory."""

    root: Path

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.root / "etc/ldoms/ldmd.toml"

    @property
    def state(self) -> Path:
        """What outlives a restart of the machine."""
        return self.root / "var/lib/ldoms"

    @property
    def run(self) -> Path:
        """What a restart of the machine takes away."""
        return self.root / "run/ldoms"

    @property
    def socket(self) -> Path:
        """Where the local API listens."""
        return self.run / "ldmd.sock"

    @property
    def pid_file(self) -> Path:
        """Held and locked by the running manager."""
        return self.run / "ldmd.pid"

    def console_log(self, domain: str) -> Path:
        """The directory of the logs of a domain's console."""
        return self.state / "consoles" / domain

    def domain(self, uuid: str) -> Path:
        """The run-time directory of a domain's guest."""
        return self.run / "domains" / uuid

    @property
    def boot_id(self) -> Path:
        """What is taken for the machine's boot id if it is there: a way to pretend that a host was off."""
        return self.run / "boot-id"

    @property
    def instance(self) -> str:
        """A short name that tells managers with different roots apart."""
        if self.root == Path("/"):
            return "main"
        return hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class HostConfig:
    """Section ``[host]``: who this host is, and how much of it there is to partition.

    Attributes:
        name: as other hosts and reports call it.
        cpus: host CPUs to partition; empty = all.
        strands_per_cpu: into how many strands each of them is divided.
        confine: the threads of a domain run on its strands, and get no more CPU time than these are worth. Without
            it strands are only counted, and the kernel puts threads where it likes.
        memory: to partition, such as ``64G``; empty = all.
    """

    name: str = field(default_factory=socket.gethostname)
    cpus: tuple[int, ...] = ()
    strands_per_cpu: int = 1
    confine: bool = True
    memory: str = ""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Section ``[network]``: how other hosts reach this one.

    Attributes:
        address: on which the manager listens for other hosts; empty = none, the local socket only.
        port: of the manager there, and of the managers that it calls: the same on all hosts.
        data_address: where migration data are received; empty = the address that the source has called.
        data_ports: first and last port for migration data.
        auto_inter_vnet_link_limit: a switch with ``inter-vnet-link=auto`` counts as ``off`` when more vnets are on it.
        isolate_vnets: on a switch whose ``inter-vnet-link`` is ``off``, guests do not reach each other at all.
    """

    address: str = "0.0.0.0"  # noqa: S104
    port: int = MANAGER_PORT
    data_address: str = ""
    data_ports: tuple[int, ...] = DATA_PORTS
    auto_inter_vnet_link_limit: int = 8
    isolate_vnets: bool = False


@dataclass(frozen=True, slots=True)
class MigrationConfig:
    """Section ``[migration]``: whether domains may come and go.

    Attributes:
        incoming: domains may come to this host.
        outgoing: domains may leave this host.
        save_spconfig: both hosts save their configuration as ``@post-migration`` after each migration.
        max_outgoing: active domains that leave at the same time; others wait for their turn.
        max_incoming: active domains that come at the same time.
        bandwidth: that all copies that leave share, and all that come, such as ``100M`` per second; empty = no limit.
    """

    incoming: bool = True
    outgoing: bool = True
    save_spconfig: bool = False
    max_outgoing: int = 2
    max_incoming: int = 2
    bandwidth: str = ""

    @property
    def bandwidth_bytes_s(self) -> int:
        """The same as a number; 0 = no limit."""
        return parse_size_mib(self.bandwidth) * MIB if self.bandwidth else 0


@dataclass(frozen=True, slots=True)
class HypervisorConfig:
    """Section ``[hypervisor]``: how QEMU runs guests.

    Attributes:
        accelerator: ``auto``, ``kvm`` or ``tcg``; ``auto`` proves that KVM works before it is used.
        probe_kernel: kernel to boot for that proof; empty = the newest in ``/boot``.
        dirty_ring: guests are started with KVM's dirty ring, if it has one.
    """

    accelerator: str = "auto"
    probe_kernel: str = ""
    dirty_ring: bool = False


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Section ``[auth]``: who may use the manager.

    Attributes:
        pam_service: file of ``/etc/pam.d`` that says how passwords are checked; where it is missing, ``other``.
        group: its members, and root, may do everything.
        review_group: its members may look at everything, and change nothing; nobody else may do anything.
    """

    pam_service: str = "ldmd"
    group: str = "ldoms"
    review_group: str = "ldoms-review"


@dataclass(frozen=True, slots=True)
class LdmdConfig:
    """Section ``[ldmd]``: the manager itself, with the names of LDoms.

    Attributes:
        autorecovery_policy: what is done at power-on about changes that were made after the configuration was saved:
            1 = log them, 2 = and tell the next `ldm` command, 3 = bring them back.
    """

    autorecovery_policy: int = 1


@dataclass(frozen=True, slots=True)
class ConsoleConfig:
    """Section ``[console]``: who may use the consoles of guests.

    Attributes:
        authorization: the ports admit only processes of root, of members of the group that ``[auth]`` names, and of
            members of the group ``ldoms-console-GROUP`` for the console group GROUP.
    """

    authorization: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """All of the configuration; everything has a default."""

    host: HostConfig = field(default_factory=HostConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    migration: MigrationConfig = field(default_factory=MigrationConfig)
    hypervisor: HypervisorConfig = field(default_factory=HypervisorConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    ldmd: LdmdConfig = field(default_factory=LdmdConfig)
    console: ConsoleConfig = field(default_factory=ConsoleConfig)


_SECTIONS = {
    "host": HostConfig,
    "network": NetworkConfig,
    "migration": MigrationConfig,
    "hypervisor": HypervisorConfig,
    "auth": AuthConfig,
    "ldmd": LdmdConfig,
    "console": ConsoleConfig,
}


def read_config(path: Path) -> Config:
    """Read the configuration file; a file that is not there means defaults.

    Raises:
        RequestError: code ``bad-config``: it cannot be read, or says something that has no meaning.
    """
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError) as error:
        raise _bad(path, str(error)) from error
    sections: dict[str, Any] = {}
    for name, values in document.items():
        if name not in _SECTIONS:
            raise _bad(path, f"there is no section [{name}]; the sections are {', '.join(_SECTIONS)}")
        if not isinstance(values, dict):
            raise _bad(path, f"{name} must be a section")
        sections[name] = _section(path, name, values)
    config = Config(**sections)
    _check(path, config)
    return config


def host_size(config: HostConfig) -> HostSize:
    """What there is to partition.

    Raises:
        RequestError: the configuration names CPUs or memory that this machine does not have.
    """
    present = tuple(sorted(os.sched_getaffinity(0)))
    cpus = config.cpus or present
    missing = sorted(set(cpus) - set(present))
    if missing:
        raise RequestError(
            f"[host] cpus names CPU {missing[0]}, which this process cannot use; it can use"
            f" {', '.join(map(str, present))}",
            code="bad-config",
        )
    total = psutil.virtual_memory().total // MIB
    memory = parse_size_mib(config.memory) if config.memory else total
    if memory > total:
        raise RequestError(
            f'[host] memory = "{config.memory}" is more than the {total}M of this machine', code="bad-config"
        )
    memory = memory // ACTIVE_ALIGNMENT_MIB * ACTIVE_ALIGNMENT_MIB
    return HostSize(tuple(cpus), config.strands_per_cpu, memory)


def _section(path: Path, name: str, values: Mapping[str, Any]) -> Any:
    kind = _SECTIONS[name]
    known = {entry.name: entry for entry in fields(kind)}
    arguments = {}
    for key, value in values.items():
        if key not in known:
            raise _bad(path, f"[{name}] has no setting {key}; it has {', '.join(known)}")
        default = getattr(kind(), key)
        value = tuple(value) if isinstance(value, list) else value
        if type(value) is not type(default):
            raise _bad(path, f"[{name}] {key} must be {_KINDS[type(default)]}, not {value!r}")
        arguments[key] = value
    return kind(**arguments)


_KINDS: Mapping[type, str] = {
    str: "a text in quotes",
    int: "a number",
    bool: "true or false",
    tuple: "a list of numbers",
}


def _check(path: Path, config: Config) -> None:
    if not all(isinstance(cpu, int) for cpu in config.host.cpus):
        raise _bad(path, "[host] cpus must be a list of numbers")
    if not 1 <= config.host.strands_per_cpu <= 256:
        raise _bad(path, "[host] strands_per_cpu must be between 1 and 256")
    if not 1 <= config.network.port <= 65535:
        raise _bad(path, "[network] port must be between 1 and 65535")
    ports = config.network.data_ports
    if len(ports) != 2 or not all(isinstance(port, int) for port in ports) or not 1024 <= ports[0] <= ports[1] <= 65535:
        raise _bad(path, "[network] data_ports must be a list of two ports, the first and the last")
    if config.ldmd.autorecovery_policy not in (1, 2, 3):
        raise _bad(path, "[ldmd] autorecovery_policy must be 1 (log), 2 (tell) or 3 (restore)")
    for name in ("max_outgoing", "max_incoming"):
        if not 1 <= getattr(config.migration, name) <= MOST_AT_ONCE:
            raise _bad(path, f"[migration] {name} must be between 1 and {MOST_AT_ONCE}")
    try:
        known = config.migration.bandwidth == "" or config.migration.bandwidth_bytes_s > 0
    except RequestError:
        known = False
    if not known:
        raise _bad(path, '[migration] bandwidth must be a size per second, such as "100M", or empty')
    if config.network.auto_inter_vnet_link_limit < 0:
        raise _bad(path, "[network] auto_inter_vnet_link_limit must not be negative")
    if config.hypervisor.accelerator not in ("auto", "kvm", "tcg"):
        raise _bad(path, '[hypervisor] accelerator must be "auto", "kvm" or "tcg"')


def _bad(path: Path, reason: str) -> RequestError:
    return RequestError(f"the configuration {path} cannot be used: {reason}", code="bad-config")
