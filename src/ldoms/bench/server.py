"""A PostgreSQL server, asked through psql.

Every command can be given a `prefix`, words that are put in front of it, such as those that run it in a network
namespace.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ldoms.bench.connection import database_in, quoted, with_settings, without_password
from ldoms.model.errors import HostError

_NO_CONNECTION = 2
"""psql's exit status when the connection could not be made or was lost."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a PostgreSQL server is reached.

    Attributes:
        host: address, or directory of its socket.
        database: it must exist.
        dsn: a connection string of libpq in place of all of the above; made by `server_at`.
        password: for the environment of programs, where others cannot see it.
        silence_limit_s: a connection counts as lost when nothing came from the server's host for so long. By the
            defaults of TCP it would hang for a quarter of an hour, and the load with it.
    """

    host: str
    port: int = 5432
    user: str = "postgres"
    database: str = "bench"
    silence_limit_s: int = 60
    dsn: str = ""
    password: str = field(default="", repr=False)

    @property
    def connection_words(self) -> str:
        """The connection string of libpq, which psql and pgbench take in place of a database's name."""
        return self.words_with({})

    def words_with(self, settings: Mapping[str, str]) -> str:
        """The connection string with more settings, as far as a string of the user's own does not have them."""
        place = "" if self.dsn else self.place
        return with_settings(self.dsn or place, {**self._limits, **settings})

    @property
    def place(self) -> str:
        """Where it is, without settings and password."""
        if self.dsn:
            return self.dsn
        settings = {"host": self.host, "port": str(self.port), "user": self.user, "dbname": self.database}
        return " ".join(f"{name}={quoted(value)}" for name, value in settings.items() if value)

    @property
    def environment(self) -> dict[str, str]:
        """What programs that connect need in their environment."""
        return {"PGPASSWORD": self.password} if self.password else {}

    @property
    def _limits(self) -> dict[str, str]:
        return {
            "connect_timeout": "10",
            "keepalives_idle": str(max(1, self.silence_limit_s // 2)),
            "keepalives_interval": str(max(1, self.silence_limit_s // 8)),
            "keepalives_count": "4",
            "tcp_user_timeout": str(self.silence_limit_s * 1000),
        }


def server_at(dsn: str) -> Server:
    """The server that a connection string names: a URI, or settings; what it does not say is libpq's default.

    Raises:
        RequestError: it is not a connection string, code ``bad-dsn``.
    """
    words, password = without_password(dsn)
    return Server("", database=database_in(words) or "(default)", dsn=words or " ", password=password)


def run_psql(server: Server, words: Sequence[str], *, prefix: Sequence[str] = (), timeout_s: float = 60.0) -> str:
    """Run psql with `words` and return its output. It stops at the first error.

    Raises:
        HostError: psql is not there, failed or took longer than `timeout_s`; the message has its own words. Code
            ``no-server``: there was no connection, or it was lost.
    """
    command = [*prefix, "psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", *words]
    command.append(f"--dbname={server.connection_words}")
    try:
        return run_program(command, timeout_s=timeout_s, environment=server.environment)
    except HostError as error:
        if error.details.get("status") != _NO_CONNECTION:
            raise
        said = " ".join(error.message.partition(" failed: ")[2].removeprefix("psql: ").removeprefix("error: ").split())
        raise HostError(f"the database server does not answer: {said}", code="no-server") from error


def query(server: Server, sql: str, *, prefix: Sequence[str] = (), timeout_s: float = 60.0) -> list[list[str]]:
    """Run one statement and return its rows, without a header, as text.

    Raises:
        HostError: as `run_psql`.
    """
    output = run_psql(server, ["--csv", "--tuples-only", f"--command={sql}"], prefix=prefix, timeout_s=timeout_s)
    # A row of one empty value is an empty line.
    return [row or [""] for row in csv.reader(io.StringIO(output))]


def run_program(
    words: Sequence[str | Path],
    *,
    directory: Path | None = None,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program and return what it prints; `environment` is added to ours.

    Raises:
        HostError: it failed, took too long, or is not there.
    """
    try:
        done = subprocess.run(
            words,
            cwd=directory,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=timeout_s,
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip()
        raise HostError(f"{_name(words)} failed: {said}", code="program-failed", status=error.returncode) from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{_name(words)} did not end within {timeout_s:g} s", code="program-slow") from error
    except OSError as error:
        raise HostError(f"{_name(words)} cannot be run: {error}", code="no-program") from error
    return done.stdout


def _name(words: Sequence[str | Path]) -> str:
    return " ".join(str(word) for word in words[:3])
