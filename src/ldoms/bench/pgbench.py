"""pgbench, the load generator of PostgreSQL: found or fetched, run in the background, stopped without losing its log.

It costs a few percent of a core for 50 clients, and with ``--log`` it writes a line with the moment of completion in
microseconds for every transaction that the server has acknowledged. It never connects again: a lost connection ends
its client, and shows.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ldoms.bench.background import Background
from ldoms.bench.log import LoadResult, Outcome, Pause, Progress, parse_progress, parse_report, read_logs
from ldoms.bench.server import Server, run_program
from ldoms.model.errors import AlreadyExists, HostError

SERVER_PROGRAMS = Path("/usr/lib/postgresql")
STOP_GRACE_S = 15.0
"""How long clients may take to connect or to finish, on top of the time after which a connection counts as lost."""
_POLL_S = 0.02
_LOG_NAME = "transactions"
_OUTPUT_NAME = "pgbench"
# By default a session plans every statement of a function five times before it keeps a plan. In a guest whose
# instructions are emulated that is most of the work of 50 new sessions in their first half minute.
_SESSION = "-c plan_cache_mode=force_generic_plan"


def find_pgbench(
    cache: Path | None = None, *, server_programs: Path = SERVER_PROGRAMS, search_path: str | None = None
) -> Path:
    """Find a pgbench that works.

    Debian's client package has no pgbench, but puts a wrapper of that name on PATH, which fails without a server
    package. So programs of server packages come first (newest version), and everything is tried before it is taken.

    Args:
        cache: where `fetch_pgbench` has put one.
        server_programs: where Debian keeps server packages, a directory per version.
        search_path: in place of PATH.

    Raises:
        HostError: there is none, code ``no-pgbench``.
    """
    candidates = sorted(server_programs.glob("*/bin/pgbench"), key=_version_in, reverse=True)
    on_path = shutil.which("pgbench", path=search_path)
    if on_path:
        candidates.append(Path(on_path))
    if cache is not None:
        candidates.append(_cached_pgbench(cache))
    for candidate in candidates:
        if _works(candidate):
            return candidate
    raise HostError(f"no pgbench that works was found in {server_programs}, on PATH or in the cache", code="no-pgbench")


def fetch_pgbench(cache: Path, *, timeout_s: float = 300.0) -> Path:
    """Take pgbench out of the server package that this machine's package sources offer; nothing is installed.

    The library that it links, libpq, comes with Debian's package ``postgresql-client``.

    Raises:
        HostError: there is no such package, or what is in it does not run here, code ``no-pgbench``.
    """
    place = _cached_pgbench(cache)
    place.parent.mkdir(parents=True, exist_ok=True)
    package = _server_package(run_program(["apt-cache", "depends", "postgresql"], timeout_s=timeout_s))
    with tempfile.TemporaryDirectory(dir=place.parent) as directory:
        # apt drops to a user of its own, which could not write to a directory of ours.
        run_program(
            ["apt-get", "--quiet", "-o", "APT::Sandbox::User=root", "download", package],
            directory=Path(directory),
            timeout_s=timeout_s,
        )
        archive = next(Path(directory).glob("*.deb"))
        fresh = Path(directory, "pgbench")
        _extract(archive, "/bin/pgbench", fresh)
        if not _works(fresh):
            raise HostError(
                f"the pgbench of {package} does not run here: is postgresql-client installed?", code="no-pgbench"
            )
        fresh.replace(place)
    return place


def programs_cache() -> Path:
    """Where programs are kept that were fetched: ``$LDOMS_CACHE``, or in the user's own cache."""
    own = os.environ.get("LDOMS_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ldoms"


def ensure_pgbench(cache: Path) -> Path:
    """Find a pgbench, or fetch one into the cache.

    Raises:
        HostError: there is none and none can be fetched.
    """
    try:
        return find_pgbench(cache)
    except HostError:
        return fetch_pgbench(cache)


def _cached_pgbench(cache: Path) -> Path:
    return cache / "tools" / "pgbench"


def _version_in(program: Path) -> int:
    version = program.parent.parent.name
    return int(version) if version.isdecimal() else 0


def _works(program: Path) -> bool:
    try:
        return subprocess.run([program, "--version"], capture_output=True, check=False, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _server_package(depends: str) -> str:
    found = re.search(r"Depends: (postgresql-\d+)", depends)
    if found is None:
        raise HostError("the package sources know no package 'postgresql': run apt-get update", code="no-pgbench")
    return found[1]


def _extract(archive: Path, ending: str, place: Path) -> None:
    """Write the one file of a Debian package whose path ends so, executable, to `place`."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as unpacker:
        assert unpacker.stdout is not None
        with tarfile.open(fileobj=unpacker.stdout, mode="r|") as files:
            for member in files:
                if member.isfile() and member.name.endswith(ending):
                    content = files.extractfile(member)
                    assert content is not None
                    place.write_bytes(content.read())
                    place.chmod(0o755)
    if not place.exists():
        raise HostError(f"{archive.name} has no {ending}", code="no-pgbench")


@dataclass(frozen=True, slots=True)
class Script:
    """One kind of transaction: what pgbench does for it, and how often in proportion to the others."""

    kind: str
    text: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How much load.

    Attributes:
        seconds: it ends by itself after so long.
        rate_per_s: transactions to start in all, at random moments (Poisson); 0 = each client starts its next one
            at once.
        seed: of the random numbers of the clients: the same seed asks for the same things in the same order.
    """

    clients: int = 50
    threads: int = 2
    seconds: int = 60
    rate_per_s: float = 0.0
    seed: int = 1


def pgbench_words(
    pgbench: Path,
    server: Server,
    scripts: Sequence[tuple[Path, int]],
    options: LoadOptions,
    log_prefix: Path,
    variables: Mapping[str, int],
) -> list[str]:
    """The command for a run; `scripts` are files with their weights."""
    words = [
        str(pgbench),
        "--no-vacuum",
        f"--client={options.clients}",
        f"--jobs={min(options.threads, options.clients)}",
        f"--time={options.seconds}",
        "--progress=1",
        "--protocol=prepared",
        f"--random-seed={options.seed}",
        "--log",
        f"--log-prefix={log_prefix}",
    ]
    if options.rate_per_s:
        words.append(f"--rate={options.rate_per_s:g}")
    words += [f"--define={name}={value}" for name, value in variables.items()]
    words += [f"--file={path}@{weight}" for path, weight in scripts]
    return [*words, server.words_with({"options": _SESSION})]


class LoadRun:
    """A pgbench that runs in the background; it works in a directory of its own, which holds its log and output.

    Attributes:
        kinds: of its scripts, in the order in which its log numbers them.
        pause_s: what clients sleep at the beginning of their scripts; None = nothing.
    """

    def __init__(
        self,
        words: Sequence[str],
        directory: Path,
        kinds: Sequence[str],
        *,
        seconds: float,
        stop_grace_s: float,
        pause_s: Pause | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; use `start_load`."""
        self.directory = directory
        self.kinds = tuple(kinds)
        self._seconds = seconds
        self._stop_grace_s = stop_grace_s
        self.pause_s = pause_s
        # The name of the log is in its arguments, and no other run's has that directory.
        mark = str(directory / _LOG_NAME)
        self._program = Background(words, directory, _OUTPUT_NAME, mark=mark, environment=environment)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._program.is_running

    @property
    def pid(self) -> int:
        """pgbench's own, whatever was put in front of it; 0 = not yet."""
        return self._program.pid

    def progress(self) -> tuple[Progress, ...]:
        """What it has reported so far, a line per second."""
        return parse_progress(self.errors_path.read_text(errors="replace"))

    def stop(self) -> None:
        """End it now, keeping its log: every client finishes the transaction it is in.

        pgbench's clock for ``--time`` is an alarm signal, so sending one ends the time early. Anything else kills
        it with the last lines of its log still in memory.
        """
        deadline = time.monotonic() + self._stop_grace_s
        asked = False
        try:
            while self.is_running and time.monotonic() < deadline:
                # Not before it has its log: until then the signal would find no clock, and kill it.
                asked = asked or (bool(self.logs()) and self._program.send(signal.SIGALRM))
                time.sleep(_POLL_S)
        finally:
            self.kill()  # also when somebody cannot wait

    def kill(self) -> None:
        """End it without regard to its log, if it still runs."""
        self._program.kill()

    def result(self, timeout_s: float | None = None) -> LoadResult:
        """Wait for its end and read what it wrote.

        Args:
            timeout_s: how long to wait before it is stopped. None = its whole time, and what clients may take to
                connect and to finish.

        Raises:
            HostError: it could not begin, code ``load-failed``.
        """
        if not self._program.wait(self._seconds + self._stop_grace_s if timeout_s is None else timeout_s):
            self.stop()
        result = read_load(self.directory, self.kinds, self.pause_s)
        if result.report.processed is None and not result.transactions:
            said = " ".join(self.errors_path.read_text(errors="replace").split())
            raise HostError(f"the load could not begin: {said}", code="load-failed")
        return result

    def logs(self) -> list[Path]:
        """The files of its log, one for each thread; pgbench writes them in blocks of 4 KiB."""
        return _logs_in(self.directory)

    @property
    def errors_path(self) -> Path:
        """The file to which it writes its reports of each second, and its errors."""
        return self.directory / f"{_OUTPUT_NAME}.err"


def read_load(directory: Path, kinds: Sequence[str], pause_s: Pause | None = None) -> LoadResult:
    """What a load has written that has ended, also long ago.

    Raises:
        FileNotFoundError: there was none in the directory.
        ValueError, IndexError: the log is not one of pgbench with these kinds.
    """
    output, errors = ((directory / f"{_OUTPUT_NAME}.{stream}").read_text(errors="replace") for stream in ("out", "err"))
    report = parse_report(output, errors)
    transactions = read_logs(_logs_in(directory), kinds, pause_s)
    answered = sum(1 for transaction in transactions if transaction.outcome is Outcome.ACKNOWLEDGED)
    return LoadResult(transactions, report, is_complete=report.processed == answered)


def _logs_in(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"{_LOG_NAME}.*"))


def start_load(
    pgbench: Path,
    server: Server,
    scripts: Sequence[Script],
    options: LoadOptions,
    directory: Path,
    *,
    variables: Mapping[str, int] | None = None,
    pause_s: Pause | None = None,
    prefix: Sequence[str] = (),
) -> LoadRun:
    """Start pgbench on a server; it ends by itself, or by `LoadRun.stop`.

    Args:
        directory: for this run alone; it is made.
        variables: what the scripts may use, with the values that they have at first for each client.
        pause_s: what clients sleep at the beginning of their scripts.

    Raises:
        AlreadyExists: the directory holds another run.
        HostError: the program cannot be started. That the server cannot be reached shows at the end.
    """
    if directory.exists() and any(directory.iterdir()):
        raise AlreadyExists(f"{directory} is not empty: each load needs a directory of its own", code="run-exists")
    directory.mkdir(parents=True, exist_ok=True)
    directory = directory.resolve()
    files = [(directory / f"{script.kind}.sql", script) for script in scripts]
    for path, script in files:
        path.write_text(script.text)
    weighted = [(path, script.weight) for path, script in files]
    words = pgbench_words(pgbench, server, weighted, options, directory / _LOG_NAME, variables or {})
    grace_s = server.silence_limit_s + STOP_GRACE_S
    kinds = [script.kind for script in scripts]
    return LoadRun(
        [*prefix, *words],
        directory,
        kinds,
        seconds=options.seconds,
        stop_grace_s=grace_s,
        pause_s=pause_s,
        environment=server.environment,
    )
