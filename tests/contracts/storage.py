"""The contract of `ldoms.storage.storage`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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


async def check_a_file_that_is_not_there_has_no_digest(bench: StorageBench) -> None:
    """That is how a missing boot file is noticed."""
    assert await bench.ours.digest(bench.missing) == ""


CHECKS: tuple[Callable[[StorageBench], Awaitable[None]], ...] = (
    check_formats_are_found,
    check_a_volume_is_opened,
    check_both_hosts_see_the_same_image,
    check_two_images_are_told_apart,
    check_what_cannot_be_used_is_told_and_not_raised,
    check_a_file_that_is_not_there_has_no_digest,
)
