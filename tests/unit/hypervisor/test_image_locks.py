"""What QEMU says of a lock, and what is made of it."""

from __future__ import annotations

import pytest

from ldoms.hypervisor.image_locks import as_locked
from ldoms.model.errors import HostError

AT_START = 'QEMU says: -device virtio-blk-pci,id=disk3-device,drive=disk3: Failed to get "write" lock'


@pytest.mark.parametrize(
    ("said", "device", "named"),
    [
        (AT_START, "", "disk@3"),
        ('QEMU says: -blockdev {"node-name": "disk2", "driver": "qcow2"}: Failed to get "write" lock', "", "disk@2"),
        ('device_add on LDom ldg1: QEMU says: Failed to get "write" lock', "disk@1", "disk@1"),
        ('QEMU says: Failed to get shared "write" lock', "", "a disk"),
    ],
)
def test_a_lock_of_another_guest(said: str, device: str, named: str) -> None:
    """One line, without QEMU's words, that names the disk and says what to do."""
    error = as_locked(HostError(said, code="qemu-refused"), "ldg1", device)
    assert error.code == "image-locked"
    assert error.message.startswith(f"LDom ldg1 cannot have {named}: another guest has the same back end open. ")
    assert "QEMU" not in error.message
    assert "\n" not in error.message


def test_any_other_error() -> None:
    """Nothing is made up about it."""
    error = HostError("device_add: QEMU says: no slot", code="qemu-refused")
    assert as_locked(error, "ldg1", "disk@0") is error
