"""OrderEntry: order processing by many users, after the public description of SwingBench's workload of that name.

The SQL beside this file is our own: ``schema.sql`` (tables), ``functions.sql`` (a function per transaction),
``data.sql`` (rows, keys, indexes) and ``analyze.sql``. Tables are in the schema ``oe``.

Every transaction, also one that only looks, writes one row into ``oe.ledger`` as part of itself, with the run, the
client and the number that the client counts up. pgbench counts its transactions in the same way, so each line of
its log names the row that must be there (`ldoms.bench.ledger`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ldoms.bench.pgbench import LoadOptions, LoadRun, Script, start_load
from ldoms.bench.server import Server, query, run_psql
from ldoms.model.errors import HostError

_SQL = Path(__file__).parent
_MOST_SEED = 2_000_000_000
_METADATA = "select name, value from oe.orderentry_metadata"


class Kind(StrEnum):
    """A transaction, by SwingBench's short name."""

    NCR = "NCR"
    """Customer registration."""
    UCD = "UCD"
    """Update customer details."""
    BP = "BP"
    """Browse products."""
    OP = "OP"
    """Order products."""
    PO = "PO"
    """Process orders."""
    BO = "BO"
    """Browse orders, and change one."""


FUNCTIONS: Mapping[Kind, str] = {
    Kind.NCR: "register_customer",
    Kind.UCD: "update_customer",
    Kind.BP: "browse_products",
    Kind.OP: "order_products",
    Kind.PO: "process_order",
    Kind.BO: "browse_orders",
}
"""Of the schema ``oe``; all take (run, client, seq, customer, warehouse, seed)."""

WEIGHTS: Mapping[Kind, int] = {Kind.NCR: 15, Kind.UCD: 10, Kind.BP: 50, Kind.OP: 40, Kind.PO: 5, Kind.BO: 5}
"""SwingBench's, of its configuration with server-side functions. They are shares of 125, not of 100."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the database is; products are always 1,000.

    SwingBench has 1,000 warehouses. Each adds 1,000 rows of stock, which is most of the loading time of a small
    database, so here they are fewer. Customers bring 1.5 orders each.

    Attributes:
        customers: 5,000 with 100 warehouses are 15 MB, 20,000 are 33 MB, 2,000 with 50 are 8 MB.
    """

    customers: int = 5_000
    warehouses: int = 100


def install(server: Server, scale: Scale, *, prefix: Sequence[str] = (), timeout_s: float = 300.0) -> None:
    """Create and fill the schema ``oe`` in the server's database; one that is there is replaced.

    All or nothing: rows come in one transaction.

    Raises:
        HostError: as `ldoms.bench.server.run_psql`.
    """
    words = [f"--set={name}={value}" for name, value in _variables(scale).items()]
    words += ["--single-transaction", *(f"--file={_SQL / name}.sql" for name in ("schema", "functions", "data"))]
    run_psql(server, words, prefix=prefix, timeout_s=timeout_s)
    run_psql(server, [f"--file={_SQL / 'analyze.sql'}"], prefix=prefix, timeout_s=timeout_s)


def read_scale(server: Server, *, prefix: Sequence[str] = ()) -> Scale:
    """What the database on the server was loaded with.

    Raises:
        HostError: there is no OrderEntry in it, or the server cannot be reached.
    """
    rows = {name: int(value) for name, value in query(server, _METADATA, prefix=prefix)}
    try:
        return Scale(customers=rows["customers"], warehouses=rows["warehouses"])
    except KeyError as error:
        raise HostError(f"the database has no {error} in oe.orderentry_metadata", code="no-orderentry") from error


def scripts(weights: Mapping[Kind, int] = WEIGHTS) -> tuple[Script, ...]:
    """The transactions for pgbench; a kind without a weight is left out."""
    return tuple(
        Script(kind.value, _text(function), weights[kind]) for kind, function in FUNCTIONS.items() if weights.get(kind)
    )


def start(
    pgbench: Path,
    server: Server,
    scale: Scale,
    options: LoadOptions,
    directory: Path,
    *,
    run: int,
    weights: Mapping[Kind, int] = WEIGHTS,
    prefix: Sequence[str] = (),
) -> LoadRun:
    """Start the load on a server on which OrderEntry is installed.

    Args:
        directory: for this run alone; it is made.
        run: its number in the ledger; no other run on that database may have it.

    Raises:
        AlreadyExists, HostError: as `ldoms.bench.pgbench.start_load`.
    """
    variables = {"run": run, "seq": 0, **_variables(scale)}
    return start_load(pgbench, server, scripts(weights), options, directory, variables=variables, prefix=prefix)


def count_wrong_totals(server: Server, *, prefix: Sequence[str] = (), timeout_s: float = 120.0) -> int:
    """Orders whose total is not the sum of their items: none, as long as no transaction was torn.

    Raises:
        HostError: as `ldoms.bench.server.query`.
    """
    return int(query(server, "select oe.wrong_totals()", prefix=prefix, timeout_s=timeout_s)[0][0])


def _variables(scale: Scale) -> dict[str, int]:
    return {"customers": scale.customers, "warehouses": scale.warehouses}


def _text(function: str) -> str:
    # A variable of pgbench belongs to a client, not to a script: all six count the same `seq` on.
    return (
        "\\set seq :seq + 1\n"
        "\\set customer random(1, :customers)\n"
        "\\set warehouse random(1, :warehouses)\n"
        f"\\set seed random(1, {_MOST_SEED})\n"
        f"select oe.{function}(:run, :client_id, :seq, :customer, :warehouse, :seed);\n"
    )
