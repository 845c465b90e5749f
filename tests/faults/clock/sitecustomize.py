"""A wall clock of its own for each host of a lab, in every Python program there: Python imports this by itself.

``STEPPED_CLOCKS`` names a directory; what is in the file with the host's name is added to the time, in seconds.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_DIRECTORY = os.environ.get("STEPPED_CLOCKS")
_real = time.time

if _DIRECTORY:
    _step = Path(_DIRECTORY) / f"clock-{os.uname().nodename}"

    def _stepped() -> float:
        return _real() + (float(_step.read_text()) if _step.exists() else 0.0)

    time.time = _stepped
