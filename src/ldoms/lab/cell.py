"""Labs without root: the whole lab lives in a user namespace, a cell, and every command goes into it first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ldoms.lab.spaces import Space, make_cell
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import HostError, NotFound


def run_in_cell(name: str, *, make: bool) -> int:
    """Run this very command again, as root of the cell of lab `name`; a cell without a lab is ended.

    Returns:
        The exit status of the command.

    Raises:
        NotFound: there is no such cell, and `make` does not say that one should be made.
        HostError: this machine does not allow labs without root.
    """
    directory = _directory()
    cell = _load(directory, name)
    if cell is None:
        if not make:
            raise NotFound(f"lab {name} is not up: 'ldoms-lab up' makes it")
        cell = _make(directory, name)
    # Ctrl-C is for the command inside, which hears it as well; not ignored, as that would be inherited.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        done = subprocess.run(_command(cell, sys.argv[1:]), env=_environment(directory), check=False)
        return done.returncode if done.returncode >= 0 else 128 - done.returncode
    finally:
        if not (directory / name).exists():
            _end(cell, directory, name)


def ask_all_cells(*words: str) -> list[str]:
    """What a command prints for each lab of this user, by the name of the lab."""
    directory = _directory()
    answers = []
    for name in sorted(file.stem for file in directory.glob("*.cell")):
        if (cell := _load(directory, name)) is not None:
            command = _command(cell, ["--lab", name, *words])
            done = subprocess.run(command, env=_environment(directory), stdout=subprocess.PIPE, text=True, check=True)
            answers.append(done.stdout)
    return answers


def _command(cell: Space, words: Sequence[str]) -> list[str]:
    enter = ["nsenter", f"--target={cell.pid}", "--user", "--mount", "--pid", "--preserve-credentials", "--"]
    return [*enter, sys.executable, "-m", "ldoms.lab", *words]


def _environment(directory: Path) -> dict[str, str]:
    return {**os.environ, "LDOMS_LABS": str(directory)}


def _make(directory: Path, name: str) -> Space:
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise HostError(
            "a lab without root needs /dev/net/tun to be open to you, and it is not: run ldoms-lab as root",
            code="needs-root",
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    cell = make_cell()
    _file(directory, name).write_text(json.dumps(to_wire(cell)))
    return cell


def _end(cell: Space, directory: Path, name: str) -> None:
    cell.end()
    _file(directory, name).unlink(missing_ok=True)
    with suppress(OSError):
        directory.rmdir()  # unless another lab is there
        if directory == _own_directory():
            directory.parent.rmdir()


def _load(directory: Path, name: str) -> Space | None:
    try:
        cell = from_wire(Space, json.loads(_file(directory, name).read_text()))
    except (OSError, ValueError):
        return None
    return cell if cell.is_alive else None


def _file(directory: Path, name: str) -> Path:
    return directory / f"{name}.cell"


def _directory() -> Path:
    own = os.environ.get("LDOMS_LABS")
    return Path(own) if own else _own_directory()


def _own_directory() -> Path:
    return Path(os.environ.get("XDG_RUNTIME_DIR", f"/tmp/ldoms-{os.geteuid()}")) / "ldoms-lab"  # noqa: S108
