"""What the rest of ldoms asks of the host's storage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ldoms.model.images import Destination, ImageFacts
from ldoms.model.services import Volume


@dataclass(frozen=True, slots=True)
class BackEnd:
    """How a guest's disk is to be opened.

    Attributes:
        path: with symbolic links resolved.
        format: ``raw`` or ``qcow2``.
        is_device: it is a block device.
        direct: its file system can do without the page cache, which hosts that share it must.
    """

    path: Path
    format: str
    is_device: bool
    direct: bool


class Storage(Protocol):
    """Images and block devices of this host."""

    async def detect_format(self, path: str) -> str:
        """``raw`` or ``qcow2``, from the content.

        Raises:
            RequestError: it is not there, or is neither.
        """

    async def open(self, volume: Volume) -> BackEnd:
        """How a guest opens the volume.

        Raises:
            HostError: it is not there, or cannot be read and (unless it is read-only) written.
        """

    async def check(self, volume: Volume) -> None:
        """Make sure that a volume works right now: that it can be opened, and that its first block can be read.

        Raises:
            HostError: it does not.
        """

    async def inspect(self, name: str, volume: Volume, beacon: str) -> ImageFacts:
        """What this host sees of a volume, called ``volume@service`` in `name`; never raises.

        Args:
            name: as it is called in the answer.
            volume: to look at.
            beacon: name of the beacon file to look for beside it.
        """

    async def survey(self, name: str, volume: Volume) -> Destination:
        """What stands where the image of a volume, called ``volume@service`` in `name`, would be made; never raises."""

    # Images that are made for a copy. Each has a mark of its own beside it until it is kept, so that what was made can
    # be told from what was there, also after a crash.

    async def make_image(self, volume: Volume, size_bytes: int, mark: str) -> None:
        """Make an empty image at the path of a volume, and in its format.

        Args:
            volume: where, and in which format.
            size_bytes: that a guest will see.
            mark: that nobody else uses.

        Raises:
            HostError: code ``image-exists``: something is there, which stays as it is; code ``no-image-made``: it
                cannot be made.
        """

    async def keep_image(self, volume: Volume, mark: str) -> bool:
        """Forget that an image was made by us; never raises, and may be repeated.

        Returns:
            Whether it was found: not if this was done before, or if its storage is away.
        """

    async def discard_image(self, volume: Volume, mark: str) -> bool:
        """Remove the image that was made with that mark, and nothing else; never raises, and may be repeated.

        Returns:
            Whether it was found, as with `keep_image`.
        """

    async def place_beacons(self, paths: tuple[str, ...], beacon: str, content: str) -> None:
        """Leave a small file beside each image, by which another host can tell that it sees the same storage.

        A place that cannot be written to is passed over.
        """

    async def remove_beacons(self, paths: tuple[str, ...], beacon: str) -> None:
        """Take the beacons back; never raises."""

    async def digest(self, path: str) -> str:
        """SHA-256 of a file's content in hexadecimal; empty if it cannot be read."""
