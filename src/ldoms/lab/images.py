"""Guest images: built once for each recipe, kept in a cache that all checkouts on a machine share.

::

    images/
    ├── .lock                       held while images are built or removed
    ├── .building-XXXXXXXX/         a build; what a killed one leaves is removed by the next
    ├── tiny-0123456789ab.1/        name, hash of the recipe, number of the build
    └── postgres-ba9876543210.2/
        ├── image.json              the manifest
        └── vmlinuz, initrd.img, disk.qcow2

An image never changes: disks of domains are overlays on its disk. A newer build of the same recipe is a directory
of its own, and the older one stays until it is cleaned away.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ldoms.lab.recipes import DISK, INITRD, KERNEL, RECIPES, Progress, Recipe
from ldoms.model.errors import HostError, NotFound

IMAGES = tuple(RECIPES)

_MANIFEST = "image.json"
_LOCK = ".lock"
_BUILDING = ".building-"

# Longer than any build takes.
_LOCK_LIMIT_S = 1800.0
_LOCK_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Image:
    """A complete image in the cache.

    Attributes:
        name: ``tiny`` or ``postgres``.
        directory: holds its files.
        kernel: for QEMU's ``-kernel``.
        initrd: for QEMU's ``-initrd``.
        disk: qcow2 file to base the disks of domains on; None if it has no disk.
        boot_args: kernel arguments that every boot of it needs.
        packages: versions of the Debian packages that went in, by name.
    """

    name: str
    directory: Path
    kernel: Path
    initrd: Path
    disk: Path | None
    boot_args: str
    packages: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """What it takes on this host's disk."""
        return _size_bytes(self.directory)

    def arguments(self, parameters: Mapping[str, object]) -> str:
        """The kernel command line of a boot with `parameters`, such as ``{"pulse.fill": 16}``.

        Raises:
            ValueError: a value is empty or has white space in it, which a kernel command line cannot say.
        """
        for name, value in parameters.items():
            if len(str(value).split()) != 1:
                raise ValueError(f"{name}={value!r} cannot be a kernel argument")
        return " ".join([self.boot_args, *(f"{name}={value}" for name, value in parameters.items())])


def cache_directory() -> Path:
    """Where images are kept: below ``$LDOMS_CACHE``, ``$XDG_CACHE_HOME/ldoms`` or ``~/.cache/ldoms``."""
    if own := os.environ.get("LDOMS_CACHE"):
        return Path(own) / "images"
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "ldoms" / "images"


def find(name: str) -> Image | None:
    """The cached image that fits today's recipe, the newest if there are several; nothing is built or fetched.

    Raises:
        NotFound: there is no image of that name.
    """
    numbered = sorted((_number(path), path) for path in cache_directory().glob(f"{name}-{_recipe(name).key()}.*"))
    found = (_load(path) for _, path in reversed(numbered))
    return next((image for image in found if image), None)


def build(name: str, progress: Progress = lambda line: None, *, fresh: bool = False) -> Image:
    """The image `name`, built if the cache has none that fits.

    Args:
        name: one of IMAGES.
        progress: is told in short lines what is being done.
        fresh: build even if one fits, as for newer packages.

    Raises:
        NotFound: there is no image of that name.
        HostError: it cannot be built here, or a tool failed; the cache is as it was.
    """
    recipe = _recipe(name)
    if not fresh and (image := find(name)):
        return image
    recipe.check_host()
    with _cache_lock(progress) as cache:
        # Somebody else may have built it while we waited.
        if not fresh and (image := find(name)):
            return image
        # What cannot be removed yet, because a tool is still dying in it, is left for the next build.
        with tempfile.TemporaryDirectory(prefix=_BUILDING, dir=cache, ignore_cleanup_errors=True) as work:
            return _build(recipe, cache, Path(work), lambda line: progress(f"{name}: {line}"))


def cached() -> tuple[Image, ...]:
    """All complete images in the cache, those of other recipes and releases included."""
    images = (_load(path) for path in sorted(cache_directory().glob("*-*.*")))
    return tuple(image for image in images if image)


def clean(names: Collection[str] = ()) -> int:
    """Remove the images of these names from the cache, all of them if none is named, and what is left of builds.

    The disks of domains that are based on them are of no use afterwards.

    Returns:
        The bytes that were freed.

    Raises:
        NotFound: there is no image of one of these names.
        HostError: the cache cannot be written to.
    """
    wanted = [_recipe(name).name for name in names] or IMAGES
    freed = 0
    with _cache_lock() as cache:
        for name in wanted:
            for path in cache.glob(f"{name}-*.*"):
                freed += _size_bytes(path)
                shutil.rmtree(path)
    return freed


def _recipe(name: str) -> Recipe:
    try:
        return RECIPES[name]
    except KeyError:
        raise NotFound(f"there is no guest image '{name}', only {' and '.join(IMAGES)}", code="no-image") from None


def _build(recipe: Recipe, cache: Path, work: Path, progress: Progress) -> Image:
    image, scratch = work / "image", work / "scratch"
    image.mkdir()
    scratch.mkdir()
    packages = recipe.cook(image, scratch, progress)
    _write_manifest(image, recipe, packages)
    stem = f"{recipe.name}-{recipe.key()}"
    number = 1 + max((_number(path) for path in cache.glob(f"{stem}.*")), default=0)
    final = image.rename(cache / f"{stem}.{number}")
    done = _load(final)
    assert done
    return done


def _write_manifest(directory: Path, recipe: Recipe, packages: Mapping[str, str]) -> None:
    """Make what was built an image: the manifest is its last file, and all of them are on the disk afterwards."""
    manifest = {"name": recipe.name, "boot_args": recipe.boot_args, "packages": dict(sorted(packages.items()))}
    (directory / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    directory.chmod(0o755)
    for path in directory.iterdir():
        path.chmod(0o644)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _load(directory: Path) -> Image | None:
    """The image in `directory`, None if it is not complete."""
    kernel, initrd, disk = directory / KERNEL, directory / INITRD, directory / DISK
    try:
        manifest = json.loads((directory / _MANIFEST).read_text())
        return Image(
            name=manifest["name"],
            directory=directory,
            kernel=kernel,
            initrd=initrd,
            disk=disk if disk.exists() else None,
            boot_args=manifest["boot_args"],
            packages=manifest["packages"],
        )
    except (OSError, ValueError, KeyError):
        return None


def _number(directory: Path) -> int:
    return int(directory.suffix[1:])


def _size_bytes(directory: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in directory.iterdir())


@contextmanager
def _cache_lock(progress: Progress = lambda line: None) -> Iterator[Path]:
    """Hold the cache alone, rid of what killed builds left; what goes wrong with its files is a HostError."""
    cache = cache_directory()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / _LOCK).open("w") as lock:
            _wait_for(lock.fileno(), progress)
            for leftover in cache.glob(f"{_BUILDING}*"):
                shutil.rmtree(leftover)
            yield cache
    except OSError as error:
        raise HostError(f"the image cache {cache} cannot be used: {error}", code="no-image-cache") from error


def _wait_for(lock: int, progress: Progress) -> None:
    end = time.monotonic() + _LOCK_LIMIT_S
    told = False
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise HostError(
                    "another process has been building images for too long", code="image-cache-busy"
                ) from None
        if not told:
            progress("waiting for another build to end")
            told = True
        time.sleep(_LOCK_POLL_S)
