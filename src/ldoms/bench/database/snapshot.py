"""What a PostgreSQL server has counted so far: all of it, at one moment.

The rows are kept as the server gives them, with the names of its views and columns, so that what they mean in which
version is decided where they are read (`ldoms.bench.database.interval`), on values.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldoms.bench.server import Server, run_psql
from ldoms.model.errors import HostError, RequestError

OLDEST_VERSION = 150000
"""PostgreSQL 15, as ``server_version_num`` says it: the first with all counters in shared memory."""

_SCRIPT = Path(__file__).with_name("snapshot.sql")
_LIMIT_S = 60.0
_STATEMENT_FAILED = 3
"""psql's exit status when a statement of a script has failed."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The counters of a server at one moment.

    Attributes:
        taken_at: seconds since 1970 by the clock of the machine that asked, when the connection stood.
        took_s: from the start of psql to its end.
        version: ``server_version_num``, such as 150008.
        facts: of the server: which one it is, what it can, what the role may.
        sections: rows by section (see ``snapshot.sql``); a section that could not be asked for is missing.
    """

    taken_at: float
    took_s: float
    version: int
    facts: Row
    sections: Mapping[str, tuple[Row, ...]]

    def rows(self, section: str) -> tuple[Row, ...]:
        """Of a section; none if it is missing."""
        return self.sections.get(section, ())


def take_snapshot(server: Server, *, prefix: Sequence[str] = ()) -> Snapshot:
    """Read all counters of a server; it takes one connection and one transaction, and changes nothing.

    What the role may not see, or what the server has no extension for, is missing.

    Raises:
        HostError: the server cannot be reached (code ``no-server``), or does not answer as it should.
        RequestError: it is older than PostgreSQL 15 (``old-server``).
    """
    words = ["--no-align", "--tuples-only", "--field-separator=|", f"--file={_SCRIPT}"]
    begun = time.monotonic()
    try:
        output = run_psql(server, words, prefix=prefix, timeout_s=_LIMIT_S)
    except HostError as error:
        raise _explained(error) from error
    return parse_snapshot(output, time.monotonic() - begun)


def parse_snapshot(output: str, took_s: float) -> Snapshot:
    """Make a snapshot of what ``snapshot.sql`` prints.

    Raises:
        HostError: this is not what it prints.
        RequestError: the server is too old.
    """
    sections: dict[str, list[Row]] = {}
    try:
        for line in filter(None, output.splitlines()):
            section, row = line.split("|", 1)
            sections.setdefault(section, []).append(json.loads(row))
        version = sections.pop("version")[0]["version"]
        taken_at = sections.pop("clock")[0]["taken_at"]
        _check_version(version)
        facts = sections.pop("facts")[0]
    except (ValueError, KeyError) as error:
        raise HostError(f"the server's counters cannot be read: {error}", code="bad-snapshot") from error
    rows = {section: tuple(found) for section, found in sections.items()}
    return Snapshot(float(taken_at), took_s, version, facts, rows)


def _check_version(version: int) -> None:
    if version < OLDEST_VERSION:
        have, want = _name(version), OLDEST_VERSION // 10000
        raise RequestError(
            f"the server is PostgreSQL {have}: the report needs PostgreSQL {want} or later", code="old-server"
        )


def _name(version: int) -> str:
    return f"{version // 10000}.{version % 10000}"


def _explained(error: HostError) -> HostError:
    if error.details.get("status") != _STATEMENT_FAILED:
        return error
    said = " ".join((error.message.partition("ERROR:")[2] or error.message).split())
    return HostError(f"the server does not give its counters: {said}", code="bad-snapshot")
