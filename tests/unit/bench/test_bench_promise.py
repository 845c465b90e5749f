"""What an outside view is held against."""

from __future__ import annotations

import pytest

from ldoms.bench.figures import Gap
from ldoms.bench.promise import PROMISE_S, is_kept, seen_as
from records import plausible_record


@pytest.mark.parametrize(("outside_s", "kept"), [(0.3, True), (0.409, True), (0.411, False)])
def test_an_outside_view_may_be_a_fifth_and_50_ms_longer(outside_s: float, *, kept: bool) -> None:
    """And not more."""
    assert is_kept(outside_s, PROMISE_S) == kept


def test_a_run_has_the_report_and_the_view_from_outside() -> None:
    """Side by side."""
    report = plausible_record().migration
    assert report is not None
    run = seen_as(report, 3, Gap(report.stopped_at - 0.1, 0.25), 0.02)
    assert run.gap_after_stop_s == pytest.approx(-0.1)
    assert (run.run, run.outside_s, run.usual_s) == (3, 0.25, 0.02)
    assert (run.suspended_s, run.throttle_percent) == (report.stop_resume_s, report.throttle_percent)
