"""The peer: a ``libvirtd`` of one's own, with guests from the same image, and nothing left of it afterwards.

It lives in namespaces of its own. Where libvirt keeps its files, it sees directories of ours, and no other daemon of
the machine: nothing of a libvirt that is in use here is touched. All its processes, the guests too, are in one
namespace of process numbers, and end with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from ldoms.bench.solo import GUEST_MIB, Image, run
from ldoms.model.errors import HostError

START_S = 60.0
_POLL_S = 0.05
USER = "libvirt-qemu"
"""Libvirt looks for it even where guests run as somebody else."""
_USER_ID = 64055
"""Which Debian keeps for it."""

SPACE = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")
"""The words before a command that give it namespaces of its own."""

# Its words: the directory that `furnish` made, and options of libvirtd. Process 1 of the namespace has to wait for
# processes that libvirt lets go of: a shell does, libvirtd would not.
BEGIN = """
mount --bind "$1/run" /run
for place in lib cache log; do mount --bind "$1/$place" /var/$place; done
mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
libvirtd --config /etc/libvirt/libvirtd.conf $2 &
wait $!
"""
_QEMU_CONF = """
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
dynamic_ownership = 0
"""
_DOMAIN = """<domain type="qemu">
<name>{name}</name><memory unit="MiB">{memory_mib}</memory><vcpu>1</vcpu>
<os><type machine="q35">hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{boot_args}</cmdline></os>
<features><acpi/></features>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><serial type="null"/></devices>
</domain>
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A libvirt with guests that run.

    Attributes:
        virsh: the words before a command of `virsh`.
        version: of libvirt.
    """

    virsh: tuple[str, ...]
    version: str


def why_not() -> str:
    """Why there can be no libvirt here; empty if there can."""
    missing = [name for name in ("libvirtd", "virsh", "unshare") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not found; 'setup/system bench' installs libvirt"
    return "" if os.geteuid() == 0 else "root is needed for namespaces of its own"


def describe(name: str, image: Image) -> str:
    """A guest as libvirt wants it described: like those that `ldmd` starts, one virtual CPU and 128 MiB."""
    return _DOMAIN.format(
        name=escape(name),
        memory_mib=GUEST_MIB,
        kernel=escape(str(image.kernel)),
        initrd=escape(str(image.initrd)),
        boot_args=escape(image.boot_args),
    )


def with_account(table: str, line: str) -> str:
    """The text of ``passwd`` or ``group``, with a line for an account that it does not have yet."""
    name = line.partition(":")[0]
    if any(known.partition(":")[0] == name for known in table.splitlines()):
        return table
    return f"{table.rstrip()}\n{line}\n"


@contextlib.contextmanager
def libvirt(home: Path, image: Image, guests: int) -> Iterator[Peer]:
    """A libvirt with that many guests running, below the directory `home`.

    Raises:
        HostError: it does not start, or its guests do not; nothing is left of it.
    """
    furnish(home)
    image = copied(image, home)
    with (home / "said").open("w") as said:
        process = subprocess.Popen(
            [*SPACE, "sh", "-ec", BEGIN, "sh", str(home)], stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
    try:
        virsh = connection(home)
        _wait(process, home / "sockets/libvirt-sock", home / "said")
        for number in range(guests):
            described = home / f"guest{number}.xml"
            described.write_text(describe(f"bench{number}", image))
            run([*virsh, "create", str(described)])
        yield Peer(virsh, run(["libvirtd", "--version"]).strip().rpartition(" ")[2])
    finally:
        process.kill()  # and with it, by --kill-child, process 1 of the namespace and all others in it
        process.wait()


def furnish(home: Path, daemon: str = "", guests: str = "") -> None:
    """Make the directories of a libvirt below `home`, and its configuration: of the daemon, and of its guests."""
    for name in ("run", "lib", "cache", "log", "etc", "sockets"):
        (home / name).mkdir(parents=True)
    sockets = f'unix_sock_dir = "{home}/sockets"\nunix_sock_group = "root"\n'
    (home / "etc/libvirtd.conf").write_text(f'{sockets}auth_unix_rw = "none"\nauth_unix_ro = "none"\n{daemon}')
    (home / "etc/qemu.conf").write_text(_QEMU_CONF + guests)
    passwd, group = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
    account = f"{USER}:x:{_USER_ID}:{_USER_ID}::/nonexistent:/usr/sbin/nologin"
    (home / "passwd").write_text(with_account(passwd, account))
    (home / "group").write_text(with_account(group, f"{USER}:x:{_USER_ID}:"))


def connection(home: Path) -> tuple[str, ...]:
    """The words before a command of `virsh` for the libvirt below `home`."""
    return ("virsh", "-c", f"qemu:///system?socket={home}/sockets/libvirt-sock")


def copied(image: Image, home: Path) -> Image:
    """Copies of an image's files: the cache of images may be where libvirt sees directories of ours."""
    return Image(
        Path(shutil.copy(image.kernel, home)),
        Path(shutil.copy(image.initrd, home)),
        image.boot_args,
    )


def _wait(process: subprocess.Popen[bytes], socket: Path, said: Path) -> None:
    deadline = time.monotonic() + START_S
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            last = said.read_text().strip().splitlines()[-1:]
            raise HostError(f"libvirtd does not start: {''.join(last)}", code="no-peer")
        time.sleep(_POLL_S)
