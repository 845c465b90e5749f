"""The contract of `ldoms.storage.storage`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Protocol

import pytest

from ldoms.model.errors import HostError, RequestError
from ldoms.model.services import Volume
from ldoms.storage.storage import Storage


class StorageBench(Protocol):
    """Two hosts that share some storage, with a qcow2 and a raw image of 1 GiB on it."""

    ours: Storage
    theirs: Storage
    qcow2: str
    raw: str
    missing: str

    def write(self, name: str, content: str) -> str:
        """Write a file, and return its path."""

    def used(self, path: str) -> AbstractContextManager[None]:
        """A guest has the image open, and may write to it."""


def volume(path: str, image_format: str = "", options: tuple[str, ...] = ()) -> Volume:
    return Volume("root", path, options, format=image_format)


async def check_formats_are_found(bench: StorageBench) -> None:
    """From the content; what is not there is named."""
    assert await bench.ours.detect_format(bench.qcow2) == "qcow2"
    assert await bench.ours.detect_format(bench.raw) == "raw"
    with pytest.raises(RequestError, match="there is no file or device") as caught:
        await bench.ours.detect_format(bench.missing)
    assert caught.value.code == "no-image"


async def check_a_volume_is_opened(bench: StorageBench) -> None:
    """With its format; one whose back end is missing is named."""
    back_end = await bench.ours.open(volume(bench.qcow2, "qcow2"))
    assert (str(back_end.path), back_end.format, back_end.is_device) == (bench.qcow2, "qcow2", False)
    with pytest.raises(HostError, match=r"volume root cannot be used") as caught:
        await bench.ours.open(volume(bench.missing, "raw"))
    assert caught.value.code == "no-image"


async def check_a_volume_works_or_not(bench: StorageBench) -> None:
    """A block of it is read, and nothing is changed; what is missing is named."""
    await bench.ours.check(volume(bench.qcow2, "qcow2"))
    await bench.ours.check(volume(bench.raw, "raw", ("ro",)))
    with pytest.raises(HostError, match=r"volume root cannot be used") as caught:
        await bench.ours.check(volume(bench.missing, "raw"))
    assert caught.value.code == "no-image"


async def check_both_hosts_see_the_same_image(bench: StorageBench) -> None:
    """Its size and identity agree, and the beacon that one leaves is seen by the other until it is taken back."""
    await bench.ours.place_beacons((bench.qcow2,), ".beacon", "a secret")
    ours = await bench.ours.inspect("root@vds", volume(bench.qcow2, "qcow2"), ".beacon")
    theirs = await bench.theirs.inspect("root@vds", volume(bench.qcow2, "qcow2"), ".beacon")
    assert ours == theirs
    assert (ours.error, ours.format, ours.virtual_size, ours.beacon) == ("", "qcow2", 1 << 30, "a secret")
    assert ours.identity
    await bench.ours.remove_beacons((bench.qcow2,), ".beacon")
    assert (await bench.theirs.inspect("root@vds", volume(bench.qcow2, "qcow2"), ".beacon")).beacon == ""
    await bench.ours.remove_beacons((bench.qcow2, bench.missing), ".beacon")


async def check_two_images_are_told_apart(bench: StorageBench) -> None:
    """Also when they have the same size."""
    one = await bench.ours.inspect("root@vds", volume(bench.qcow2, "qcow2"), ".beacon")
    other = await bench.ours.inspect("root@vds", volume(bench.raw, "raw"), ".beacon")
    assert one.identity != other.identity


async def check_what_cannot_be_used_is_told_and_not_raised(bench: StorageBench) -> None:
    """Inspecting is part of a check that goes on with the next thing."""
    facts = await bench.ours.inspect("root@vds", volume(bench.missing, "raw"), ".beacon")
    assert facts.path == bench.missing
    assert facts.error


async def check_an_image_in_use_is_told(bench: StorageBench) -> None:
    """For as long as it is, and to the other host too; looking at it does no harm."""
    with bench.used(bench.qcow2):
        for storage in (bench.ours, bench.theirs):
            facts = await storage.inspect("root@vds", volume(bench.qcow2, "qcow2"), ".beacon")
            assert (facts.error, facts.locked) == ("", True)
    facts = await bench.ours.inspect("root@vds", volume(bench.qcow2, "qcow2"), ".beacon")
    assert not facts.locked


async def check_a_read_only_volume_is_told(bench: StorageBench) -> None:
    """Both ways of offering an image are seen."""
    for options, writable in (((), True), (("ro",), False)):
        facts = await bench.ours.inspect("root@vds", volume(bench.raw, "raw", options), ".beacon")
        assert facts.writable is writable


async def check_beacons_are_for_each_image(bench: StorageBench) -> None:
    """A place that cannot be written to is passed over, and does not keep the others from theirs."""
    await bench.ours.place_beacons((f"{bench.missing}/nowhere/x.raw", bench.raw), ".beacon", "a secret")
    facts = await bench.theirs.inspect("root@vds", volume(bench.raw, "raw"), ".beacon")
    assert facts.beacon == "a secret"
    await bench.ours.remove_beacons((f"{bench.missing}/nowhere/x.raw", bench.raw), ".beacon")


async def check_an_image_is_made_and_discarded(bench: StorageBench) -> None:
    """In the format that is wanted, and only where nothing is; discarding may be repeated."""
    for image_format in ("raw", "qcow2"):
        new = volume(bench.missing, image_format)
        before = await bench.ours.survey("root@vds", new)
        assert (before.error, before.exists, before.path) == ("", False, bench.missing)
        assert before.free_bytes > 0
        await bench.ours.make_image(new, 1 << 30, "mark")
        facts = await bench.ours.inspect("root@vds", new, ".beacon")
        assert (facts.error, facts.format, facts.virtual_size) == ("", image_format, 1 << 30)
        assert await bench.ours.detect_format(bench.missing) == image_format
        assert facts.allocated_bytes < 1 << 20
        assert (await bench.ours.survey("root@vds", new)).exists
        for is_found in (True, False):
            assert await bench.ours.discard_image(new, "mark") is is_found
            assert not (await bench.ours.survey("root@vds", new)).exists


async def check_what_was_there_is_never_touched(bench: StorageBench) -> None:
    """Neither by making, nor by discarding: with whatever mark."""
    there = volume(bench.raw, "raw")
    with pytest.raises(HostError) as caught:
        await bench.ours.make_image(there, 1 << 20, "mark")
    assert caught.value.code == "image-exists"
    await bench.ours.discard_image(there, "mark")
    facts = await bench.ours.inspect("root@vds", there, ".beacon")
    assert (facts.error, facts.virtual_size) == ("", 1 << 30)


async def check_an_image_that_is_kept_stays(bench: StorageBench) -> None:
    """Whoever made it cannot discard it any more, and another mark never could; both are told."""
    new = volume(bench.missing, "qcow2")
    await bench.ours.make_image(new, 1 << 30, "mark")
    assert not await bench.ours.discard_image(new, "another")
    for is_found in (True, False):
        assert await bench.ours.keep_image(new, "mark") is is_found
    assert not await bench.ours.discard_image(new, "mark")
    assert (await bench.ours.inspect("root@vds", new, ".beacon")).error == ""


async def check_a_place_that_is_not_there_is_told(bench: StorageBench) -> None:
    """Beforehand, and when an image is to be made there all the same."""
    nowhere = volume("/nowhere/at/all.raw", "raw")
    assert "/nowhere/at" in (await bench.ours.survey("root@vds", nowhere)).error
    with pytest.raises(HostError) as caught:
        await bench.ours.make_image(nowhere, 1 << 20, "mark")
    assert caught.value.code == "no-image-made"


async def check_digests_tell_files_apart(bench: StorageBench) -> None:
    """Equal files on two hosts have the same; one that is not there has none."""
    one, same, other = bench.write("a", "kernel 1"), bench.write("b", "kernel 1"), bench.write("c", "kernel 2")
    assert await bench.ours.digest(one) == await bench.theirs.digest(same) != ""
    assert await bench.ours.digest(one) != await bench.ours.digest(other)
    assert await bench.ours.digest(bench.missing) == ""


CHECKS: tuple[Callable[[StorageBench], Awaitable[None]], ...] = tuple(
    check for name, check in list(globals().items()) if name.startswith("check_")
)
