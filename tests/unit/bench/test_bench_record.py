"""A record of a run, written and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldoms.bench.record import Stretch, read_record, write_record
from ldoms.model.errors import RequestError
from records import plausible_record


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """With everything that a record can have."""
    record = plausible_record()
    assert read_record(write_record(record, tmp_path)) == record


def test_the_stretches_meet_at_the_migration() -> None:
    """From the beginning of the measurement to its end, without a gap."""
    record = plausible_record()
    before, during, after = (record.stretches[one] for one in Stretch)
    assert (before.begin, after.end) == (record.measured.begin, record.measured.end)
    assert (before.end, during.end) == (during.begin, after.begin)
    assert (during.begin, during.end) == (record.migration.started_at, record.migration.ended_at)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"id": 4}'])
def test_what_is_no_record_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    """By whoever asks for a report of it."""
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(RequestError, match="is not the record of a run") as caught:
        read_record(path)
    assert caught.value.code == "bad-record"


def test_a_record_that_is_not_there_is_missed(tmp_path: Path) -> None:
    """Told apart from one that cannot be read."""
    with pytest.raises(RequestError, match="no record of a run") as caught:
        read_record(tmp_path / "run.json")
    assert caught.value.code == "no-run"
