"""The page of a run: its record as one HTML file that needs nothing else, to be read, printed and sent on."""

from __future__ import annotations

from pathlib import Path

from ldoms.bench.record import RunRecord
from ldoms.model.errors import HostError

PAGE_NAME = "report.html"


def write_page(record: RunRecord, directory: Path) -> Path:
    """Write the page of a record into the directory of its run, beside the record itself; returns the file.

    Raises:
        HostError: it cannot be written.
    """
    from ldoms.bench.page.render import render  # what draws takes a second to import

    path = directory / PAGE_NAME
    try:
        # A name that is no valid text (half of a surrogate pair) must not keep the report from being written.
        path.write_text(render(record), encoding="utf-8", errors="replace")
    except OSError as error:
        raise HostError(f"the report cannot be written to {path}: {error.strerror}", code="no-report") from error
    return path
