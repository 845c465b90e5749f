"""Finds the command, runs it, and turns what goes wrong into a sentence and an exit status."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress

from ldoms.api.client import Client
from ldoms.cli.command import UsageError
from ldoms.cli.help import overview, usage
from ldoms.cli.output import complain, say, say_lines
from ldoms.cli.table import find
from ldoms.model.errors import LdomsError

FAILED, MISUSED = 1, 2


def dispatch(words: Sequence[str]) -> int:
    """Carry out one command line.

    Returns:
        The exit status: 0, 1 for a failure, 2 for a command line that makes no sense.
    """
    try:
        _check_text(words)
        return _run(list(words))
    except UsageError as error:
        complain(error.message)
        if words and not words[0].startswith("-"):
            with suppress(UsageError):
                complain("\n".join(usage(find(words[0]))))
        return MISUSED
    except LdomsError as error:
        complain(error.message)
        return FAILED


def _run(words: list[str]) -> int:
    if not words:
        raise UsageError("\n".join(overview()))
    if words[0] in ("-h", "--help"):
        say_lines(usage(find(words[1])) if len(words) > 1 else overview())
        return 0
    if words[0] == "-V":
        return _version()
    if words[0] in ("--complete", "--completion"):
        return _complete(words[0], words[1:])
    command = find(words[0])
    short = () if any(option.flag == "-h" for option in command.options) else ("-h",)
    if words[1:] and words[1] in ("--help", *short):
        say_lines(usage(command))
        return 0
    client = Client(command=shlex.join(words))
    status = command.run(client, command.read(words[1:]))
    for notice in client.notices:
        complain(notice)
    return status


def _check_text(words: Sequence[str]) -> None:
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{word!a} is not text in UTF-8") from None


def _complete(what: str, words: list[str]) -> int:
    """For shells: what may be typed next, or what they need to ask for that."""
    from ldoms.cli.completion import SHELLS, complete

    if what == "--complete":
        say_lines(complete(words))
        return 0
    if len(words) != 1 or words[0] not in SHELLS:
        raise UsageError(f"--completion: name a shell: {' or '.join(SHELLS)}")
    say(SHELLS[words[0]].rstrip())
    return 0


def _version() -> int:
    """The version, in the words that monitoring tools look for."""
    facts = Client().get("/host")["facts"]
    qemu = facts["hypervisor"]["version"]
    say(f"Logical Domains Manager (v {facts['version']})")
    say(f"        Hypervisor control protocol v {facts['protocol']}.0")
    say("        Using Hypervisor MD v 1.4")
    say("")
    say("System PROM:")
    say(f"        Hypervisor      v. {qemu}       @(#)Hypervisor QEMU {qemu} ({facts['hypervisor']['accelerator']})")
    return 0
