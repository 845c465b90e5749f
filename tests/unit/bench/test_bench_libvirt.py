"""The peer: how its guests are described, and when there is none."""

from __future__ import annotations

import os
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from ldoms.bench.libvirt import describe, why_not, with_account
from ldoms.bench.solo import Image

IMAGE = Image(Path("/cache/a&b/vmlinuz"), Path("/cache/initrd.img"), 'console=ttyS0 note="<1>"')


def test_a_guest_boots_the_image_with_its_arguments() -> None:
    """Whatever characters these have."""
    described = ElementTree.fromstring(describe("bench0", IMAGE))
    assert described.findtext("name") == "bench0"
    assert [described.findtext(f"os/{name}") for name in ("kernel", "initrd", "cmdline")] == [
        "/cache/a&b/vmlinuz",
        "/cache/initrd.img",
        'console=ttyS0 note="<1>"',
    ]
    assert (described.findtext("memory"), described.findtext("vcpu")) == ("128", "1")


ACCOUNT = "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin"


def test_an_account_is_added_once() -> None:
    """At the end, in a line of its own."""
    table = "root:x:0:0:root:/root:/bin/bash"
    added = with_account(table, ACCOUNT)
    assert added == f"{table}\n{ACCOUNT}\n"
    assert with_account(added, ACCOUNT) == added


def test_an_account_that_is_there_stays_as_it_is() -> None:
    """Another name that begins alike is another account."""
    own = "libvirt-qemu:x:115:64055:Libvirt Qemu,,,:/var/lib/libvirt:/usr/sbin/nologin\n"
    assert with_account(own, ACCOUNT) == own
    assert with_account(own.replace("qemu:", "qemu2:"), ACCOUNT).endswith(f"{ACCOUNT}\n")


def test_without_libvirt_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence."""
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "libvirtd" else f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert why_not() == "libvirtd not found; 'setup/system bench' installs libvirt"


def test_root_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all programs are there."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" in why_not()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert why_not() == ""
