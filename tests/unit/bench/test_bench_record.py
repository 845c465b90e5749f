"""A record of a run, written and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldoms.bench.figures import Window
from ldoms.bench.record import (
    CheckItem,
    Conditions,
    DatabaseReport,
    LoadRecord,
    RunRecord,
    Series,
    Stretch,
    Table,
    read_record,
    write_record,
)
from ldoms.model.errors import RequestError
from ldoms.model.migration import MigrationReport, Outcome


def _record() -> RunRecord:
    return RunRecord(
        id="0c6f",
        measured=Window(100.0, 160.0),
        conditions=Conditions("Xeon", 2, 2048, "10.0.2", "tcg", 0.4, {"kernel": "6.1"}),
        migration=MigrationReport(
            id="m",
            domain="ldg1",
            target_name="ldg1",
            uuid="u",
            source="t4-1",
            target="t4-2",
            user="ldmadmin",
            active=True,
            outcome=Outcome.DONE,
            started_at=120.0,
            ended_at=123.5,
        ),
        suspension_ms={"qemu": 36.0, "stop_resume": 54.0, "client": None},
        load=LoadRecord("orderentry", {"users": "50"}),
        series=(Series("guest-cpu", "cpu0 usr", "%", (101.0, 102.0), (40.5, 41.0)),),
        probes={},
        checks=(CheckItem("order totals", True, "0 of 100 are wrong"),),
        database=DatabaseReport(
            (("Database", "bench"),),
            (Table("Load Profile", ("", "Per Second"), (("Block changes", 554.0), ("Logons", None))),),
            {Stretch.BEFORE: 554.0},
        ),
    )


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    record = _record()
    assert read_record(write_record(record, tmp_path)) == record


def test_the_stretches_meet_at_the_migration() -> None:
    stretches = _record().stretches
    assert [stretches[one] for one in Stretch] == [Window(100, 120), Window(120, 123.5), Window(123.5, 160)]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"id": 4}'])
def test_what_is_no_record_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(RequestError, match="is not the record of a run") as caught:
        read_record(path)
    assert caught.value.code == "bad-record"


def test_a_record_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no record of a run"):
        read_record(tmp_path / "run.json")
