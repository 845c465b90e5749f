"""The image cache: what makes an image the same, what is kept, what is cleaned away. Nothing is really built."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from ldoms.lab import debian, images, initramfs, recipes
from ldoms.lab.recipes import DISK, INITRD, KERNEL, RECIPES, Progress
from ldoms.model.errors import HostError, NotFound


class Kitchen:
    """Stands in for the real builds: writes small files, counts, and may fail."""

    def __init__(self) -> None:
        self.cooked = 0
        self.error: Exception | None = None

    def cook(self, image: Path, work: Path, progress: Progress) -> Mapping[str, str]:
        self.cooked += 1
        progress("cooking")
        (work / "scrap").write_text("not part of the image")
        for name in (KERNEL, INITRD, DISK):
            (image / name).write_bytes(b"x" * 10_000)
        if self.error is not None:
            raise self.error
        return {"busybox-static": f"1.{self.cooked}"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("LDOMS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/images"


@pytest.fixture
def kitchen(monkeypatch: pytest.MonkeyPatch) -> Kitchen:
    """Both recipes without their real work, on a host that can build them."""
    kitchen = Kitchen()
    monkeypatch.setattr(debian, "codename", lambda: "bookworm")
    for recipe in tuple(RECIPES.values()):
        monkeypatch.setitem(RECIPES, recipe.name, replace(recipe, cook=kitchen.cook, tools=(), root=False))
    return kitchen


def test_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Our own variable comes first, then the one of all caches, then the home directory."""
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert images.cache_directory() == tmp_path / "cache/images"
    monkeypatch.delenv("LDOMS_CACHE")
    assert images.cache_directory() == Path("/caches/ldoms/images")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert images.cache_directory() == Path("/home/someone/.cache/ldoms/images")


def test_built_image_is_found_again(kitchen: Kitchen) -> None:
    """What `build` returns and what `find` reads from the manifest are the same, and it is built once."""
    told: list[str] = []
    built = images.build("postgres", told.append)
    assert built == images.find("postgres") == images.build("postgres")
    assert images.cached() == (built,)
    assert kitchen.cooked == 1
    assert told == ["postgres: cooking"]
    assert built.packages == {"busybox-static": "1.1"}
    assert built.kernel.read_bytes() == built.initrd.read_bytes() == b"x" * 10_000
    assert built.disk == built.directory / DISK
    assert {path.name for path in built.directory.iterdir()} == {KERNEL, INITRD, DISK, "image.json"}


def test_fresh_build_leaves_the_older_one(kitchen: Kitchen) -> None:
    """Disks of domains may be based on the older image, so it stays; the newer one is what is found."""
    for _ in range(10):
        newest = images.build("tiny", fresh=True)
    assert newest == images.find("tiny")
    assert newest.directory.suffix == ".10"
    assert len(images.cached()) == kitchen.cooked == 10


def test_nothing_is_found_for_another_recipe(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the host's release has changed, the image is another one; the one before stays cached."""
    before = images.build("tiny")
    monkeypatch.setattr(debian, "codename", lambda: "trixie")
    assert images.find("tiny") is None
    assert images.build("tiny").directory != before.directory
    assert before in images.cached()


def test_key_depends_on_the_content_of_its_files_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two checkouts with the same files share an image; another content of one file is another image."""
    tiny, postgres = RECIPES["tiny"], RECIPES["postgres"]
    keys = tiny.key(), postgres.key()
    copy = tmp_path / "elsewhere"
    shutil.copytree(recipes.guest_directory(), copy)
    monkeypatch.setattr(recipes, "guest_directory", lambda: copy)
    assert (tiny.key(), postgres.key()) == keys
    with (copy / "pulse.c").open("a") as file:
        file.write("/* changed */")
    assert tiny.key() != keys[0]
    assert postgres.key() == keys[1]


def test_recipes_name_the_files_that_exist() -> None:
    """Every file of ``guest/`` belongs to a recipe, and every recipe's files are there."""
    named = {name for recipe in RECIPES.values() for name in recipe.files}
    assert named == {path.name for path in recipes.guest_directory().iterdir()}


def test_failed_build_leaves_nothing(kitchen: Kitchen, cache: Path) -> None:
    """The cache is as before, and the error is the tool's."""
    kitchen.error = HostError("gcc failed")
    with pytest.raises(HostError, match="gcc failed"):
        images.build("tiny")
    assert images.find("tiny") is None
    assert {path.name for path in cache.iterdir()} == {".lock"}


def test_leftovers_of_killed_builds_are_removed(kitchen: Kitchen, cache: Path) -> None:
    """The next build removes them, and neither they nor half an image are ever found."""
    (cache / ".building-dead/image").mkdir(parents=True)
    (cache / ".building-dead/image/vmlinuz").write_text("half")
    (cache / f"tiny-{RECIPES['tiny'].key()}.7").mkdir()
    assert images.find("tiny") is None
    assert images.cached() == ()
    assert images.build("tiny").directory.suffix == ".8"
    assert not list(cache.glob(".building-*"))


def test_second_build_waits_and_shares_the_first(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two builds at once, one works and the other gets the same image."""
    monkeypatch.setattr(images, "_LOCK_POLL_S", 0.001)
    cooking, waiting = threading.Event(), threading.Event()
    got: list[images.Image] = []

    def until_the_other_waits(line: str) -> None:
        cooking.set()
        assert waiting.wait(10)

    first = threading.Thread(target=lambda: got.append(images.build("tiny", until_the_other_waits)))
    first.start()
    assert cooking.wait(10)
    second = images.build("tiny", lambda line: waiting.set())
    first.join(10)
    assert got == [second]
    assert kitchen.cooked == 1


def test_clean_removes_what_is_named(kitchen: Kitchen, cache: Path) -> None:
    """It says how much was freed, and takes leftovers along."""
    tiny, postgres = images.build("tiny"), images.build("postgres")
    (cache / ".building-dead").mkdir()
    size = tiny.size_bytes
    assert size >= 30_000
    assert images.clean(["tiny"]) == size
    assert images.cached() == (postgres,)
    assert not (cache / ".building-dead").exists()
    images.clean()
    assert images.cached() == ()
    assert images.clean() == 0


def test_unknown_names_are_refused(cache: Path) -> None:
    """Whatever is asked about it; nothing is removed."""
    for call in (images.find, images.build, lambda name: images.clean([name])):
        with pytest.raises(NotFound, match="no guest image 'windows', only tiny and postgres"):
            call("windows")
    assert not cache.exists()


def test_kernel_arguments_of_a_boot(kitchen: Kitchen) -> None:
    """What the image always needs comes first; a value that would become two words is refused."""
    image = images.build("postgres")
    line = image.arguments({"ldoms.ip": "10.0.0.7/24", "ldoms.hostname": "ldg1"})
    assert line == f"{image.boot_args} ldoms.ip=10.0.0.7/24 ldoms.hostname=ldg1"
    assert "root=/dev/vda" in image.boot_args.split()
    for value in ("two words", ""):
        with pytest.raises(ValueError, match=r"ldoms\.hostname"):
            image.arguments({"ldoms.hostname": value})


def test_only_root_builds_the_disk(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes before anything is done, and says who can."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setitem(RECIPES, "postgres", replace(RECIPES["postgres"], root=True))
    with pytest.raises(HostError, match="only be built by root"):
        images.build("postgres")
    assert kitchen.cooked == 0


def test_missing_tools_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, so that one installation is enough."""
    monkeypatch.setattr(debian, "codename", lambda: "bookworm")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("shutil.which", lambda tool, path: None)
    with pytest.raises(HostError, match="depmod, gcc not found: install the package kmod, gcc"):
        debian.require(["depmod", "gcc"])


def test_other_distributions_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """There `find` still works, but nothing can be built."""
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "fedora", "VERSION_CODENAME": ""})
    assert images.find("tiny") is None
    with pytest.raises(HostError, match="not Debian"):
        images.build("tiny")


def test_archive_lines_are_the_main_suites() -> None:
    """Backports, other archives and other components stay out; a keyring is taken over where apt knows one."""
    targets = """\
http://mirror.test/debian/ bookworm main $(SIGNED_BY)
http://mirror.test/debian/ bookworm contrib $(SIGNED_BY)
http://mirror.test/debian/ bookworm main $(SIGNED_BY)
http://mirror.test/debian/ bookworm-updates main /usr/share/keyrings/archive.gpg
http://mirror.test/security/ bookworm-security main $(SIGNED_BY)
http://mirror.test/debian/ bookworm-backports main $(SIGNED_BY)
http://mirror.test/other/ nodistro main $(SIGNED_BY)
"""
    assert debian.archive_lines(targets, "bookworm") == [
        "deb [signed-by=/usr/share/keyrings/archive.gpg] http://mirror.test/debian/ bookworm-updates main",
        "deb http://mirror.test/debian/ bookworm main",
        "deb http://mirror.test/security/ bookworm-security main",
    ]


def test_bootstrap_takes_paths_with_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hooks are shell commands; the archive comes last."""
    monkeypatch.setattr(debian, "codename", lambda: "bookworm")
    archive = ["deb http://mirror.test/ bookworm main"]
    words = recipes.bootstrap_command(Path("/b/root"), Path("/my guest"), archive, ("postgresql", "chrony"))
    assert "--include=postgresql,chrony" in words
    assert "--customize-hook=sh '/my guest/postgres-setup' after \"$1\"" in words
    assert words[-3:] == ["bookworm", "/b/root", "deb http://mirror.test/ bookworm main"]


def test_modules_are_loaded_once_and_in_order() -> None:
    """Modules that the kernel has built in need no file; options after the file name are not part of it."""
    dependencies = """\
builtin virtio
insmod /k/virtio_ring.ko.xz
insmod /k/virtio_pci.ko.xz force_legacy=1
insmod /k/virtio_ring.ko.xz
insmod /k/virtio_blk.ko
"""
    names = [path.name for path in initramfs.module_files(dependencies)]
    assert names == ["virtio_ring.ko.xz", "virtio_pci.ko.xz", "virtio_blk.ko"]


def test_failing_tool_is_quoted() -> None:
    """The error has what the tool printed last, and its exit status."""
    with pytest.raises(HostError, match=r"(?s)^sh failed with exit status 3:\nline 6\n.*line 20$"):
        debian.run(["sh", "-c", "for i in $(seq 20); do echo line $i; done; exit 3"])


def test_archive_that_fails_is_named() -> None:
    """What apt says of an archive is followed by what to look at."""
    with pytest.raises(HostError, match=r"Failed to fetch a package\nThe package archive.*apt-get update") as caught:
        debian.run(["sh", "-c", "echo E: Failed to fetch a package >&2; exit 100"])
    assert caught.value.code == "no-archive"


def test_slow_tool_is_ended() -> None:
    """With all that it has started."""
    with pytest.raises(HostError, match="sh took more than 0 s"):
        debian.run(["sh", "-c", "sleep 60 & sleep 60"], limit_s=0.05)


def test_tool_gets_its_input() -> None:
    """And what it printed comes back, errors not among it."""
    assert debian.run(["sh", "-c", "cat; echo noise >&2"], text=b"abc") == b"abc"
