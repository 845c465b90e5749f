"""``ldm``: the way in. What is typed most takes a short way; everything else is imported when it is needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ldoms.cli import brief


def main() -> None:
    """Run `ldm` with the words of the command line."""
    try:
        status = 0 if brief.main(sys.argv[1:]) else run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        # Whoever read our output has gone, as `ldm list | head` does; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def run(words: Sequence[str]) -> int:
    """Carry out one command line the long way; see `ldoms.cli.dispatch`."""
    from ldoms.cli.dispatch import dispatch

    return dispatch(words)
