"""What ``ldoms-lab`` does when nobody reads what it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_it_ends_quietly_when_nobody_reads(tmp_path: Path) -> None:
    """As in `ldoms-lab status | head -1`, where head has ended: nothing is wrong."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "ldoms.lab", "status", "-a", "--json"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, "LDOMS_LABS": str(tmp_path)},
        text=True,
        timeout=30,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
