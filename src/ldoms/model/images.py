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
