"""A PostgreSQL server, asked through psql.

Every command can be given a `prefix`, words that are put in front of it, such as those that run it in a network
namespace.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ldoms.model.errors import HostError


@dataclass(frozen=True, slots=True)
class Server:
    """Where a PostgreSQL server is reached.

    Attributes:
        host: address, or directory of its socket.
        database: it must exist.
        silence_limit_s: a connection counts as lost when nothing came from the server's host for so long. By the
            defaults of TCP it would hang for a quarter of an hour, and the load with it.
    """

    host: str
    port: int = 5432
    user: str = "postgres"
    database: str = "bench"
    silence_limit_s: int = 60

    @property
    def connection_words(self) -> str:
        """The connection string of libpq, which psql and pgbench take in place of a database's name."""
        settings = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "dbname": self.database,
            "connect_timeout": 10,
            "keepalives_idle": max(1, self.silence_limit_s // 2),
            "keepalives_interval": max(1, self.silence_limit_s // 8),
            "keepalives_count": 4,
            "tcp_user_timeout": self.silence_limit_s * 1000,
        }
        return " ".join(f"{name}={quoted(str(value))}" for name, value in settings.items())


def run_psql(server: Server, words: Sequence[str], *, prefix: Sequence[str] = (), timeout_s: float = 60.0) -> str:
    """Run psql with `words` and return its output. It stops at the first error.

    Raises:
        HostError: psql is not there, failed or took longer than `timeout_s`; the message has its own words.
    """
    command = [*prefix, "psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", *words]
    return run_program([*command, f"--dbname={server.connection_words}"], timeout_s=timeout_s)


def query(server: Server, sql: str, *, prefix: Sequence[str] = (), timeout_s: float = 60.0) -> list[list[str]]:
    """Run one statement and return its rows, without a header, as text.

    Raises:
        HostError: as `run_psql`.
    """
    output = run_psql(server, ["--csv", "--tuples-only", f"--command={sql}"], prefix=prefix, timeout_s=timeout_s)
    # A row of one empty value is an empty line.
    return [row or [""] for row in csv.reader(io.StringIO(output))]


def run_program(words: Sequence[str | Path], *, directory: Path | None = None, timeout_s: float) -> str:
    """Run a program and return what it prints.

    Raises:
        HostError: it failed, took too long, or is not there.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            words,
            cwd=directory,
            env=environment,
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


def quoted(value: str) -> str:
    """As libpq wants a value in a connection string."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
