"""Which accelerator is chosen, and why: KVM only where a kernel has really booted with it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ldoms.hypervisor import probe


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinuz"
    path.touch()
    return path


def allow_kvm(monkeypatch: pytest.MonkeyPatch, *, works: bool) -> list[Path]:
    """A machine with /dev/kvm; returns the kernels that were booted on it."""
    booted: list[Path] = []

    async def boots(accelerator: str, kernel: Path, limit_s: float = 0) -> tuple[bool, str]:
        booted.append(kernel)
        return works, f"{accelerator} {'boots' if works else 'hangs'}"

    monkeypatch.setattr(os, "access", lambda path, mode: True)
    monkeypatch.setattr(probe, "boots", boots)
    return booted


@pytest.mark.parametrize(("works", "accelerator"), [(True, "kvm"), (False, "tcg")])
async def test_kvm_is_proven_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: Path, works: bool, accelerator: str
) -> None:
    """By booting a kernel; the result is kept with its reason, and used at the next start."""
    booted = allow_kvm(monkeypatch, works=works)
    cache = tmp_path / "kvm.json"
    for _ in range(2):
        chosen, reason = await probe._choose_accelerator([tmp_path / "missing", kernel], cache)
        assert (chosen, reason) == (accelerator, f"kvm {'boots' if works else 'hangs'}")
    assert booted == [kernel]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", json.dumps({"key": ["another kernel"], "accelerator": "kvm", "reason": ""})]
)
async def test_a_proof_of_another_kernel_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: Path, content: str
) -> None:
    """Nor does a broken file."""
    booted = allow_kvm(monkeypatch, works=False)
    cache = tmp_path / "kvm.json"
    cache.write_text(content)
    assert (await probe._choose_accelerator([kernel], cache))[0] == "tcg"
    assert booted == [kernel]


async def test_without_a_device_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: Path) -> None:
    """The reason says so."""
    booted = allow_kvm(monkeypatch, works=True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    chosen, reason = await probe._choose_accelerator([kernel], tmp_path / "kvm.json")
    assert chosen == "tcg"
    assert "no /dev/kvm" in reason
    assert booted == []


async def test_without_a_kernel_nothing_is_taken_for_granted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The reason says how to choose by hand."""
    allow_kvm(monkeypatch, works=True)
    chosen, reason = await probe._choose_accelerator([], tmp_path / "kvm.json")
    assert chosen == "tcg"
    assert 'accelerator = "kvm"' in reason


def test_the_compressions_of_multifd_are_found_in_the_schema() -> None:
    """By what its enumeration has, as QEMU hides its name."""
    schema = [
        {"meta-type": "enum", "members": [{"name": "none"}, {"name": "on"}]},
        {"meta-type": "enum", "members": [{"name": "zstd"}, {"name": "zlib"}, {"name": "none"}]},
        {"meta-type": "object"},
    ]
    assert probe._multifd_compressions(schema) == ("none", "zlib", "zstd")
    assert probe._multifd_compressions([]) == ("none",)


def test_a_kernel_is_asked_for_its_dirty_ring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of either sort; without a device there is none."""
    device = tmp_path / "kvm"
    assert not probe.kvm_has_dirty_ring(device)
    device.touch()
    for has, expected in (({192}, True), ({223}, True), (set[int](), False)):
        monkeypatch.setattr(probe.fcntl, "ioctl", lambda file, request, extension, has=has: int(extension in has))
        assert probe.kvm_has_dirty_ring(device) is expected
