"""A Debian kernel without installing it, and the small initial file system that guest images start from."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ldoms.lab import debian

# The cloud kernel has all of these as modules; button and evdev are for the power button.
MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "virtio_balloon",
    "virtio_mem",
    "button",
    "evdev",
    "pvpanic_pci",
)

_DECOMPRESSORS = {".xz": "xz", ".zst": "zstd"}
_DIRECTORIES = ("bin", "dev", "lib/modules", "proc", "root", "sys")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel package, unpacked.

    Attributes:
        root: directory that the package was unpacked to.
        release: as ``uname -r`` says it.
    """

    root: Path
    release: str

    @property
    def image(self) -> Path:
        """What QEMU's ``-kernel`` takes."""
        return self.root / f"boot/vmlinuz-{self.release}"


def unpack_kernel(package: Path, root: Path) -> Kernel:
    """Unpack a kernel package to `root` and work out what its modules depend on."""
    debian.run(["dpkg-deb", "--extract", str(package), str(root)])
    # The package has one of the two and kmod looks into one of them, depending on the release of Debian.
    for there, missing in (("usr/lib", "lib"), ("../lib", "usr/lib")):
        if not (root / missing).exists():
            (root / missing).symlink_to(there)
    release = next((root / "lib/modules").iterdir()).name
    debian.run(["depmod", "--basedir", str(root), release])
    return Kernel(root, release)


def module_files(dependencies: str) -> list[Path]:
    """The files that ``modprobe --show-depends`` wants loaded, in order, each once; built-in modules have none."""
    words = [line.split() for line in dependencies.splitlines()]
    return list(dict.fromkeys(Path(word[1]) for word in words if word[0] == "insmod"))


def write_initramfs(target: Path, kernel: Kernel, start: Path, guest: Path, programs: Sequence[Path]) -> None:
    """Write an initial file system to `target`, the same bytes for the same input.

    Args:
        target: the file; the tree is made beside it.
        kernel: gives the modules.
        start: script that goes on when the modules are loaded.
        guest: directory of ``initramfs-init``.
        programs: statically linked, for ``/bin``; busybox is one of them.
    """
    tree = target.with_suffix(".tree")
    for name in _DIRECTORIES:
        (tree / name).mkdir(parents=True)
    for program in programs:
        _install(program, tree / "bin" / program.name, 0o755)
    _install(guest / "initramfs-init", tree / "init", 0o755)
    _install(start, tree / "start", 0o644)
    _add_modules(kernel, tree / "lib/modules")
    target.write_bytes(gzip.compress(_archive(tree), 9, mtime=0))


def _add_modules(kernel: Kernel, directory: Path) -> None:
    words = ["modprobe", "--dirname", str(kernel.root), "--set-version", kernel.release, "--show-depends", "--all"]
    files = module_files(debian.run([*words, *MODULES]).decode())
    order = ""
    for file in files:
        tool = _DECOMPRESSORS.get(file.suffix)
        name = file.stem if tool else file.name
        (directory / name).write_bytes(debian.run([tool, "-dc", str(file)]) if tool else file.read_bytes())
        order += f"{name}\n"
    (directory / "order").write_text(order)


def _install(source: Path, target: Path, mode: int) -> None:
    shutil.copyfile(source, target)
    target.chmod(mode)


def _archive(tree: Path) -> bytes:
    paths = sorted(tree.rglob("*"))
    for path in [tree, *paths]:
        os.utime(path, (debian.SOURCE_DATE_EPOCH, debian.SOURCE_DATE_EPOCH), follow_symlinks=False)
    names = "\0".join([".", *(str(path.relative_to(tree)) for path in paths)])
    words = ["cpio", "--quiet", "--create", "--null", "--format=newc", "--reproducible", "--owner=+0:+0"]
    return debian.run(words, directory=tree, text=names.encode())
