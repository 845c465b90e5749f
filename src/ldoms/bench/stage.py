"""A lab for a demonstration or a measurement: commands are typed for everybody to see, and it is gone afterwards."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ldoms.model.codec import from_wire
from ldoms.model.errors import HostError
from ldoms.model.migration import MigrationReport

SOURCE, TARGET = "t4-1", "t4-2"
ADMINISTRATOR = "ldmadmin"
MANAGER_S = 30.0
"""A manager that is started again may take so long."""


class Stage:
    """A lab that is up.

    Attributes:
        client: the words before a command that run it where the clients are.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.client = self.prefix("client")

    def prefix(self, host: str) -> list[str]:
        """The words before a command that run it on a host, also where our programs are not on PATH."""
        return [str(Path(sys.executable).with_name("ldoms-lab")), "--lab", self._name, "exec", host, "--"]

    def lab(self, *words: str) -> list[str]:
        """The words of a `ldoms-lab` command."""
        return ["ldoms-lab", "--lab", self._name, *words]

    def on(self, host: str, *words: str) -> list[str]:
        """The words that run a command on a host."""
        return self.lab("exec", host, "--", *words)

    def type(self, words: Sequence[str]) -> None:
        """Show a command as it is typed, and run it.

        Raises:
            HostError: it failed; it has said why.
        """
        say(f"$ {shlex.join(words)}")
        done = subprocess.run(words, stdin=subprocess.DEVNULL, env=_environment(), check=False)
        if done.returncode != 0:
            raise HostError(f"'{shlex.join(words)}' failed with status {done.returncode}", code="command-failed")

    def output(self, words: Sequence[str]) -> str:
        """Run a command silently, and return what it prints.

        Raises:
            HostError: it failed.
        """
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, env=_environment(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            reason = done.stderr.strip() or f"status {done.returncode}"
            raise HostError(f"'{shlex.join(words)}' failed: {reason}", code="command-failed")
        return done.stdout

    def wait_for_manager(self, host: str) -> None:
        """Wait until the manager of a host answers.

        Raises:
            HostError: it does not, in time.
        """
        deadline = time.monotonic() + MANAGER_S
        while True:
            try:
                self.output(self.on(host, "ldm", "list"))
                return
            except HostError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def migrate_words(self, domain: str, source: str, *options: str) -> list[str]:
        """The command that migrates a domain to the other host."""
        target = TARGET if source == SOURCE else SOURCE
        words = [*options, "-p", self.password_file, domain, f"{ADMINISTRATOR}@{target}"]
        return self.on(source, "ldm", "migrate-domain", *words)

    def last_report(self, source: str) -> MigrationReport:
        """The report of the last migration away from a host."""
        reports = json.loads(self.output(self.on(source, "ldm", "list-history", "-o", "migration", "--json")))
        return from_wire(MigrationReport, next(one for one in reversed(reports) if one["source"] == source))

    def runs_on(self, domain: str) -> str:
        """The hosts on which a domain is active: one, if all is well."""
        found = [
            host["name"]
            for host in self._status["hosts"]
            for one in host["domains"]
            if one["name"] == domain and one["state"] == "active"
        ]
        return " and ".join(found) or "nowhere"

    @property
    def password_file(self) -> str:
        """That of the lab's administrator, as ``ldm migrate-domain -p`` wants it."""
        return str(self._status["password_file"])

    @property
    def links(self) -> dict[str, str]:
        """How the cable of each host is shaped, in words."""
        return {host["name"]: str(host["link"]) for host in self._status["hosts"]}

    @property
    def _status(self) -> dict[str, Any]:
        (status,) = json.loads(self.output(self.lab("status", "--json")))
        return dict(status)


@contextmanager
def stage(name: str, *options: str) -> Iterator[Stage]:
    """Two hosts and a client, which are gone afterwards.

    Raises:
        HostError: the lab cannot be made, or taken away.
    """
    made = Stage(name)
    made.type(made.lab("up", *options))
    try:
        yield made
    finally:
        made.type(made.lab("down", "-f"))


def heading(text: str) -> None:
    """Begin a part of the output."""
    say("")
    say(f"== {text}")


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def _environment() -> dict[str, str]:
    """Our own programs are found also where nobody has activated their environment."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"}
