"""QEMU's locks on images: what it says when another guest has one, in words that help."""

from __future__ import annotations

import re

from ldoms.model.errors import HostError

_CONFLICT = re.compile(r'Failed to get (shared )?"[^"]*" lock')
_DEVICE = re.compile(r'(?:\bid=|"node-name": ")(disk)(\d+)(?:-device\b|")')
"""In the option that QEMU could not follow: of the front end, or of the back end."""


def as_locked(error: HostError, name: str, device: str = "") -> HostError:
    """The error of somebody who has met another guest's lock; any other error as it is.

    Args:
        error: code ``qemu-refused``: what QEMU says.
        name: of the domain.
        device: ``disk@ID``; empty = QEMU says it.
    """
    if not _CONFLICT.search(error.message):
        return error
    if not device and (match := _DEVICE.search(error.message)):
        device = f"{match[1]}@{match[2]}"
    return HostError(
        f"LDom {name} cannot have {device or 'a disk'}: another guest has the same back end open. Stop that guest, or"
        " make it one that guests share: a raw image or a block device that is offered twice ('ldm add-vdsdev -f') is"
        " shared by guests that are started after that, a qcow2 image only with options=ro on both volumes",
        code="image-locked",
    )
