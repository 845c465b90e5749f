"""The load on a domain while it moves: a workload of ours on its database, or a command of the user's own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ldoms.bench.figures import Window
from ldoms.bench.log import LoadResult, Transaction
from ldoms.bench.pgbench import LoadOptions, LoadRun
from ldoms.bench.record import CheckItem, LoadRecord, Stretch
from ldoms.bench.server import Server
from ldoms.bench.workloads import ThinkTimes, Workload, load_record
from ldoms.model.errors import HostError

_END_S = 15.0


class Load(Protocol):
    """A load that can be started once, and stopped."""

    @property
    def title(self) -> str:
        """What it is, for people."""

    def start(self, directory: Path, seconds: float) -> None:
        """Start it; it ends by itself after so long at the latest.

        Raises:
            LdomsError: it cannot be started.
        """

    def require_running(self) -> None:
        """Make sure that it goes on.

        Raises:
            HostError: it has ended by itself; the message has its own words.
        """

    def stop(self) -> None:
        """End it, if it runs, and keep what it has written. May be repeated."""

    @property
    def transactions(self) -> tuple[Transaction, ...]:
        """What its clients were told, once it has been stopped; empty where nothing is known of them."""

    def record(self, stretches: Mapping[Stretch, Window]) -> LoadRecord:
        """What it did, once it has been stopped."""

    def check(self) -> tuple[CheckItem, ...]:
        """What must hold of the data, once it has been stopped."""


@dataclass(slots=True)
class WorkloadLoad:
    """A workload of ours, run by pgbench.

    Attributes:
        weights: by short name; None = the mix as it is by default.
        prefix: words in front of a command that run it where the clients are.
    """

    workload: Workload
    server: Server
    pgbench: Path
    options: LoadOptions
    weights: Mapping[str, int] | None = None
    think: ThinkTimes | None = None
    prefix: Sequence[str] = ()
    _run: LoadRun | None = None
    _number: int = 0
    _result: LoadResult | None = None

    @property
    def title(self) -> str:
        """See `Load`."""
        rate = f", {self.options.rate_per_s:g} transactions/s asked for" if self.options.rate_per_s else ""
        return f"{self.workload.title}, {self.options.clients} users{rate}"

    def start(self, directory: Path, seconds: float) -> None:
        """See `Load`."""
        self._number = self.workload.next_run(self.server, prefix=self.prefix)
        asked = self.options
        options = LoadOptions(asked.clients, asked.threads, round(seconds), asked.rate_per_s, asked.seed)
        self._run = self.workload.start(
            self.pgbench,
            self.server,
            options,
            directory,
            run=self._number,
            weights=self.weights,
            think=self.think,
            prefix=self.prefix,
        )

    def require_running(self) -> None:
        """See `Load`."""
        if self._run is not None and not self._run.is_running:
            self._run.result()  # says why, if it could not begin
            raise HostError("the load has ended before the measurement did", code="load-failed")

    def stop(self) -> None:
        """See `Load`."""
        if self._run is not None:
            self._run.stop()

    @property
    def result(self) -> LoadResult:
        """All that is known of it."""
        assert self._run is not None
        if self._result is None:
            self._result = self._run.result()
        return self._result

    @property
    def transactions(self) -> tuple[Transaction, ...]:
        """See `Load`."""
        return self.result.transactions

    def record(self, stretches: Mapping[Stretch, Window]) -> LoadRecord:
        """See `Load`."""
        settings = {"users": str(self.options.clients)}
        if self.options.rate_per_s:
            settings["rate"] = f"{self.options.rate_per_s:g}"
        settings |= {
            name: str(size) for name, size in self.workload.read_scale(self.server, prefix=self.prefix).items()
        }
        if self.weights is not None:
            settings["weights"] = " ".join(f"{kind}={weight}" for kind, weight in self.weights.items())
        return load_record(self.workload, settings, self.result, stretches)

    def check(self) -> tuple[CheckItem, ...]:
        """See `Load`."""
        return self.workload.check(self.server, self._number, self.result, prefix=self.prefix)


@dataclass(slots=True)
class CommandLoad:
    """A command line of the user's own, given to a shell; it is ended by SIGTERM.

    Attributes:
        may_end: that it ends by itself is no error, as that of a command that only starts something.
    """

    command: str
    prefix: Sequence[str] = ()
    may_end: bool = False
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _directory: Path = Path()

    @property
    def title(self) -> str:
        """See `Load`."""
        return self.command

    def start(self, directory: Path, seconds: float) -> None:
        """See `Load`; its output goes into the directory."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        words = [*self.prefix, "sh", "-c", self.command]
        try:
            with (directory / "load.out").open("wb") as output, (directory / "load.err").open("wb") as errors:
                self._child = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
                )
        except OSError as error:
            raise HostError(f"the load cannot be started: {error}", code="load-failed") from error

    def require_running(self) -> None:
        """See `Load`."""
        if self._child is None or self.may_end or (status := self._child.poll()) is None:
            return
        said = (self._directory / "load.err").read_text(errors="replace").strip().splitlines()
        raise HostError(
            f"the load '{self.command}' has ended before the measurement did, with status {status}"
            + (f": {said[-1]}" if said else ""),
            code="load-failed",
        )

    def stop(self) -> None:
        """See `Load`."""
        if self._child is None:
            return
        for number, limit_s in ((signal.SIGTERM, _END_S), (signal.SIGKILL, _END_S)):
            # Also what is left of it after its shell has ended.
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)
            if self._wait_group(limit_s):
                break
        self._child.wait()

    @property
    def transactions(self) -> tuple[Transaction, ...]:
        """See `Load`: nothing is known."""
        return ()

    def record(self, stretches: Mapping[Stretch, Window]) -> LoadRecord:
        """See `Load`."""
        return LoadRecord(name=self.command, settings={})

    def check(self) -> tuple[CheckItem, ...]:
        """See `Load`: nothing is known."""
        return ()

    def _wait_group(self, limit_s: float) -> bool:
        assert self._child is not None
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            self._child.poll()
            try:
                os.killpg(self._child.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.05)
        return False
