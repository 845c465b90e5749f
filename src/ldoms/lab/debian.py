"""What guest images take from the Debian that they are built on: its tools, its archive, its packages."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from ldoms.model.errors import HostError

COMMAND_LIMIT_S = 120.0
DOWNLOAD_LIMIT_S = 300.0

# The date of every file that is written at build time, so that the same input gives the same bytes.
SOURCE_DATE_EPOCH = 1_700_000_000

_LINES_OF_FAILURE = 15
# What apt and mmdebstrap say when it is not they who failed.
_ARCHIVE_FAILURES = ("Failed to fetch", "Unable to locate package", "No packages found")
_ARCHIVE_HINT = "The package archive did not give what was asked for: is it reachable, and 'apt-get update' recent?"

# Mounts and processes of a tool are its own, and end with the program that called it.
_CONFINED = ("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

# Tools that a package of another name has.
_PACKAGES = {
    "apt-get": "apt",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "mke2fs": "e2fsprogs",
    "modprobe": "kmod",
    "qemu-img": "qemu-utils",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "xz": "xz-utils",
}


def codename() -> str:
    """The release of Debian that this host runs, such as ``bookworm``; empty if it is not Debian."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return ""
    return release.get("VERSION_CODENAME", "") if release["ID"] == "debian" else ""


def require(tools: Iterable[str]) -> None:
    """See to it that images can be built here.

    Raises:
        HostError: this is not Debian, or `tools` are missing; their packages are named.
    """
    if not codename():
        raise HostError("guest images are built from Debian packages, and this host is not Debian", code="no-debian")
    missing = {_PACKAGES.get(tool, tool): tool for tool in tools if not shutil.which(tool, path=_path())}
    if missing:
        raise HostError(
            f"{', '.join(missing.values())} not found: install the package {', '.join(missing)}", code="missing-tool"
        )


def run(
    words: Sequence[str],
    *,
    directory: Path | None = None,
    text: bytes = b"",
    limit_s: float = COMMAND_LIMIT_S,
    confined: bool = False,
) -> bytes:
    """Run a tool to its end and return what it printed.

    Args:
        words: the tool and its arguments.
        directory: where it runs.
        text: what it gets to read.
        limit_s: how long it may take.
        confined: it mounts, and starts servers: nothing of that outlives it, or us. Only root can.

    Raises:
        HostError: it failed or took too long; with the last lines it printed.
    """
    environment = os.environ | {
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C.UTF-8",
        "PATH": _path(),
        "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
    }
    with subprocess.Popen(
        [*(_CONFINED if confined else ()), *words],
        cwd=directory,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            output, complaints = process.communicate(text, timeout=limit_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise HostError(f"{words[0]} took more than {limit_s:.0f} s", code="image-build-failed") from None
            raise
    if process.returncode != 0:
        raise _failure(words[0], process.returncode, (output + complaints).decode(errors="replace"))
    return output


def _failure(tool: str, status: int, printed: str) -> HostError:
    lines = [f"{tool} failed with exit status {status}:", *printed.splitlines()[-_LINES_OF_FAILURE:]]
    if any(sign in printed for sign in _ARCHIVE_FAILURES):
        return HostError("\n".join([*lines, _ARCHIVE_HINT]), code="no-archive")
    return HostError("\n".join(lines), code="image-build-failed")


def archive_lines(targets: str, codename: str) -> list[str]:
    """Lines of a sources.list for the main suites of a release, out of what apt says about its own sources.

    Args:
        targets: one line for each index that apt reads: URI, suite, component, keyring. The keyring is a path, or
            anything else where apt knows of none.
        codename: of the release.
    """
    suites = (codename, f"{codename}-updates", f"{codename}-security")
    lines = []
    for target in targets.splitlines():
        uri, suite, component, keyring = target.split(maxsplit=3)
        if suite in suites and component == "main":
            options = f"[signed-by={keyring}] " if keyring.startswith("/") else ""
            lines.append(f"deb {options}{uri} {suite} main")
    return sorted(set(lines))


def archive() -> list[str]:
    """Lines of a sources.list that say where this host gets its own Debian packages from.

    Raises:
        HostError: apt has no source for the release.
    """
    what = ["--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(SIGNED_BY)", "Created-By: Packages"]
    lines = archive_lines(run(["apt-get", "indextargets", *what]).decode(), codename())
    if not lines:
        raise HostError(f"apt has no source for {codename()} main: add one to /etc/apt", code="no-archive")
    return lines


def dependency(package: str, prefix: str) -> str:
    """The package that `package` depends on and whose name begins with `prefix`.

    Raises:
        HostError: there is none, or apt does not know `package`.
    """
    for line in run(["apt-cache", "depends", package]).decode().splitlines():
        relation, _, name = line.strip().partition(": ")
        if relation == "Depends" and name.startswith(prefix):
            return name
    raise HostError(f"{package} depends on no package named {prefix}*", code="image-build-failed")


def download(package: str, directory: Path) -> Path:
    """Fetch a package into `directory`, without installing it.

    Raises:
        HostError: the archive has it not, or cannot be reached.
    """
    # As root apt would fetch as a user of its own, who may not write here.
    run(
        ["apt-get", "-o", "APT::Sandbox::User=root", "download", package], directory=directory, limit_s=DOWNLOAD_LIMIT_S
    )
    return next(directory.glob(f"{package}_*.deb"))


def version(package: Path) -> str:
    """The version of a package file."""
    return run(["dpkg-deb", "--field", str(package), "Version"]).decode().strip()


def installed(root: Path) -> dict[str, str]:
    """Names and versions of the packages that are installed below `root`."""
    words = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "--show", "--showformat=${Package} ${Version}\n"]
    return dict(line.split() for line in run(words).decode().splitlines())


def _path() -> str:
    # Users other than root do not have the directories of depmod and mke2fs in theirs.
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
