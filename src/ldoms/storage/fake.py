"""Storage that is only remembered, for unit tests. Hosts that share a `FakeDisks` see the same images."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from ldoms.model.errors import HostError, RequestError
from ldoms.model.images import Destination, ImageFacts
from ldoms.model.services import Volume
from ldoms.storage.storage import BackEnd


@dataclass
class FakeDisks:
    """What several hosts share.

    Attributes:
        images: format of each image, by its path.
        files: content of other files, by path; beacons among them.
        locked: paths that a guest has open.
        broken: paths that can be opened, and not read.
        marks: of images that were made and not kept yet, by path.
        sizes: of block devices, by path.
        free_bytes: room for images.
        is_full: no image can be made, whatever was said of the room.
        is_away: images that were made are not found.
    """

    images: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    locked: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    marks: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    free_bytes: int = 1 << 40
    is_full: bool = False
    is_away: bool = False


class FakeStorage:
    """See `ldoms.storage.storage.Storage`."""

    def __init__(self, disks: FakeDisks | None = None) -> None:
        self.disks = disks or FakeDisks()

    async def detect_format(self, path: str) -> str:
        """What was said of it."""
        if path not in self.disks.images:
            raise RequestError(f"there is no file or device {path} on this host", code="no-image")
        return self.disks.images[path]

    async def open(self, volume: Volume) -> BackEnd:
        """How a guest opens the volume."""
        if volume.backend not in self.disks.images:
            raise HostError(f"the back end {volume.backend} of volume {volume.name} cannot be used", code="no-image")
        return BackEnd(Path(volume.backend), self.disks.images[volume.backend], is_device=False, direct=True)

    async def check(self, volume: Volume) -> None:
        """It works if it is there, and nobody has broken it."""
        await self.open(volume)
        if volume.backend in self.disks.broken:
            raise HostError(f"the back end {volume.backend} of volume {volume.name} cannot be used", code="no-image")

    async def inspect(self, name: str, volume: Volume, beacon: str) -> ImageFacts:
        """What this host sees of a volume."""
        if volume.backend not in self.disks.images:
            return ImageFacts(name, volume.backend, error=f"there is no file or device {volume.backend}")
        return ImageFacts(
            volume=name,
            path=volume.backend,
            format=self.disks.images[volume.backend],
            virtual_size=1 << 30,
            identity=f"{id(self.disks)} {volume.backend}",
            beacon=self.disks.files.get(str(Path(volume.backend).parent / beacon), ""),
            locked=volume.backend in self.disks.locked,
            writable=not volume.is_read_only,
        )

    async def survey(self, name: str, volume: Volume) -> Destination:
        """What is there."""
        path = volume.backend
        if path in self.disks.images:
            size, locked = self.disks.sizes.get(path, 0), path in self.disks.locked
            return Destination(name, path, exists=True, device_bytes=size, locked=locked)
        if Path(path).parts[:2] == ("/", "nowhere"):
            return Destination(name, path, f"{Path(path).parent}: there is no such directory")
        return Destination(name, path, file_system="1", free_bytes=self.disks.free_bytes)

    async def make_image(self, volume: Volume, size_bytes: int, mark: str) -> None:
        """Remember it, with its mark."""
        await asyncio.sleep(0)
        if volume.backend in self.disks.images:
            raise HostError(f"{volume.backend} is there already: it is not overwritten", code="image-exists")
        if self.disks.is_full or Path(volume.backend).parts[:2] == ("/", "nowhere"):
            raise HostError(f"the image {volume.backend} cannot be made: no room", code="no-image-made")
        self.disks.images[volume.backend] = volume.format
        self.disks.marks[volume.backend] = mark

    async def keep_image(self, volume: Volume, mark: str) -> bool:
        """Forget the mark."""
        if self.disks.is_away or self.disks.marks.get(volume.backend) != mark:
            return False
        del self.disks.marks[volume.backend]
        return True

    async def discard_image(self, volume: Volume, mark: str) -> bool:
        """Forget the image, if it has that mark."""
        if not await self.keep_image(volume, mark):
            return False
        del self.disks.images[volume.backend]
        return True

    async def place_beacons(self, paths: tuple[str, ...], beacon: str, content: str) -> None:
        """Leave a small file beside each image."""
        for path in paths:
            self.disks.files[str(Path(path).parent / beacon)] = content

    async def remove_beacons(self, paths: tuple[str, ...], beacon: str) -> None:
        """Take the beacons back."""
        for path in paths:
            self.disks.files.pop(str(Path(path).parent / beacon), None)

    async def digest(self, path: str) -> str:
        """The content stands for its own digest."""
        return self.disks.files.get(path, "")
