"""What a host sees of a file that a domain needs: is it there, is it the same one as on the other host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A disk image or block device as one host sees it.

    Attributes:
        volume: ``volume@service``, the name that both hosts must have.
        path: on this host.
        error: why it cannot be used; empty = it can. The other attributes are then empty.
        format: ``raw`` or ``qcow2``.
        virtual_size: bytes that the guest sees.
        identity: same on two hosts only if they see the same file or device: inode and file system, or the
            device's own serial number.
        beacon: content of the beacon file beside the image, left there by the source; empty = none seen.
        locked: whether another process has QEMU's write lock on it.
        writable: whether this host can write to it.
        allocated_bytes: what it takes of the host's storage at most, if it was copied without its empty parts.
        behind: of a loop device, the inode of its file, as `identity` has that of a file: another one is another
            file. The same one proves nothing, as each host may have a file system of its own.
    """

    volume: str
    path: str
    error: str = ""
    format: str = ""
    virtual_size: int = 0
    identity: str = ""
    beacon: str = ""
    locked: bool = False
    writable: bool = True
    allocated_bytes: int = 0
    behind: str = ""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the copy of a disk would be on a host.

    Attributes:
        volume: ``volume@service``.
        path: on that host.
        error: why nothing can be made there; empty = it can.
        exists: something is there already.
        device_bytes: size of the block device that is there; 0 = none is.
        locked: somebody has QEMU's write lock on what is there.
        file_system: the same for paths that share their room.
        free_bytes: of that file system.
    """

    volume: str
    path: str
    error: str = ""
    exists: bool = False
    device_bytes: int = 0
    locked: bool = False
    file_system: str = ""
    free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class BootFileFacts:
    """A kernel or initial RAM disk that a domain boots from directly.

    Attributes:
        variable: ``boot-file`` or ``boot-initrd``.
        digest: SHA-256 of its content; empty = it cannot be read.
    """

    variable: str
    path: str
    digest: str
