"""Labs without root: the whole lab lives in a user namespace, a cell, and every command goes into it first."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from ldoms.lab.spaces import Space, make_cell
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import HostError, NotFound

_IN_CELL = "LDOMS_IN_CELL"


def enter_cell(name: str, *, make: bool) -> None:
    """Run this very command again, as root of the cell of lab `name`; does not return.

    Raises:
        NotFound: there is no such cell, and `make` does not say that one should be made.
        HostError: this machine does not allow labs without root.
    """
    directory = _directory()
    file = directory / f"{name}.cell"
    cell = _load(file)
    if cell is None:
        if not make:
            raise NotFound(f"lab {name} is not up: 'ldoms-lab up' makes it")
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            raise HostError(
                "a lab without root needs /dev/net/tun to be open to you, and it is not: run ldoms-lab as root",
                code="needs-root",
            )
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        cell = make_cell()
        file.write_text(json.dumps(to_wire(cell)))
    words = ["nsenter", f"--target={cell.pid}", "--user", "--mount", "--pid", "--preserve-credentials", "--"]
    environment = {**os.environ, "LDOMS_LABS": str(directory), _IN_CELL: "yes"}
    os.execvpe(words[0], [*words, sys.executable, "-m", "ldoms.lab", *sys.argv[1:]], environment)  # noqa: S606


def leave_cell() -> None:
    """End the cell that this command runs in, if it is in one: its process 1, and with it everything inside."""
    if os.environ.get(_IN_CELL):
        os.kill(1, signal.SIGTERM)


def _load(file: Path) -> Space | None:
    try:
        cell = from_wire(Space, json.loads(file.read_text()))
    except (OSError, ValueError):
        return None
    return cell if cell.is_alive else None


def _directory() -> Path:
    own = os.environ.get("LDOMS_LABS")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_RUNTIME_DIR", f"/tmp/ldoms-{os.geteuid()}")) / "ldoms-lab"  # noqa: S108
