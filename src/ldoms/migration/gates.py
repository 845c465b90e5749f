"""Gates: named places at which a test can hold a migration between real processes, to break something just there.

A gate is closed by a file of its name in the directory that ``LDOMS_GATES`` names; ``NAME.reached`` appears when
somebody waits at it, and removing the file opens it. Without the variable a gate costs one comparison.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

_POLL_S = 0.01


async def gate(name: str) -> None:
    """Wait until the gate of that name is open."""
    directory = os.environ.get("LDOMS_GATES")
    if not directory:
        return
    bar = Path(directory) / name
    if bar.exists():
        bar.with_name(f"{name}.reached").touch()
        while bar.exists():
            await asyncio.sleep(_POLL_S)
