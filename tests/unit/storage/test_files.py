"""What this host's kernel shows of files: links, locks, identities, beacons. QEMU's own tools are not asked."""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ldoms.model.errors import HostError, RequestError
from ldoms.model.services import Volume
from ldoms.storage import files
from ldoms.storage.files import FileStorage

BEACON = ".ldoms-beacon"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "disk.raw"
    path.parent.mkdir()
    path.write_bytes(bytes(4096))
    return path


@pytest.fixture(autouse=True)
def _image_info(monkeypatch: pytest.MonkeyPatch) -> None:
    """`qemu-img` says that every image is raw and has 4096 bytes, unless its name has another format."""

    async def info(path: str, image_format: str | None) -> dict[str, Any]:
        return {"format": Path(path).suffix[1:], "virtual-size": 4096}

    monkeypatch.setattr(files, "_image_info", info)


@contextmanager
def locked(path: Path, byte: int, kind: int = fcntl.F_RDLCK) -> Iterator[None]:
    """Somebody else has the lock: QEMU takes shared ones, on bytes that say what it does (block/file-posix.c)."""
    with path.open("rb+") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0))
        yield


async def test_an_image_is_opened_where_its_links_lead(image: Path, tmp_path: Path) -> None:
    """Two hosts may call it by different links; QEMU is given the file itself."""
    link = tmp_path / "link"
    link.symlink_to(image)
    back_end = await FileStorage().open(Volume("root", str(link), format="raw"))
    assert (back_end.path, back_end.format, back_end.is_device) == (image, "raw", False)


@pytest.mark.parametrize(
    ("backend", "reason"),
    [("missing", "No such file or directory"), (".", "Is a directory"), ("disk.raw/x", "Not a directory")],
)
async def test_what_cannot_be_opened_is_refused_with_the_reason(image: Path, backend: str, reason: str) -> None:
    """The volume and its back end are named."""
    path = image.parent / backend
    with pytest.raises(HostError, match=f"the back end {path} of volume root cannot be used: {reason}") as caught:
        await FileStorage().open(Volume("root", str(path), format="raw"))
    assert caught.value.code == "no-image"
    facts = await FileStorage().inspect("root@vds", Volume("root", str(path), format="raw"), BEACON)
    assert (facts.error, facts.identity) == (caught.value.message, "")


@pytest.mark.parametrize(
    ("byte", "is_locked"),
    [(files._WRITE_LOCK_BYTE, True), (files._WRITE_LOCK_BYTE - 1, False), (files._WRITE_LOCK_BYTE + 100, False)],
    ids=["writes", "reads", "lets nobody write"],
)
async def test_only_the_lock_of_a_writer_counts(image: Path, byte: int, is_locked: bool) -> None:
    """As long as it is held."""
    volume = Volume("root", str(image), format="raw")
    with locked(image, byte):
        assert (await FileStorage().inspect("root@vds", volume, BEACON)).locked is is_locked
    assert not (await FileStorage().inspect("root@vds", volume, BEACON)).locked


async def test_looking_takes_no_lock(image: Path) -> None:
    """A guest that starts meanwhile is not in its way."""
    await FileStorage().inspect("root@vds", Volume("root", str(image), format="raw"), BEACON)
    with locked(image, files._WRITE_LOCK_BYTE, fcntl.F_WRLCK):
        pass


async def test_an_image_is_known_by_what_it_is_and_not_by_its_name(image: Path, tmp_path: Path) -> None:
    """A link is the same image, a copy is another."""
    link, copy = image.parent / "link.raw", image.parent / "copy.raw"
    link.hardlink_to(image)
    copy.write_bytes(image.read_bytes())
    identities = [
        (await FileStorage().inspect("root@vds", Volume("root", str(path), format="raw"), BEACON)).identity
        for path in (image, link, copy)
    ]
    assert identities[0] == identities[1] != identities[2]


async def test_a_beacon_is_beside_the_image_itself(image: Path, tmp_path: Path) -> None:
    """Not beside a link to it, which the other host has somewhere else; taken back, nothing is left."""
    link, storage = tmp_path / "link.raw", FileStorage()
    link.symlink_to(image)
    await storage.place_beacons((str(link), str(tmp_path / "no" / "such" / "place.raw")), BEACON, "a secret")
    assert (image.parent / BEACON).read_text() == "a secret"
    assert (await storage.inspect("root@vds", Volume("root", str(image), format="raw"), BEACON)).beacon == "a secret"
    for _ in range(2):
        await storage.remove_beacons((str(link), str(tmp_path / "no" / "such" / "place.raw")), BEACON)
        assert sorted(tmp_path.rglob("*")) == [image.parent, image, link]


async def test_a_read_only_volume_is_told(image: Path) -> None:
    """For the rule that compares it with what the guest needs."""
    facts = await FileStorage().inspect("root@vds", Volume("root", str(image), ("ro",), format="raw"), BEACON)
    assert not facts.writable


async def test_formats_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    """With the way to convert them."""
    assert await FileStorage().detect_format(str(tmp_path / "a.qcow2")) == "qcow2"
    with pytest.raises(RequestError, match="has the format vmdk: convert it to raw or qcow2") as caught:
        await FileStorage().detect_format(str(tmp_path / "a.vmdk"))
    assert caught.value.code == "bad-image"


async def test_a_digest_is_that_of_the_content(image: Path) -> None:
    """What cannot be read has none."""
    assert await FileStorage().digest(str(image)) == hashlib.sha256(bytes(4096)).hexdigest()
    assert await FileStorage().digest(str(image.parent)) == ""
    assert await FileStorage().digest(str(image.parent / "missing")) == ""


async def test_the_digest_of_a_file_that_has_changed_is_another(image: Path) -> None:
    """Written in place or replaced by a file as large and as old; one that stays is read once."""
    storage, before = FileStorage(), image.stat()
    first = await storage.digest(str(image))
    image.write_bytes(b"1" * 4096)
    written = await storage.digest(str(image))
    other = image.with_name("other")
    other.write_bytes(b"2" * 4096)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(image)
    assert len({first, written, await storage.digest(str(image))}) == 3
    image.chmod(0o400)
    assert await storage.digest(str(image)) == hashlib.sha256(b"2" * 4096).hexdigest()


async def test_a_file_that_stays_is_read_once(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration does not wait for what an earlier one has read."""
    first = await FileStorage().digest(str(image))
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: pytest.fail("it was read again"))
    assert await FileStorage().digest(str(image)) == first
