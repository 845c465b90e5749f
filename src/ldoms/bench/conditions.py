"""Under what conditions figures came about: they mean little without."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any


def conditions() -> dict[str, Any]:
    """The machine, what runs on it, and its load now: of the last 1, 5 and 15 minutes."""
    return {
        "processor": processor(Path("/proc/cpuinfo").read_text()),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "qemu": _first_line("qemu-system-x86_64", "--version"),
        "load": [round(one, 2) for one in os.getloadavg()],
    }


def processor(cpuinfo: str) -> str:
    """The model, of the text of ``/proc/cpuinfo``."""
    lines = cpuinfo.splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


def _first_line(*words: str) -> str:
    try:
        lines = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
    except OSError:
        return "not there"
    return lines[0] if lines else "unknown"
