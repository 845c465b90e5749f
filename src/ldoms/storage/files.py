"""Images in files and on block devices."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import hashlib
import json
import os
import stat
import struct
from contextlib import suppress
from pathlib import Path

from ldoms.model.errors import HostError, LdomsError, RequestError
from ldoms.model.images import Destination, ImageFacts
from ldoms.model.services import Volume
from ldoms.storage.storage import BackEnd

FORMATS = ("raw", "qcow2")
QEMU_IMG_S = 20.0
CHECK_S = 5.0
"""A back end that takes longer for one block does not work."""

# Byte that QEMU locks while it may write: RAW_LOCK_PERM_BASE + bit of BLK_PERM_WRITE (QEMU, block/file-posix.c).
_WRITE_LOCK_BYTE = 101
_FLOCK = "hhqqi4x"  # struct flock of x86-64: type, whence, start, length, process
_LOOP_MAJOR = 7
_LOOP_GET_STATUS64, _LOOP_INFO64_BYTES = 0x4C05, 232  # linux/loop.h
_LOOP_INFO64 = "QQQ"  # its beginning: file system of the file, inode, and the device if it is none


class FileStorage:
    """Images as this host's kernel shows them. See `ldoms.storage.storage.Storage`."""

    async def detect_format(self, path: str) -> str:
        """``raw`` or ``qcow2``, from the content."""
        facts = await _image_info(path, None)
        if facts["format"] not in FORMATS:
            raise RequestError(
                f"{path} has the format {facts['format']}: convert it to raw or qcow2 with 'qemu-img convert'",
                code="bad-image",
            )
        return str(facts["format"])

    async def open(self, volume: Volume) -> BackEnd:
        """How a guest opens the volume."""
        path = Path(os.path.realpath(volume.backend))
        mode = os.O_RDONLY if volume.is_read_only else os.O_RDWR
        try:
            os.close(os.open(path, mode))
        except OSError as error:
            raise _unusable(volume, error.strerror or "unknown error") from error
        return BackEnd(path, volume.format, stat.S_ISBLK(path.stat().st_mode), _can_do_direct(path, mode))

    async def check(self, volume: Volume) -> None:
        """Read a block, around the page cache where that is possible."""
        back_end = await self.open(volume)
        words = ["dd", f"if={back_end.path}", "of=/dev/null", "bs=4096", "count=1", "status=none"]
        words += ["iflag=direct"] if back_end.direct else []
        process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
        try:
            async with asyncio.timeout(CHECK_S):
                _, errors = await process.communicate()
        except TimeoutError as error:
            process.kill()
            raise _unusable(volume, f"it does not answer within {CHECK_S:g} s") from error
        if process.returncode != 0:
            raise _unusable(volume, errors.decode(errors="replace").strip().rpartition(": ")[2])

    async def inspect(self, name: str, volume: Volume, beacon: str) -> ImageFacts:
        """What this host sees of a volume."""
        try:
            back_end = await self.open(volume)
            info = await _image_info(str(back_end.path), volume.format or None)
        except LdomsError as error:
            return ImageFacts(name, volume.backend, error=error.message)
        content = ""
        with suppress(OSError):
            content = (back_end.path.parent / beacon).read_text()
        return ImageFacts(
            volume=name,
            path=volume.backend,
            format=str(info["format"]),
            virtual_size=int(str(info["virtual-size"])),
            identity=_identity(back_end.path),
            beacon=content,
            locked=_is_locked(back_end.path),
            writable=not volume.is_read_only,
            allocated_bytes=_allocated(info),
            behind=_behind(back_end.path),
        )

    async def survey(self, name: str, volume: Volume) -> Destination:
        """What stands where the image of a volume would be made."""
        path = Path(volume.backend)
        try:
            if os.path.lexists(path):
                real = Path(os.path.realpath(path))
                size = _device_size(real) if real.is_block_device() else 0
                locked = real.exists() and _is_locked(real)
                return Destination(name, volume.backend, exists=True, device_bytes=size, locked=locked)
            status, room = path.parent.stat(), os.statvfs(path.parent)
            writable = os.access(path.parent, os.W_OK | os.X_OK)
        except OSError as error:
            reason = f"{error.filename or path}: {error.strerror}"
            return Destination(name, volume.backend, error=reason)
        reason = "" if writable else f"{path.parent}: it cannot be written to"
        free = room.f_bavail * room.f_frsize
        return Destination(name, volume.backend, reason, file_system=str(status.st_dev), free_bytes=free)

    async def make_image(self, volume: Volume, size_bytes: int, mark: str) -> None:
        """Make an empty image at the path of a volume."""
        path, marked = Path(volume.backend), _marked(volume, mark)
        try:
            os.close(os.open(marked, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            await _create(marked, volume.format, size_bytes)
            # A second name, and not another file: the first one shows what is ours until it is kept.
            os.link(marked, path)
            _sync(path.parent)
        except FileExistsError as error:
            await self.discard_image(volume, mark)
            raise HostError(f"{path} is there already: it is not overwritten", code="image-exists") from error
        except OSError as error:
            await self.discard_image(volume, mark)
            raise HostError(f"the image {path} cannot be made: {error.strerror}", code="no-image-made") from error
        except BaseException:
            await self.discard_image(volume, mark)
            raise

    async def keep_image(self, volume: Volume, mark: str) -> bool:
        """Forget that an image was made by us."""
        try:
            _marked(volume, mark).unlink()
        except OSError:
            return False
        return True

    async def discard_image(self, volume: Volume, mark: str) -> bool:
        """Remove the image that was made with that mark."""
        path, marked = Path(volume.backend), _marked(volume, mark)
        with suppress(OSError):
            if marked.samefile(path) and not path.is_symlink():
                path.unlink()
        return await self.keep_image(volume, mark)

    async def place_beacons(self, paths: tuple[str, ...], beacon: str, content: str) -> None:
        """Leave a small file beside each image."""
        for path in paths:
            if not Path(os.path.realpath(path)).is_block_device():
                with suppress(OSError):
                    Path(os.path.realpath(path)).parent.joinpath(beacon).write_text(content)

    async def remove_beacons(self, paths: tuple[str, ...], beacon: str) -> None:
        """Take the beacons back."""
        for path in paths:
            with suppress(OSError):
                Path(os.path.realpath(path)).parent.joinpath(beacon).unlink()

    async def digest(self, path: str) -> str:
        """SHA-256 of a file's content."""
        return await asyncio.to_thread(_digest, Path(path))


def _unusable(volume: Volume, reason: str) -> HostError:
    text = f"the back end {volume.backend} of volume {volume.name} cannot be used: {reason}"
    return HostError(text, code="no-image")


async def _image_info(path: str, image_format: str | None) -> dict[str, object]:
    # --force-share: the image may be in use, and looking at its head does no harm.
    words = ["qemu-img", "info", "--output=json", "--force-share"]
    words += ["-f", image_format] if image_format else []
    if not Path(path).exists():
        raise RequestError(f"there is no file or device {path} on this host", code="no-image")
    try:
        async with asyncio.timeout(QEMU_IMG_S):
            process = await asyncio.create_subprocess_exec(
                *words, path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            output, errors = await process.communicate()
    except TimeoutError as error:
        process.kill()
        raise HostError(
            f"{path} does not answer within {QEMU_IMG_S:g} s: is its storage there?", code="no-image"
        ) from error
    if process.returncode != 0:
        reason = errors.decode(errors="replace").strip().removeprefix("qemu-img: ")
        raise RequestError(f"{path} cannot be used as a disk: {reason}", code="bad-image")
    info: dict[str, object] = json.loads(output)
    return info


def _allocated(info: dict[str, object]) -> int:
    """What a copy without empty parts takes at most: of an image that stands on another one, only its size is known."""
    if "backing-filename" in info:
        return int(str(info["virtual-size"]))
    return int(str(info.get("actual-size", 0)))


def _marked(volume: Volume, mark: str) -> Path:
    path = Path(volume.backend)
    return path.parent / f".ldoms-{mark}-{path.name}"


async def _create(path: Path, image_format: str, size_bytes: int) -> None:
    words = ["qemu-img", "create", "-q", "-f", image_format, str(path), str(size_bytes)]
    process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(QEMU_IMG_S):
            _, errors = await process.communicate()
    except BaseException as error:
        process.kill()
        if isinstance(error, TimeoutError):
            raise HostError(f"the image {path} cannot be made in time", code="no-image-made") from error
        raise
    if process.returncode != 0:
        reason = errors.decode(errors="replace").strip().removeprefix("qemu-img: ")
        raise HostError(f"the image {path} cannot be made: {reason}", code="no-image-made")


def _sync(directory: Path) -> None:
    number = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _device_size(path: Path) -> int:
    number = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(number, 0, os.SEEK_END)
    finally:
        os.close(number)


def _can_do_direct(path: Path, mode: int) -> bool:
    try:
        os.close(os.open(path, mode | os.O_DIRECT))
    except OSError:
        return False
    return True


def _identity(path: Path) -> str:
    status = path.stat()
    if not stat.S_ISBLK(status.st_mode):
        # Inode numbers are the server's on every network file system that keeps files consistent.
        return f"inode {status.st_ino}"
    device = Path(f"/sys/dev/block/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
    for attribute in ("wwid", "device/wwid", "serial", "device/serial", "dm/uuid", "md/uuid"):
        with suppress(OSError):
            value = (device / attribute).read_text().strip()
            if value:
                return f"device {value}"
    return ""


def _behind(path: Path) -> str:
    """What a loop device shows, if that is a file."""
    status = path.stat()
    if not stat.S_ISBLK(status.st_mode) or os.major(status.st_rdev) != _LOOP_MAJOR:
        return ""
    try:
        number = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        answer = fcntl.ioctl(number, _LOOP_GET_STATUS64, bytes(_LOOP_INFO64_BYTES))
    except OSError:
        return ""  # nothing is behind it
    finally:
        os.close(number)
    _, inode, device = struct.unpack_from(_LOOP_INFO64, answer)
    return "" if device else f"inode {inode}"


def _is_locked(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _WRITE_LOCK_BYTE, 1, 0)
        answer = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, question))
        return bool(answer[0] != fcntl.F_UNLCK)
    except OSError:
        return False  # the file system has no locks; the check says so when a guest is expected to hold one
    finally:
        os.close(file)


def _digest(path: Path) -> str:
    try:
        known = path.stat()
        return _digest_as_of(path, known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns, known.st_ctime_ns)
    except OSError:
        return ""


@functools.lru_cache(maxsize=64)
def _digest_as_of(path: Path, *state: int) -> str:
    """Kept for as long as `state` stays: a kernel and an initial RAM disk take 20 ms and more in every migration."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
