"""Two libvirts on the two hosts of a lab, which trust each other: the peer that is measured beside `ldm`.

Each has directories of its own (`ldoms.bench.libvirt`) in the namespaces of its host, and ends with the lab. Their own
connection is not encrypted and nobody is authenticated on it, which is faster than what people use; memory is
encrypted where `--tls` says so, with certificates that are made for the run.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5
from xml.sax.saxutils import escape

from ldoms.bench.libvirt import BEGIN, SPACE, connection, furnish
from ldoms.bench.peers.hands import RemoteHand
from ldoms.bench.peers.scenario import Guest
from ldoms.bench.solo import run
from ldoms.model.errors import HostError

PORT = 16509
START_S = 60.0
SWITCH = "vsw0"
"""The bridge of a lab host that its guests are connected to."""

_DAEMON = """
listen_tls = 0
listen_tcp = 1
tcp_port = "{port}"
listen_addr = "{address}"
auth_tcp = "none"
host_uuid = "{uuid}"
"""
_GUESTS = """
migrate_tls_x509_cert_dir = "{certificates}"
migrate_tls_x509_verify = 0
migration_address = "{address}"
"""
# As `ldmd` starts them: the same processor, memory that is free is reported, a network interface without a boot ROM.
_DOMAIN = """<domain type="qemu">
<name>{name}</name><uuid>{uuid}</uuid><memory unit="MiB">{memory_mib}</memory><vcpu>{vcpus}</vcpu>
<os><type machine="q35">hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{boot_args}</cmdline></os>
<features><acpi/></features>
<cpu mode="custom" match="exact" check="none"><model fallback="allow">qemu64</model></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><serial type="null"/>
<interface type="bridge"><mac address="{mac}"/><source bridge="{switch}"/><model type="virtio"/><rom enabled="no"/>
</interface>{disk}
<memballoon model="virtio" freePageReporting="on"/>
<rng model="virtio"><backend model="random">/dev/urandom</backend></rng>
</devices>
</domain>
"""
_DISK = """
<disk type="file" device="disk"><driver name="qemu" type="qcow2" cache="none"/><source file="{path}"/>
<target dev="vda" bus="virtio"/></disk>"""


def describe(guest: Guest) -> str:
    """A guest as libvirt wants it described."""
    return _DOMAIN.format(
        name=escape(guest.name),
        uuid=guest.uuid,
        memory_mib=guest.memory_mib,
        kernel=escape(str(guest.image.kernel)),
        initrd=escape(str(guest.image.initrd)),
        boot_args=escape(guest.image.boot_args),
        mac=guest.mac,
        switch=SWITCH,
        vcpus=guest.vcpus,
        disk=_DISK.format(path=escape(str(guest.disk))) if guest.disk else "",
    )


def make_certificates(directory: Path, addresses: tuple[str, ...]) -> None:
    """Make what both hosts show each other: RSA, as QEMU's own check refuses a key that cannot encipher keys.

    Raises:
        HostError: openssl failed.
    """
    directory.mkdir(parents=True)
    ca = ("-keyout", str(directory / "ca-key.pem"), "-out", str(directory / "ca-cert.pem"))
    key = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    signing = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    run([*key, *ca, "-subj", "/CN=ldoms-bench", *signing])
    names = ",".join(f"IP:{address}" for address in addresses)
    for end, use in (("server", "serverAuth"), ("client", "clientAuth")):
        files = ("-keyout", str(directory / f"{end}-key.pem"), "-out", str(directory / f"{end}-cert.pem"))
        signer = ("-CA", str(directory / "ca-cert.pem"), "-CAkey", str(directory / "ca-key.pem"))
        extensions = (
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature,keyEncipherment",
            f"extendedKeyUsage={use}",
            f"subjectAltName={names}",
        )
        added = [word for extension in extensions for word in ("-addext", extension)]
        run([*key, *files, *signer, "-subj", f"/CN=ldoms-bench {end}", *added])


@dataclass(frozen=True, slots=True)
class Libvirts:
    """The two of them.

    Attributes:
        virsh: the words before a command of `virsh`, by host.
        version: of libvirt.
    """

    virsh: Mapping[str, tuple[str, ...]]
    version: str


def start_libvirts(home: Path, hands: Mapping[str, RemoteHand], addresses: Mapping[str, str]) -> Libvirts:
    """Start a libvirt on each host of a lab, with files below the directory `home`; they end with their hands.

    Raises:
        HostError: one does not start.
    """
    certificates = home / "certificates"
    make_certificates(certificates, tuple(addresses.values()))
    virsh = {}
    for host, address in addresses.items():
        own = home / host
        uuid = uuid5(NAMESPACE_OID, f"ldoms-bench-{host}")
        furnish(
            own,
            _DAEMON.format(port=PORT, address=address, uuid=uuid),
            _GUESTS.format(certificates=certificates, address=address),
        )
        hands[host].start([*SPACE, "sh", "-ec", BEGIN, "sh", str(own), "--listen"], str(own / "said"))
        virsh[host] = connection(own)
    for host in addresses:
        _wait(hands[host], virsh[host], home / host / "said")
    version = subprocess.run(["libvirtd", "--version"], capture_output=True, text=True, check=False).stdout
    return Libvirts(virsh, version.strip().rpartition(" ")[2])


def _wait(hand: RemoteHand, virsh: tuple[str, ...], said: Path) -> None:
    deadline = time.monotonic() + START_S
    while hand.run([[*virsh, "list"]]).results[0].status != 0:
        if time.monotonic() > deadline:
            last = said.read_text().strip().splitlines()[-1:]
            raise HostError(f"libvirtd does not start: {''.join(last)}", code="no-peer")
        time.sleep(0.1)
