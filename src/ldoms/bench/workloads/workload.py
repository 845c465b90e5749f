"""What a workload is: kinds of transactions, data to load, a load to start, and what must hold afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ldoms.bench.log import LoadResult
from ldoms.bench.pgbench import LoadOptions, LoadRun
from ldoms.bench.record import CheckItem
from ldoms.bench.server import Server
from ldoms.bench.workloads.thinking import ThinkTimes


@dataclass(frozen=True, slots=True)
class KindDescription:
    """A kind of transaction.

    Attributes:
        short: its name in columns and options, such as ``NCR``.
        weight: its share, in proportion to the others that are on.
        is_on: whether it is part of the mix if nobody says otherwise.
        function: of the workload's schema, which does it.
    """

    short: str
    title: str
    weight: int
    is_on: bool = True
    function: str = ""


class Workload(Protocol):
    """A workload, which any PostgreSQL server from version 15 on can be given."""

    @property
    def name(self) -> str:
        """For commands, such as ``orderentry``."""

    @property
    def title(self) -> str:
        """For people."""

    @property
    def kinds(self) -> tuple[KindDescription, ...]:
        """Its transactions, in the order of columns."""

    @property
    def scales(self) -> Mapping[str, int]:
        """Sizes of the data by name, with their defaults."""

    def install(self, server: Server, scale: Mapping[str, int], *, prefix: Sequence[str] = ()) -> None:
        """Create and fill the workload's schema; one that is there is replaced. All or nothing.

        Raises:
            RequestError: the scale is not one of this workload, or the server is too old.
            HostError: as `ldoms.bench.server.run_psql`.
        """

    def read_scale(self, server: Server, *, prefix: Sequence[str] = ()) -> dict[str, int]:
        """What the database was loaded with.

        Raises:
            RequestError: it has not been loaded, code ``no-workload-data``.
            HostError: as `ldoms.bench.server.run_psql`.
        """

    def next_run(self, server: Server, *, prefix: Sequence[str] = ()) -> int:
        """A number for the ledger that no other run has; numbers up to 1,000 are never given out.

        Raises:
            HostError: as `ldoms.bench.server.run_psql`.
        """

    def start(
        self,
        pgbench: Path,
        server: Server,
        options: LoadOptions,
        directory: Path,
        *,
        run: int,
        weights: Mapping[str, int] | None = None,
        think: ThinkTimes | None = None,
        prefix: Sequence[str] = (),
    ) -> LoadRun:
        """Start the load on a server that has the data.

        Args:
            directory: for this run alone; it is made.
            run: its number in the ledger; no other run on that database may have it.
            weights: by short name; a kind without one is left out. None = the mix as it is by default.

        Raises:
            RequestError: the data is not there, or the weights are no mix.
            AlreadyExists, HostError: as `ldoms.bench.pgbench.start_load`.
        """

    def check(
        self, server: Server, run: int | None = None, result: LoadResult | None = None, *, prefix: Sequence[str] = ()
    ) -> tuple[CheckItem, ...]:
        """What must hold of the data, while no load runs.

        Args:
            run: in whose ledger the transactions that were acknowledged in `result` must be found, too.

        Raises:
            RequestError: the data is not there.
            HostError: as `ldoms.bench.server.run_psql`.
        """


def default_weights(workload: Workload) -> dict[str, int]:
    """The mix as it is if nobody says otherwise."""
    return {kind.short: kind.weight for kind in workload.kinds if kind.is_on}
