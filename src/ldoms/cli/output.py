"""Where text goes: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any


def say(text: str) -> None:
    """A result, or a message that scripts expect."""
    print(text)


def say_lines(lines: Iterable[str]) -> None:
    """Several lines of a result."""
    for line in lines:
        print(line)


def say_json(data: Any) -> None:
    """A result as JSON."""
    print(json.dumps(data, indent=2))


def complain(text: str) -> None:
    """What went wrong; no program name in front, as LDoms has none."""
    print(text, file=sys.stderr)


def on_terminal() -> bool:
    """Whether a person watches standard error."""
    return sys.stderr.isatty()
