"""Load on a database: pgbench in the background, and what its clients saw, from its own log.

pgbench (part of PostgreSQL) is the load generator: it costs a few percent of a core for 50 clients, and with
``--log`` it writes a line with the moment of completion in microseconds for every transaction that the server has
acknowledged. It never connects again: a lost connection ends its client, and shows.

Every command can be given a `prefix`, words that are put in front of it, such as those that run it in a network
namespace.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

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

# --------------------------------------------------------------------------------------------- the server


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
        return " ".join(f"{name}={_quoted(str(value))}" for name, value in settings.items())


def run_psql(server: Server, words: Sequence[str], *, prefix: Sequence[str] = (), timeout_s: float = 60.0) -> str:
    """Run psql with `words` and return its output. It stops at the first error.

    Raises:
        HostError: psql is not there, failed or took longer than `timeout_s`; the message has its own words.
    """
    command = [*prefix, "psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", *words]
    return _run([*command, f"--dbname={server.connection_words}"], timeout_s=timeout_s)


def query(server: Server, sql: str, *, prefix: Sequence[str] = (), timeout_s: float = 60.0) -> list[list[str]]:
    """Run one statement and return its rows, without a header, as text.

    Raises:
        HostError: as `run_psql`.
    """
    output = run_psql(server, ["--csv", "--tuples-only", f"--command={sql}"], prefix=prefix, timeout_s=timeout_s)
    # A row of one empty value is an empty line.
    return [row or [""] for row in csv.reader(io.StringIO(output))]


# --------------------------------------------------------------------------------------------- the program


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
    package = _server_package(_run(["apt-cache", "depends", "postgresql"], timeout_s=timeout_s))
    with tempfile.TemporaryDirectory(dir=place.parent) as directory:
        # apt drops to a user of its own, which could not write to a directory of ours.
        _run(
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


# --------------------------------------------------------------------------------------------- a run


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
    return [*words, f"{server.connection_words} options={_quoted(_SESSION)}"]


class LoadRun:
    """A pgbench that runs in the background; it works in a directory of its own, which holds its log and output.

    Attributes:
        kinds: of its scripts, in the order in which its log numbers them.
    """

    def __init__(
        self,
        words: Sequence[str],
        directory: Path,
        kinds: Sequence[str],
        *,
        seconds: float,
        stop_grace_s: float,
    ) -> None:
        """Start it; use `start_load`."""
        self.directory = directory
        self.kinds = tuple(kinds)
        self._seconds = seconds
        self._stop_grace_s = stop_grace_s
        self._child = start_in_background(words, directory, _OUTPUT_NAME)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._child.poll() is None

    @property
    def pid(self) -> int:
        """pgbench's own, whatever was put in front of it: its first log file is named after it; 0 = not yet."""
        pids = [path.suffix[1:] for path in self._logs() if path.stem == _LOG_NAME]
        return int(pids[0]) if pids else 0

    def progress(self) -> tuple[Progress, ...]:
        """What it has reported so far, a line per second."""
        return parse_progress(self._text("err"))

    def stop(self) -> None:
        """End it now, keeping its log: every client finishes the transaction it is in.

        pgbench's clock for ``--time`` is an alarm signal, so sending one ends the time early. Anything else kills
        it with the last lines of its log still in memory.
        """
        deadline = time.monotonic() + self._stop_grace_s
        asked = False
        while self.is_running and time.monotonic() < deadline:
            pid = self.pid
            if pid and not asked:
                asked = send_signal(pid, signal.SIGALRM)
            time.sleep(_POLL_S)
        self.kill()

    def kill(self) -> None:
        """End it without regard to its log, if it still runs."""
        pid = self.pid
        if self.is_running:
            if pid:
                send_signal(pid, signal.SIGKILL)
            self._child.kill()
        self._child.wait()

    def result(self, timeout_s: float | None = None) -> LoadResult:
        """Wait for its end and read what it wrote.

        Args:
            timeout_s: how long to wait before it is stopped. None = its whole time, and what clients may take to
                connect and to finish.

        Raises:
            HostError: it could not begin, code ``load-failed``.
        """
        try:
            self._child.wait(self._seconds + self._stop_grace_s if timeout_s is None else timeout_s)
        except subprocess.TimeoutExpired:
            self.stop()
        report = parse_report(self._text("out"), self._text("err"))
        transactions = read_logs(self._logs(), self.kinds)
        if report.processed is None and not transactions:
            raise HostError(f"the load could not begin: {self._text('err').strip()}", code="load-failed")
        answered = sum(1 for transaction in transactions if transaction.outcome is Outcome.ACKNOWLEDGED)
        return LoadResult(transactions, report, is_complete=report.processed == answered)

    def _logs(self) -> list[Path]:
        return sorted(self.directory.glob(f"{_LOG_NAME}.*"))

    def _text(self, stream: str) -> str:
        return (self.directory / f"{_OUTPUT_NAME}.{stream}").read_text(errors="replace")


def start_load(
    pgbench: Path,
    server: Server,
    scripts: Sequence[Script],
    options: LoadOptions,
    directory: Path,
    *,
    variables: Mapping[str, int] | None = None,
    prefix: Sequence[str] = (),
) -> LoadRun:
    """Start pgbench on a server; it ends by itself, or by `LoadRun.stop`.

    Args:
        directory: for this run alone; it is made.
        variables: what the scripts may use, with the values that they have at first for each client.

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
    return LoadRun([*prefix, *words], directory, kinds, seconds=options.seconds, stop_grace_s=grace_s)


def start_in_background(words: Sequence[str], directory: Path, name: str) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that an interrupt typed here does not reach it.

    Its output goes to ``<name>.out`` and ``<name>.err`` in `directory`.

    Raises:
        HostError: it cannot be started.
    """
    with (directory / f"{name}.out").open("wb") as output, (directory / f"{name}.err").open("wb") as errors:
        try:
            return subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
            )
        except OSError as error:
            raise HostError(f"{words[0]} cannot be started: {error}", code="no-program") from error


def send_signal(pid: int, number: signal.Signals) -> bool:
    """Send a signal to a process; False when it has gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


# --------------------------------------------------------------------------------------------- what it wrote


class Outcome(StrEnum):
    """How a transaction ended, for its client."""

    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    """The server has said that it was rolled back: a deadlock, or a serialization failure."""
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Transaction:
    """One line of pgbench's log.

    Attributes:
        seq: number among the client's transactions, from 1, whatever their outcome.
        at: when it was over, seconds since 1970.
        latency_s: from when it was due to its answer; 0 if it was not acknowledged.
        lag_s: part of it that it waited for its client to be free; 0 without a rate.
    """

    client: int
    seq: int
    kind: str
    at: float
    latency_s: float = 0.0
    lag_s: float = 0.0
    outcome: Outcome = Outcome.ACKNOWLEDGED

    @property
    def service_s(self) -> float:
        """From the question to the answer."""
        return max(0.0, self.latency_s - self.lag_s)


@dataclass(frozen=True, slots=True)
class Progress:
    """One of pgbench's lines per second.

    Attributes:
        elapsed_s: since its start.
        tps: acknowledged per second since the line before.
        latency_s: mean.
    """

    elapsed_s: float
    tps: float
    latency_s: float
    failed: int = 0


@dataclass(frozen=True, slots=True)
class PgbenchReport:
    """What pgbench says at its end.

    Attributes:
        processed: transactions acknowledged; None = it did not come to its end.
        aborted_clients: that gave up, by number.
        lost_clients: those of them that gave up because their connection was lost, not because of an error that
            the server reported.
        messages: its errors, one per client that gave up.
    """

    processed: int | None
    failed: int = 0
    tps: float = 0.0
    connecting_s: float = 0.0
    aborted_clients: tuple[int, ...] = ()
    lost_clients: tuple[int, ...] = ()
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadResult:
    """All that is known of a load after its end.

    Attributes:
        transactions: in the order of their ends.
        is_complete: the log has every transaction that pgbench counted. Not so when it had to be killed.
    """

    transactions: tuple[Transaction, ...]
    report: PgbenchReport
    is_complete: bool


def parse_log(text: str, kinds: Sequence[str]) -> list[Transaction]:
    """Read pgbench's log (its manual, "Per-Transaction Logging").

    A line is ``client number time script seconds microseconds [lag]``, times in microseconds; the time of one that
    was not acknowledged is a word. A last line without an end was cut off and is left out.

    Raises:
        ValueError: a line is not of that form.
    """
    whole = text[: text.rfind("\n") + 1]
    return [_parse_line(line, kinds) for line in whole.splitlines()]


def read_logs(paths: Iterable[Path], kinds: Sequence[str]) -> tuple[Transaction, ...]:
    """Read the files of one run, one for each of pgbench's threads, in the order in which transactions ended."""
    found = [transaction for path in paths for transaction in parse_log(path.read_text(), kinds)]
    return tuple(sorted(found, key=lambda transaction: transaction.at))


def _parse_line(line: str, kinds: Sequence[str]) -> Transaction:
    fields = line.split()
    client, number, took, script, seconds, microseconds = fields[:6]
    kind = kinds[int(script)]
    at = int(seconds) + int(microseconds) / 1e6
    if not took.isdecimal():
        outcome = Outcome.SKIPPED if took == "skipped" else Outcome.FAILED
        return Transaction(int(client), int(number), kind, at, outcome=outcome)
    lag_s = int(fields[6]) / 1e6 if len(fields) > 6 else 0.0
    return Transaction(int(client), int(number), kind, at, int(took) / 1e6, lag_s)


_PROGRESS = re.compile(
    r"progress: (?P<elapsed>[\d.]+) s, (?P<tps>[\d.]+) tps, lat (?P<latency>[\d.]+|NaN) ms"
    r"(?: stddev (?:[\d.]+|NaN))?(?:, (?P<failed>\d+) failed)?"
)
# Two threads may write at once: a line may hold the beginnings of two messages, so the prefix is not asked for.
_ABORTED = re.compile(r"client (?P<client>\d+) (?:script \d+ )?aborted (?P<why>.*)")


def parse_progress(errors: str) -> tuple[Progress, ...]:
    """Find the progress lines in pgbench's error output."""
    return tuple(
        Progress(
            elapsed_s=float(found["elapsed"]),
            tps=float(found["tps"]),
            latency_s=0.0 if found["latency"] == "NaN" else float(found["latency"]) / 1000,
            failed=int(found["failed"] or 0),
        )
        for found in _PROGRESS.finditer(errors)
    )


def parse_report(output: str, errors: str) -> PgbenchReport:
    """Read pgbench's summary and the messages of clients that gave up."""
    processed = _number(r"transactions actually processed: (\d+)", output)
    aborted = {int(found["client"]): found for found in _ABORTED.finditer(errors)}
    # Only an ERROR leaves the connection as it was. FATAL, "perhaps the backend died" and the system's errors do not.
    lost = [client for client, found in aborted.items() if "ERROR:" not in found["why"]]
    return PgbenchReport(
        processed=None if processed is None else int(processed),
        failed=int(_number(r"number of failed transactions: (\d+)", output) or 0),
        tps=_number(r"(?m)^tps = ([\d.]+)", output) or 0.0,
        connecting_s=(_number(r"initial connection time = ([\d.]+) ms", output) or 0.0) / 1000,
        aborted_clients=tuple(sorted(aborted)),
        lost_clients=tuple(sorted(lost)),
        messages=tuple(aborted[client][0].strip() for client in sorted(aborted)),
    )


def _number(pattern: str, text: str) -> float | None:
    found = re.search(pattern, text)
    return float(found[1]) if found else None


# --------------------------------------------------------------------------------------------- what it means


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time, seconds since 1970; its end is not part of it."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.begin

    def __contains__(self, at: float) -> bool:
        return self.begin <= at < self.end


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch without an answer: when it began, seconds since 1970, and how long it was."""

    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of times in seconds, by nearest rank: each is one of the values measured."""

    median_s: float
    p95_s: float
    p99_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class WindowFigures:
    """A load in one window.

    Attributes:
        transactions: acknowledged in it.
        failed: rolled back by the server in it.
        latency: what a user waits: from when the transaction was due. None = there was no transaction.
        service: what the server takes: from when it was sent.
        longest_gap: see `longest_gap`.
    """

    window: Window
    transactions: int
    failed: int
    tps: float
    latency: Percentiles | None
    service: Percentiles | None
    longest_gap: Gap


def window_figures(transactions: Iterable[Transaction], window: Window) -> WindowFigures:
    """Sum up what ended in a window that lies within the run."""
    transactions = list(transactions)
    inside = [transaction for transaction in transactions if transaction.at in window]
    answered = [transaction for transaction in inside if transaction.outcome is Outcome.ACKNOWLEDGED]
    return WindowFigures(
        window=window,
        transactions=len(answered),
        failed=sum(1 for transaction in inside if transaction.outcome is Outcome.FAILED),
        tps=len(answered) / window.seconds,
        latency=percentiles([transaction.latency_s for transaction in answered]),
        service=percentiles([transaction.service_s for transaction in answered]),
        longest_gap=longest_gap(commit_times(transactions), window),
    )


def commit_times(transactions: Iterable[Transaction]) -> list[float]:
    """When transactions were acknowledged, in order."""
    return sorted(one.at for one in transactions if one.outcome is Outcome.ACKNOWLEDGED)


def tps_by_second(transactions: Iterable[Transaction], window: Window) -> tuple[int, ...]:
    """How many were acknowledged in each second from the window's begin; a last part of a second is left out."""
    seconds = Counter(math.floor(at - window.begin) for at in commit_times(transactions))
    return tuple(seconds[second] for second in range(math.floor(window.seconds)))


def percentiles(values: Sequence[float]) -> Percentiles | None:
    """Sum up values; None if there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return Percentiles(percentile(ordered, 50), percentile(ordered, 95), percentile(ordered, 99), ordered[-1])


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the values that at least `percent` of them do not exceed; they are in ascending order."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def gaps(times: Sequence[float], window: Window) -> list[Gap]:
    """The stretches between consecutive answers that overlap the window, whole also where they reach out of it.

    Where nothing comes before (or after), the window's begin (or end) takes the place of an answer. So the window
    must lie within the time in which answers were asked for.

    Args:
        times: of answers, ascending.
    """
    first = max(0, bisect_right(times, window.begin) - 1)
    last = bisect_left(times, window.end)
    marks = list(times[first : last + 1])
    if not marks or marks[0] > window.begin:
        marks.insert(0, window.begin)
    if marks[-1] < window.end:
        marks.append(window.end)
    return [Gap(begin, end - begin) for begin, end in pairwise(marks)]


def longest_gap(times: Sequence[float], window: Window) -> Gap:
    """The longest of `gaps`: what a client saw of an interruption."""
    return max(gaps(times, window), key=lambda gap: gap.seconds)


def _run(words: Sequence[str | Path], *, directory: Path | None = None, timeout_s: float) -> str:
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


def _quoted(value: str) -> str:
    """As libpq wants a value in a connection string."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
