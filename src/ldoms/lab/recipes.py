"""The two guest images, and how each is built out of Debian packages and the files of ``guest/``.

``tiny`` is an initial file system around one program that shows whether work was lost (``guest/pulse.c``).
``postgres`` is a disk with PostgreSQL and nothing that it does not need: no udev, no services, no LLVM.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ldoms.lab import debian, initramfs
from ldoms.model.errors import HostError

KERNEL = "vmlinuz"
INITRD = "initrd.img"
DISK = "disk.qcow2"

_KERNEL_PACKAGE = "linux-image-cloud-amd64"

# The self-tests of the kernel's ciphers take a second under TCG; guests of a laboratory need no mitigations. Memory
# that is added is used at once, and so that it can be taken away; room for it would cost 64 MiB of bounce buffers.
# A panic can be caused from outside (ldm panic-domain), and is over in a second.
_BOOT_ARGS = (
    "console=ttyS0 quiet mitigations=off cryptomgr.notests memhp_default_state=online_movable swiotlb=noforce"
    " panic=1 unknown_nmi_panic"
)

_DISK_SIZE = "4G"
_BOOTSTRAP_LIMIT_S = 900.0
_PACKAGES = ("busybox-static", "chrony", "iproute2", "postgresql", "procps", "qemu-guest-agent", "sysstat")
_LEFT_OUT = (
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/i18n/*",
    # LLVM, and what only LLVM needs: a hundred megabytes for just-in-time compilation, which is switched off.
    "/usr/lib/*/libLLVM*",
    "/usr/lib/*/libz3.so*",
    "/usr/lib/postgresql/*/lib/bitcode/*",
    "/usr/lib/postgresql/*/lib/llvmjit*",
)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to build one image.

    Attributes:
        name: of the image.
        boot_args: kernel arguments that every boot of it needs.
        files: of ``guest/``, that go into it or make it.
        tools: programs that building it takes.
        cook: fills an empty directory with KERNEL, INITRD and perhaps DISK, working in another one; gives the
            packages that went in, and their versions.
        root: whether only root can build it.
    """

    name: str
    boot_args: str
    files: tuple[str, ...]
    tools: tuple[str, ...]
    cook: Callable[[Path, Path, Progress], Mapping[str, str]]
    root: bool = False

    def key(self) -> str:
        """Hash of all that decides what the image is, except for the versions of packages."""
        digest = hashlib.sha256(f"{self.name} {debian.codename()} {platform.machine()}".encode())
        sources = [guest_directory() / name for name in self.files]
        for source in [*sources, Path(__file__), Path(initramfs.__file__)]:
            digest.update(hashlib.sha256(source.read_bytes()).digest())
        return digest.hexdigest()[:12]

    def check_host(self) -> None:
        """See to it that the image can be built here.

        Raises:
            HostError: it cannot; the message says what to do.
        """
        debian.require(self.tools)
        if self.root and os.geteuid() != 0:
            raise HostError(f"the image '{self.name}' can only be built by root", code="no-root")


def guest_directory() -> Path:
    """Where the files of ``guest/`` are: inside the installed package, or at the root of a checkout."""
    installed = Path(__file__).parents[1] / "guest"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "guest"


def _cook_tiny(image: Path, work: Path, progress: Progress) -> Mapping[str, str]:
    guest = guest_directory()
    progress("compiling pulse")
    pulse = work / "pulse"
    words = ["gcc", "-static", "-O2", "-pthread", "-Wall", "-Wextra", "-s", "-o", str(pulse), str(guest / "pulse.c")]
    debian.run(words)
    return _boot_files(image, work, progress, guest / "tiny-init", pulse)


def _cook_postgres(image: Path, work: Path, progress: Progress) -> Mapping[str, str]:
    packages = _boot_files(image, work, progress, guest_directory() / "postgres-start")
    progress("installing PostgreSQL")
    root, raw = work / "root", work / "disk.raw"
    server = debian.dependency("postgresql", "postgresql-")
    command = bootstrap_command(root, guest_directory(), debian.archive(), (*_PACKAGES, f"{server}-pg-wait-sampling"))
    debian.run(command, limit_s=_BOOTSTRAP_LIMIT_S, confined=True)
    progress("writing the disk")
    # Nothing is left for the guest to initialize: its first minutes would be full of writes.
    now = "lazy_itable_init=0,lazy_journal_init=0"
    debian.run(
        ["mke2fs", "-q", "-t", "ext4", "-L", "root", "-m", "0", "-E", now, "-d", str(root), str(raw), _DISK_SIZE]
    )
    compressed = ["-c", "-O", "qcow2", "-o", "compression_type=zstd"]
    debian.run(["qemu-img", "convert", "-f", "raw", *compressed, str(raw), str(image / DISK)])
    return packages | debian.installed(root)


def _boot_files(image: Path, work: Path, progress: Progress, start: Path, *programs: Path) -> dict[str, str]:
    """Write KERNEL and INITRD, whose last step is the script `start`."""
    progress("fetching the kernel")
    names = (debian.dependency(_KERNEL_PACKAGE, "linux-image-"), "busybox-static")
    packages = {name: debian.download(name, work) for name in names}
    progress("unpacking the kernel")
    kernel = initramfs.unpack_kernel(packages[names[0]], work / "kernel")
    kernel.image.rename(image / KERNEL)
    debian.run(["dpkg-deb", "--extract", str(packages[names[1]]), str(work / "busybox")])
    busybox = next((work / "busybox").glob("**/bin/busybox"))
    progress("writing the initial file system")
    initramfs.write_initramfs(work / INITRD, kernel, start, guest_directory(), [busybox, *programs])
    (work / INITRD).rename(image / INITRD)
    return {name: debian.version(package) for name, package in packages.items()}


def bootstrap_command(root: Path, guest: Path, archive: list[str], packages: Sequence[str]) -> list[str]:
    """The command that makes the tree of the PostgreSQL guest in `root`; `archive` is lines of a sources.list."""
    setup = f"sh {shlex.quote(str(guest / 'postgres-setup'))}"
    return [
        "mmdebstrap",
        *("--mode=root", "--variant=minbase", "--format=directory"),
        *('--aptopt=Apt::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"'),
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f"--include={','.join(packages)}",
        f'--essential-hook={setup} before "$1"',
        f'--customize-hook={setup} after "$1"',
        debian.codename(),
        str(root),
        *archive,
    ]


_BOOT_TOOLS = ("apt-get", "cpio", "depmod", "dpkg-deb", "modprobe", "xz", "zstd")
_TINY = Recipe(
    name="tiny",
    boot_args=_BOOT_ARGS,
    files=("initramfs-init", "pulse.c", "tiny-init"),
    tools=(*_BOOT_TOOLS, "gcc"),
    cook=_cook_tiny,
)
_POSTGRES = Recipe(
    name="postgres",
    boot_args=f"{_BOOT_ARGS} root=/dev/vda",
    files=(
        "initramfs-init",
        "postgres-init",
        "postgres-setup",
        "postgres-shutdown",
        "postgres-start",
        "postgresql.conf",
    ),
    tools=(*_BOOT_TOOLS, "mmdebstrap", "mke2fs", "qemu-img", "setpriv", "unshare"),
    cook=_cook_postgres,
    root=True,
)
RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (_TINY, _POSTGRES)}
