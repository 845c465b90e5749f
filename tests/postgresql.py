"""A PostgreSQL server of the tests' own, on the loopback address."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ldoms.bench.server import Server, query

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PostgreSQL:
    """A server of the test's own, in a temporary directory, run by a user who is not root."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.settings = settings or {}
        # pytest's own directories can be entered by their owner only.
        self.directory = Path(tempfile.mkdtemp(prefix="ldoms-pg-"))
        self.directory.chmod(0o755)
        self.data = self.directory / "data"
        self.port = free_port()
        self.programs = PROGRAMS[-1].parent
        self.user_words: list[str] = []
        if os.geteuid() == 0:
            user = "postgres" if subprocess.run(["id", "postgres"], capture_output=True).returncode == 0 else "nobody"
            shutil.chown(self.directory, user)
            self.user_words = ["runuser", "-u", user, "--"]

    def create(self) -> None:
        self.run("initdb", "--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C")
        self.start()

    @property
    def server(self) -> Server:
        return Server("127.0.0.1", self.port, database="postgres")

    def start(self) -> None:
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.directory} "
            "-c max_connections=60 -c fsync=off -c shared_buffers=32MB -c jit=off -c deadlock_timeout=200ms"
        )
        options += "".join(f" -c {name}={value}" for name, value in self.settings.items())
        self.run("pg_ctl", "--wait", "--timeout=60", f"--log={self.directory / 'log'}", f"--options={options}", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "--mode=immediate", "--wait", "--timeout=30", "stop")

    def run(self, program: str, *words: str) -> None:
        command = [*self.user_words, str(self.programs / program), f"--pgdata={self.data}", *words]
        # Into a file: a pipe would stay open as long as the server runs.
        with (self.directory / "output").open("w+b") as output:
            status = subprocess.run(command, stdout=output, stderr=output, cwd=self.directory, timeout=90).returncode
            output.seek(0)
            assert status == 0, f"{program}: {output.read().decode()}"

    def close(self) -> None:
        try:
            if (self.data / "postmaster.pid").exists():
                self.stop()
        finally:
            shutil.rmtree(self.directory)


@contextmanager
def running_postgresql(settings: Mapping[str, str] | None = None) -> Iterator[PostgreSQL]:
    """A server that is gone afterwards; `settings` are added to ours."""
    assert PROGRAMS, "no PostgreSQL server package is installed: run 'setup/system tests'"
    instance = PostgreSQL(settings)
    try:
        instance.create()
        yield instance
    finally:
        instance.close()


def value(server: Server, sql: str) -> str:
    """The one value that a query gives."""
    return query(server, sql)[0][0]


def numbers(server: Server, *expressions: str) -> list[int]:
    """The values of expressions, whole numbers."""
    return [int(cell) for cell in query(server, f"select {', '.join(expressions)}")[0]]
