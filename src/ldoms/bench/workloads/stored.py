"""A workload whose transactions are functions of one schema in the database: all of ours are.

Beside each workload's own module lie its ``schema.sql`` (tables), ``functions.sql`` (a function for each
transaction), ``data.sql`` (rows, keys, indexes) and ``analyze.sql``. A transaction is one statement and one round trip.

Every transaction of a workload with a ledger, also one that only looks, writes one row into ``ledger`` as part of
itself, with the run, the client and the number that the client counts up. pgbench counts its transactions in the same
way, so each line of its log names the row that must be there (`ldoms.bench.ledger`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ldoms.bench.ledger import LedgerComparison, check_ledger
from ldoms.bench.log import LoadResult
from ldoms.bench.pgbench import LoadOptions, LoadRun, Script, start_load
from ldoms.bench.record import CheckItem
from ldoms.bench.server import Server, query, run_psql
from ldoms.bench.workloads.thinking import ThinkTimes
from ldoms.bench.workloads.workload import KindDescription, default_weights
from ldoms.model.errors import HostError, RequestError

OLDEST_SERVER = 15
VERSION = 1
"""Of schemas and functions: what another version has loaded must be loaded again."""
LOAD_S = 3600.0
CHECK_S = 3600.0
_MOST_SEED = 2_000_000_000


@dataclass(frozen=True, slots=True)
class DataCheck:
    """Something that must hold of the data: a query that counts what does not.

    Attributes:
        sql: gives one row: how many do not hold, of how many, and, if it likes, words on those that do not.
        what: of what they are, for the sentence.
    """

    name: str
    what: str
    sql: str


@dataclass(frozen=True, slots=True)
class StoredWorkload:
    """See the module, and `ldoms.bench.workloads.workload.Workload`.

    Attributes:
        schema: of the database, with tables and functions.
        most: sizes above which the data would not be what its functions expect.
        choices: variables of the scripts, each with the size up to which it is chosen, from 1.
        arguments: what the functions take, as variables of the scripts.
        metadata: the table with what was loaded.
        has_ledger: False: transactions change nothing at all.
    """

    name: str
    title: str
    schema: str
    directory: Path
    kinds: tuple[KindDescription, ...]
    scales: Mapping[str, int]
    checks: tuple[DataCheck, ...]
    arguments: str
    metadata: str
    choices: Mapping[str, str] = field(default_factory=dict)
    most: Mapping[str, int] = field(default_factory=dict)
    has_ledger: bool = True

    def install(self, server: Server, scale: Mapping[str, int] | None = None, *, prefix: Sequence[str] = ()) -> None:
        """As `Workload.install`; sizes that are not given are the defaults."""
        sizes = self.sizes(scale or {})
        version = int(query(server, "show server_version_num", prefix=prefix)[0][0]) // 10_000
        if version < OLDEST_SERVER:
            raise RequestError(
                f"the server is PostgreSQL {version}: {self.title} needs {OLDEST_SERVER} or later", code="old-server"
            )
        words = [f"--set={name}={value}" for name, value in sizes.items()]
        words += [f"--set=version={VERSION}", "--single-transaction"]
        words += [f"--file={self.directory / name}.sql" for name in ("schema", "functions", "data")]
        run_psql(server, words, prefix=prefix, timeout_s=LOAD_S)
        run_psql(server, [f"--file={self.directory / 'analyze.sql'}"], prefix=prefix, timeout_s=LOAD_S)

    def size_mib(self, server: Server, *, prefix: Sequence[str] = ()) -> float:
        """What its schema takes in the database, with indexes.

        Raises:
            HostError: as `ldoms.bench.server.run_psql`.
        """
        tables = f"relnamespace = '{self.schema}'::regnamespace and relkind = 'r'"
        sql = f"select coalesce(sum(pg_total_relation_size(oid)), 0) from pg_class where {tables}"  # noqa: S608
        return int(query(server, sql, prefix=prefix)[0][0]) / (1 << 20)

    def sizes(self, scale: Mapping[str, int]) -> dict[str, int]:
        """All sizes of the data, where `scale` may name some of them only.

        Raises:
            RequestError: one is not of this workload, or out of its range, code ``bad-scale``.
        """
        for name, value in scale.items():
            if name not in self.scales:
                raise RequestError(
                    f"{self.title} has no size '{name}', only {', '.join(self.scales)}", code="bad-scale"
                )
            most = self.most.get(name, 1_000_000_000)
            if not 1 <= value <= most:
                raise RequestError(
                    f"{name} of {self.title} must be from 1 to {most:,}, not {value:,}", code="bad-scale"
                )
        return {**self.scales, **scale}

    def scaled(self, factor: float) -> dict[str, int]:
        """The default sizes times a factor, within their ranges."""
        return {
            name: min(max(1, round(value * factor)), self.most.get(name, 1_000_000_000))
            for name, value in self.scales.items()
        }

    def read_scale(self, server: Server, *, prefix: Sequence[str] = ()) -> dict[str, int]:
        """As `Workload.read_scale`."""
        found = self._read_metadata(server, prefix=prefix)
        return {name: found[name] for name in self.scales}

    def next_run(self, server: Server, *, prefix: Sequence[str] = ()) -> int:
        """As `Workload.next_run`; without a ledger 0."""
        if not self.has_ledger:
            return 0
        return int(query(server, f"select nextval('{self.schema}.runs_seq')", prefix=prefix)[0][0])

    def scripts(self, weights: Mapping[str, int] | None = None, think: ThinkTimes | None = None) -> tuple[Script, ...]:
        """The transactions for pgbench; a kind without a weight is left out.

        Raises:
            RequestError: a weight is of no kind, or there is nothing left, code ``bad-mix``.
        """
        chosen = default_weights(self) if weights is None else weights
        unknown = sorted(chosen.keys() - {kind.short for kind in self.kinds})
        if unknown:
            raise RequestError(
                f"{self.title} has no transaction {', '.join(unknown)}, only "
                f"{', '.join(kind.short for kind in self.kinds)}",
                code="bad-mix",
            )
        made = tuple(
            Script(kind.short, self._script(kind, think or ThinkTimes()), chosen[kind.short])
            for kind in self.kinds
            if chosen.get(kind.short)
        )
        if not made:
            raise RequestError(f"no transaction of {self.title} is on: there is nothing to run", code="bad-mix")
        return made

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
        """As `Workload.start`."""
        scripts = self.scripts(weights, think)
        scale = self.read_scale(server, prefix=prefix)
        variables = {"run": run, "seq": 0, **{name: scale[name] for name in dict.fromkeys(self.choices.values())}}
        pause = think.pause_s if think is not None and think.pauses else None
        return start_load(
            pgbench, server, scripts, options, directory, variables=variables, pause_s=pause, prefix=prefix
        )

    def check(
        self, server: Server, run: int | None = None, result: LoadResult | None = None, *, prefix: Sequence[str] = ()
    ) -> tuple[CheckItem, ...]:
        """As `Workload.check`."""
        self._read_metadata(server, prefix=prefix)
        items = [self._check_data(server, check, prefix) for check in self.checks]
        if self.has_ledger and run is not None and result is not None:
            found = check_ledger(server, run, result, table=f"{self.schema}.ledger", prefix=prefix)
            items.append(_ledger_item(found))
        return tuple(items)

    def _check_data(self, server: Server, check: DataCheck, prefix: Sequence[str]) -> CheckItem:
        try:
            wrong, all_of_them, *words = query(server, check.sql, prefix=prefix, timeout_s=CHECK_S)[0]
        except HostError as error:
            if error.code != "program-failed":
                raise
            # A page that cannot be read, or a function that does not find what must be there: that is an answer, too.
            return CheckItem(check.name, False, f"the server could not read it: {error.message}")
        if int(wrong):
            detail = f"{int(wrong):,} of {int(all_of_them):,} {check.what} are wrong"
            return CheckItem(check.name, False, ": ".join([detail, *filter(None, words)]))
        return CheckItem(check.name, True, f"{int(all_of_them):,} {check.what}")

    def _read_metadata(self, server: Server, *, prefix: Sequence[str]) -> dict[str, int]:
        missing = RequestError(
            f"database '{server.database}' has no {self.title}: load it with 'ldoms-bench workload load {self.name}'",
            code="no-workload-data",
        )
        if not query(server, f"select to_regclass('{self.metadata}')", prefix=prefix)[0][0]:
            raise missing
        found = {
            name: int(value)
            for name, value in query(server, f"select name, value from {self.metadata}", prefix=prefix)  # noqa: S608
        }
        if found.get("version") != VERSION or any(name not in found for name in self.scales):
            raise RequestError(
                f"{self.title} in database '{server.database}' was loaded by another version of this program: load it "
                f"again with 'ldoms-bench workload load {self.name}'",
                code="no-workload-data",
            )
        return found

    def _script(self, kind: KindDescription, think: ThinkTimes) -> str:
        # A variable of pgbench belongs to a client, not to a script: all of them count the same `seq` on.
        lines = ["\\set seq :seq + 1\n", think.script]
        lines += [f"\\set {name} random(1, :{size})\n" for name, size in self.choices.items()]
        lines += [
            f"\\set seed random(1, {_MOST_SEED})\n",
            f"\\set think_min {think.min_ms}\n\\set think_max {think.max_ms}\n",
            f"select {self.schema}.{kind.function}({self.arguments});\n",
        ]
        return "".join(lines)


def _ledger_item(found: LedgerComparison) -> CheckItem:
    detail = (
        f"{found.acknowledged:,} transactions acknowledged, {found.missing} missing, {found.doubled} doubled, "
        f"{found.invented} invented, {found.in_doubt} in doubt"
    )
    if not found.log_is_complete:
        detail += "; the end of the clients' log is lost"
    for fault, entries in found.examples.items():
        detail += f"; {fault}: " + ", ".join(f"{one.kind} {one.seq} of client {one.client}" for one in entries[:3])
    return CheckItem("clients' ledger", found.is_clean, detail)
