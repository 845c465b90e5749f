"""Time in a lab: the control domain of each host serves it with chrony, and guests follow it, as in the paper.

All hosts of a lab share the clock of the machine that they are on, and nothing here may change that: ``chronyd -x``.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import psutil

from ldoms.lab.spaces import Space

PROGRAM = "chronyd"


def configuration(directory: Path, network: str) -> str:
    """That of a host's server, for clients in `network`; its own files are in `directory`.

    ``local``: it serves the machine's clock whatever that follows, like ``server 127.127.1.0 prefer`` of the paper.
    """
    lines = [
        "local stratum 8",
        f"allow {network}",
        "bindcmdaddress 127.0.0.1",  # for chronyc; not a socket below /run, which the hosts share
        "bindcmdaddress /",
        f"pidfile {directory}/{PROGRAM}.pid",
    ]
    return "\n".join(lines) + "\n"


def serve(space: Space, directory: Path, network: str) -> bool:
    """Serve this machine's time from a host, unless that is done; False if chrony is not installed.

    Args:
        space: the host's namespaces.
        directory: for its configuration and log; made if missing.
        network: from where it may be asked, such as ``10.77.0.0/24``.
    """
    program = shutil.which(PROGRAM, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        return False
    if not _serves(space):
        directory.mkdir(mode=0o750, exist_ok=True)
        file = directory / "chrony.conf"
        file.write_text(configuration(directory, network))
        space.start([program, "-n", "-x", "-u", "root", "-f", str(file)], directory / "log", dict(os.environ))
    return True


def _serves(space: Space) -> bool:
    for process in space.processes():
        with suppress(psutil.Error):
            if process.name() == PROGRAM:
                return True
    return False
