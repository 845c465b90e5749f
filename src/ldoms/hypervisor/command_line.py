"""From a guest's specification to QEMU's command line: pure, and the same on both ends of a migration.

Every device has an explicit address, because QEMU requires the same place on both ends
(docs/devel/migration/main.rst, "Device ordering"). The layout on the root bus is

====  =============================================================
 0    host bridge
 1    virtio-serial (guest agent)
 2    virtio-balloon (reports free pages, so that they are not sent)
 3    virtio-rng
 4…23 root ports, eight to a slot: one for each disk and network interface, and spare ones for those that are added
      while the guest runs: a root port itself cannot be plugged
24    virtio-mem (memory that is added while the guest runs)
30    pvpanic (by which the guest's kernel tells that it has panicked)
31    chipset
====  =============================================================
"""

from __future__ import annotations

import json
from pathlib import Path

from ldoms.hypervisor.specs import DiskSpec, GuestSpec, NetworkSpec, TrialSpec

FIRST_PORT_SLOT = 4
PORTS = 160

ROM_BYTES = 1 << 19
"""Room of an interface for iPXE, which is part of the guest's memory: the same with every version of it."""

CONSOLE = "console"
"""The character device of the serial line."""
QMP_SOCKET = "qmp.sock"
CONSOLE_SOCKET = "console.sock"
AGENT_SOCKET = "agent.sock"
PID_FILE = "qemu.pid"
LOG_FILE = "qemu.log"
CONTENT_FILE = "content"
"""What the sending end of a trial has in its memory."""
FIRST_MEMORY = "pc.ram"
"""What QEMU calls it by itself: a guest that was started without this object can still move."""
ADDED_MEMORY = "added-memory"

# What libvirt denies, too: QEMU needs none of it once it runs.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def command_line(spec: GuestSpec, binary: str = "qemu-system-x86_64", *, dirty_ring: bool = False) -> list[str]:
    """The arguments that start the guest of `spec`, stopped; under KVM with its dirty ring, if that is wanted."""
    machine = spec.machine
    words = [
        binary,
        *("-name", f"guest={_escape(spec.name)},debug-threads=on"),
        *("-uuid", spec.uuid),
        # Tables that firmware reads at a start of the guest; they are no part of what moves.
        *(("-smbios", f"type=1,serial={_escape(spec.hostid)}") if spec.hostid else ()),
        *("-no-user-config", "-nodefaults", "-display", "none"),
        *("-machine", f"{machine.type},graphics=off,dump-guest-core=off,memory-backend={FIRST_MEMORY}"),
        *("-accel", _accelerator(machine.accelerator, spec.memory_mib, dirty_ring=dirty_ring)),
        *("-cpu", f"{machine.cpu.model},enforce=on"),
        *("-smp", _processors(spec)),
        *("-m", _memory(spec)),
        # Before all other memory: TCG's record of the pages that a guest changes holds for the first block alone, as
        # QEMU takes offsets within any other block for offsets within this one (10.0, system/ram_addr.h,
        # cpu_physical_memory_sync_dirty_bitmap: `start` without `rb->offset`). What it does not record is not sent.
        *("-object", f"memory-backend-ram,id={FIRST_MEMORY},size={spec.memory_mib}M"),
        *("-rtc", "base=utc,driftfix=slew"),
        *("-sandbox", _SANDBOX),
        *("-msg", "timestamp=on"),
        # What follows from a panic is for the guest to decide, as on a machine.
        *("-action", "panic=none"),
        *("-pidfile", str(spec.directory / PID_FILE)),
        # Only our own `cont` lets a guest run: see model/ownership.py.
        "-S",
        *_server("qmp", spec.directory / QMP_SOCKET),
        *("-mon", "chardev=qmp,mode=control"),
        *_server(CONSOLE, spec.directory / CONSOLE_SOCKET),
        *("-serial", f"chardev:{CONSOLE}"),
        *("-device", "virtio-serial-pci,id=serial,bus=pcie.0,addr=1"),
        *_server("agent", spec.directory / AGENT_SOCKET),
        *("-device", "virtserialport,bus=serial.0,nr=1,chardev=agent,name=org.qemu.guest_agent.0"),
        # Reporting, not hinting: hints froze guests for seconds at the start of a migration.
        *("-device", "virtio-balloon-pci,id=balloon,bus=pcie.0,addr=2,free-page-reporting=on"),
        *("-device", "virtio-rng-pci,id=rng,bus=pcie.0,addr=3"),
        *_added_memory(spec),
        *(("-device", "pvpanic-pci,id=panic,bus=pcie.0,addr=0x1e") if machine.panic_device else ()),
    ]
    # Without gaps: function 0 of a slot must exist for the guest to look at the others.
    ports = [disk.port for disk in spec.disks] + [network.port for network in spec.networks]
    for port in range(max(machine.root_ports, max(ports, default=-1) + 1)):
        words += _root_port(port)
    for disk in spec.disks:
        words += ["-blockdev", json.dumps(disk_back_end(disk)), "-device", _words("driver", disk_front_end(disk))]
    for network in spec.networks:
        words += ["-netdev", _words("type", network_back_end(network))]
        words += ["-device", _words("driver", network_front_end(network))]
    if spec.kernel is not None:
        words += ["-kernel", str(spec.kernel), "-append", spec.boot_args]
        if spec.initrd is not None:
            words += ["-initrd", str(spec.initrd)]
    if spec.incoming:
        words += ["-incoming", "defer"]
    return words


def trial_command_line(spec: TrialSpec, binary: str = "qemu-system-x86_64") -> list[str]:
    """The arguments that start one end of a trial of a link; it ends with whoever has started it."""
    content = f"memory-backend-file,mem-path={_escape(str(spec.directory / CONTENT_FILE))},share=off"
    backend = "memory-backend-ram" if spec.incoming else content
    return [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        binary,
        *("-name", f"guest=trial-{spec.uuid},debug-threads=on"),
        *("-no-user-config", "-nodefaults", "-display", "none", "-S"),
        *("-machine", f"none,memory-backend={FIRST_MEMORY}", "-accel", "tcg"),
        *("-object", f"{backend},id={FIRST_MEMORY},size={spec.memory_mib}M"),
        *("-sandbox", _SANDBOX),
        *("-msg", "timestamp=on"),
        *_server("qmp", spec.directory / QMP_SOCKET),
        *("-mon", "chardev=qmp,mode=control"),
        *(("-incoming", "defer") if spec.incoming else ()),
    ]


def _processors(spec: GuestSpec) -> str:
    most = max(spec.vcpus, spec.machine.max_vcpus)
    return f"cpus={spec.vcpus},maxcpus={most},sockets=1,cores={most},threads=1"


def _accelerator(name: str, memory_mib: int, *, dirty_ring: bool) -> str:
    if name == "tcg":
        # Size of the translation cache: for a small guest the default of 1 GiB is out of proportion.
        return f"tcg,thread=multi,tb-size={min(512, max(64, memory_mib))}"
    # Entries for each virtual CPU: the number that QEMU's documentation uses; at most 65536, a power of two.
    return f"{name},dirty-ring-size=4096" if dirty_ring else name


def _memory(spec: GuestSpec) -> str:
    room = spec.memory_room_mib
    return f"size={spec.memory_mib}M" + (f",maxmem={spec.memory_mib + room}M" if room else "")


def _added_memory(spec: GuestSpec) -> list[str]:
    if not spec.memory_room_mib:
        return []
    # Not reserved: most of it is never used. The size of a block would else follow from the host's huge pages.
    backend = f"memory-backend-ram,id={ADDED_MEMORY}-backend,size={spec.memory_room_mib}M,reserve=off"
    device = (
        f"virtio-mem-pci,id={ADDED_MEMORY},memdev={ADDED_MEMORY}-backend,block-size=2M,"
        f"requested-size={spec.added_memory_mib}M,bus=pcie.0,addr=0x18"
    )
    return ["-object", backend, "-device", device]


def _server(name: str, path: Path) -> list[str]:
    return ["-chardev", f"socket,id={name},path={_escape(str(path))},server=on,wait=off"]


def _root_port(number: int) -> list[str]:
    slot, function = FIRST_PORT_SLOT + number // 8, number % 8
    multifunction = ",multifunction=on" if function == 0 else ""
    address = f"bus=pcie.0,addr={slot:#x}.{function}{multifunction}"
    return ["-device", f"pcie-root-port,id=port{number},chassis={number + 1},{address}"]


def node_name(device: str) -> str:
    """What QEMU calls the back end of ``disk@ID`` or ``network@ID``; it takes no ``@``."""
    return device.replace("@", "")


def device_id(device: str) -> str:
    """What QEMU calls the device itself."""
    return f"{node_name(device)}-device"


def disk_back_end(disk: DiskSpec) -> dict[str, object]:
    """What ``-blockdev`` and ``blockdev-add`` take."""
    if disk.path is None:
        return nothing(node_name(disk.device))
    file = {
        "driver": "host_device" if disk.is_device else "file",
        "filename": str(disk.path),
        "aio": "threads",
        "cache": {"direct": disk.direct},
    }
    return {
        "node-name": node_name(disk.device),
        "driver": disk.format,
        "read-only": disk.read_only,
        "discard": "unmap",
        "cache": {"direct": disk.direct},
        "file": file,
    }


def nothing(node: str) -> dict[str, object]:
    """A back end of no size: QEMU tells the guest of an error for every request, without asking the error policy."""
    return {"node-name": node, "driver": "null-co", "size": 0}


def disk_front_end(disk: DiskSpec) -> dict[str, object]:
    """What ``-device`` and ``device_add`` take."""
    return {
        "driver": "virtio-blk-pci",
        "id": device_id(disk.device),
        "drive": node_name(disk.device),
        # The guest stands still until somebody has decided what becomes of an error: see manager/disk_errors.py.
        "rerror": "stop",
        "werror": "stop",
        **_place(disk.port),
        "bootindex": disk.boot_index,
        # Left to QEMU it depends on the virtual CPUs, and a target may be started with more of them than the source.
        **({"num-queues": disk.queues} if disk.queues else {}),
        **({"share-rw": True} if disk.shared else {}),
    }


def network_back_end(network: NetworkSpec) -> dict[str, object]:
    """What ``-netdev`` and ``netdev_add`` take. The tap exists already, so that QEMU needs no script."""
    name = node_name(network.device)
    return {"type": "tap", "id": name, "ifname": network.tap, "script": "no", "downscript": "no"}


def network_front_end(network: NetworkSpec) -> dict[str, object]:
    """What ``-device`` and ``device_add`` take."""
    return {
        "driver": "virtio-net-pci",
        "id": device_id(network.device),
        "netdev": node_name(network.device),
        "mac": network.mac,
        "host_mtu": network.mtu,
        **_place(network.port),
        **_boot_rom(network.boot_index),
    }


def _boot_rom(boot_index: int | None) -> dict[str, object]:
    # QEMU's own default has iPXE. Without it the firmware does not even see the interface, which saves time.
    return {"romfile": ""} if boot_index is None else {"romsize": ROM_BYTES, "bootindex": boot_index}


def _place(port: int) -> dict[str, object]:
    return {"bus": f"port{port}", "addr": "0"}


def _words(first: str, properties: dict[str, object]) -> str:
    left = [f"{name}={'on' if value is True else value}" for name, value in properties.items() if name != first]
    return ",".join([str(properties[first]), *left])


def _escape(text: str) -> str:
    return text.replace(",", ",,")
