"""One run of a workload: started, watched line by line, ended by its time or by hand, and written down."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from ldoms.bench.log import LoadResult
from ldoms.bench.pgbench import LoadOptions, LoadRun, read_load
from ldoms.bench.record import CheckItem
from ldoms.bench.server import Server, query
from ldoms.bench.workloads.live import LiveFigures, Tail, formatted, header
from ldoms.bench.workloads.results_xml import results_xml
from ldoms.bench.workloads.stored import StoredWorkload
from ldoms.bench.workloads.summary import (
    RunSummary,
    busiest_minute,
    by_kind,
    by_second,
    counted,
    counted_window,
    responses,
)
from ldoms.bench.workloads.thinking import ThinkTimes
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import HostError, RequestError

RESULTS_NAME = "results.json"
XML_NAME = "results.xml"
LOAD_NAME = "load"
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a workload is run.

    Attributes:
        seconds: that count, after the warm-up.
        settings: what the user has said, for the record.
    """

    users: int
    seconds: int
    warm_up_s: int
    rate_per_s: float
    seed: int
    threads: int
    weights: dict[str, int]
    think: ThinkTimes
    settings: dict[str, str]


class GeneratorCost:
    """CPU time of pgbench, and of this process beside it."""

    def __init__(self, pid: Callable[[], int]) -> None:
        self._pid = pid
        self._process: psutil.Process | None = None
        self._first: tuple[float, float, float] | None = None
        self._last: tuple[float, float, float] | None = None

    def sample(self) -> None:
        """Look; once a second is enough."""
        try:
            if self._process is None:
                pid = self._pid()
                if not pid:
                    return
                self._process = psutil.Process(pid)
            times = self._process.cpu_times()
        except psutil.Error:
            return
        self._last = (time.monotonic(), times.user + times.system, time.process_time())
        self._first = self._first or self._last

    def percent(self) -> dict[str, float]:
        """Of one core, between the first and the last look."""
        if self._first is None or self._last is None or self._last[0] <= self._first[0]:
            return {}
        elapsed, pgbench, monitor = (after - before for before, after in zip(self._first, self._last, strict=True))
        return {"pgbench": round(100 * pgbench / elapsed, 2), "monitor": round(100 * monitor / elapsed, 2)}


def run_workload(
    workload: StoredWorkload,
    pgbench: Path,
    server: Server,
    options: RunOptions,
    directory: Path,
    say: Callable[[str], None],
) -> tuple[RunSummary, LoadResult]:
    """Run, and say a line each second. An interrupt ends it early, and its results are kept.

    Args:
        directory: of this run alone; it gets ``results.json``, ``results.xml`` and the clients' logs.

    Raises:
        RequestError, AlreadyExists, HostError: it cannot begin.
    """
    scale = workload.read_scale(server)
    version = query(server, "show server_version")[0][0]
    run = workload.next_run(server)
    load = workload.start(
        pgbench,
        server,
        LoadOptions(
            clients=options.users,
            threads=options.threads,
            seconds=options.warm_up_s + options.seconds,
            rate_per_s=options.rate_per_s,
            seed=options.seed,
        ),
        directory / LOAD_NAME,
        run=run,
        weights=options.weights,
        think=options.think,
    )
    say(f"Results will be written to {directory / XML_NAME}")
    say("Ctrl-C ends the run.\n")
    cost = GeneratorCost(lambda: load.pid)
    interrupted = False
    try:
        with _until_interrupted() as stopped:
            _watch(load, options, cost, say)
        interrupted = stopped()
    finally:
        _stop(load)
    try:
        result = load.result()
    except HostError:
        shutil.rmtree(directory / LOAD_NAME, ignore_errors=True)
        with contextlib.suppress(OSError):  # it may hold something else
            directory.rmdir()
        raise
    window = counted_window(result.transactions, options.warm_up_s)
    acknowledged, failed = counted(result, window)
    seconds = by_second(result.transactions, window)
    summary = RunSummary(
        workload=workload.name,
        title=workload.title,
        server=server.place.strip(),
        server_version=version,
        settings=options.settings,
        scale=scale,
        run=run,
        began_at=round(window.begin, 6),
        ended_at=round(window.end, 6),
        users=options.users,
        think_ms=asdict(options.think),
        transactions=len(acknowledged),
        failed=failed,
        tps=round(len(acknowledged) / window.seconds, 3) if window.seconds else 0.0,
        max_tpm=busiest_minute(acknowledged),
        connections_lost=len(result.report.lost_clients),
        clients_aborted=len(result.report.aborted_clients),
        messages=result.report.messages,
        is_complete=result.is_complete,
        interrupted=interrupted,
        generator_percent=cost.percent(),
        responses=responses(acknowledged),
        kinds=by_kind(result.transactions, window, workload.kinds, options.weights),
        seconds=seconds,
        script_kinds=load.kinds,
    )
    (directory / RESULTS_NAME).write_text(json.dumps(to_wire(summary), indent=1) + "\n")
    (directory / XML_NAME).write_bytes(results_xml(summary))
    return summary, result


def read_run(directory: Path) -> tuple[RunSummary, LoadResult]:
    """A run that has ended: its summary, and all that its clients noted.

    Raises:
        RequestError: there is none, code ``no-run``, or it is not one of ours, code ``bad-record``.
    """
    path = directory / RESULTS_NAME
    try:
        summary = from_wire(RunSummary, json.loads(path.read_text()))
        think = ThinkTimes(**summary.think_ms)
        result = read_load(directory / LOAD_NAME, summary.script_kinds, think.pause_s if think.pauses else None)
    except FileNotFoundError as error:
        raise RequestError(f"there is no run of a workload in {directory}", code="no-run") from error
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise RequestError(f"{path} is not the result of a workload: {error}", code="bad-record") from error
    return summary, result


def printed_checks(items: tuple[CheckItem, ...]) -> list[str]:
    """What holds and what does not, as lines."""
    return [f"{'ok    ' if item.holds else 'WRONG '} {item.name:<30} {item.detail}" for item in items]


@contextlib.contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    """An interrupt ends what is inside, and is told afterwards."""
    came = False
    try:
        yield lambda: came
    except KeyboardInterrupt:
        came = True


def _stop(load: LoadRun) -> None:
    """End it with its log; whoever interrupts that, too, gets its end at once."""
    try:
        load.stop()
    except KeyboardInterrupt:
        load.kill()
        raise


def _watch(load: LoadRun, options: RunOptions, cost: GeneratorCost, say: Callable[[str], None]) -> None:
    tail = Tail(load.kinds, load.pause_s)
    figures = LiveFigures(load.kinds, options.users, has_pauses=options.think.pauses)
    say(header(load.kinds))
    while load.is_running:
        for report in tail.reports(load.errors_path):
            cost.sample()
            news = tail.transactions(load.logs())
            say(formatted(figures.line(report, news, tail.aborted), time.strftime("%H:%M:%S")))
        time.sleep(_POLL_S)
