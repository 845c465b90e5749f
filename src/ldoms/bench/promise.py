"""``ldoms-bench promise``: is the suspension that was promised kept, as a client outside sees it?

A guest changes its memory faster than the link between the hosts carries it, and goes to and fro. A client asks it
all the time; what counts is the longest gap between two answers from the request to after the end, whatever it comes
from: the suspension, or that the guest was held back. Every run is kept.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ldoms.bench.conditions import conditions
from ldoms.bench.figures import Gap, Window, longest_gap
from ldoms.bench.probe import start_probe
from ldoms.bench.series import Unit, spread
from ldoms.bench.stage import SOURCE, TARGET, Stage, heading, say, stage
from ldoms.model.codec import to_wire
from ldoms.model.errors import HostError, LdomsError
from ldoms.model.migration import MigrationReport

LAB = "benchpromise"
GUEST, ADDRESS = "hot", "10.77.0.10"
MEMORY, FILL_MIB, SIZE_MIB, RATE_MIB_S = "192M", 8, 48, 400
LINK = "1gbit"
"""119 MiB/s: less than a third of what the guest changes."""
PROMISE_S = 0.3
BEFORE_S, AFTER_S = 2.0, 1.0
ALLOWED_SHARE, ALLOWED_S = 0.2, 0.05
"""An outside view may be so much longer: its own questions, and networks, take time."""
UNKEPT = 3
"""Status of ``ldm migrate-domain`` where the guest stays because the promise cannot be kept."""


@dataclass(frozen=True, slots=True)
class PromiseRun:
    """One migration as it was seen.

    Attributes:
        outcome: of the report; `failed` with a `cause` is a guest that has stayed.
        outside_s: longest gap between two answers, from the request to after the end.
        gap_after_stop_s: when that gap began, after the guest had been stopped; None = it has stayed.
        usual_s: the longest gap before the request.
        suspended_s: from stop to resumption by the hosts' clocks; None = it has stayed.
        total_s: of the migration.
        throttle_percent, throttled_s, held_back_s: as in the report.
    """

    run: int
    source: str
    outcome: str
    cause: str
    outside_s: float
    gap_after_stop_s: float | None
    usual_s: float
    suspended_s: float | None
    total_s: float
    throttle_percent: int
    throttled_s: float
    held_back_s: float
    sent_bytes: int


def is_kept(outside_s: float, promise_s: float) -> bool:
    """Whether an outside view agrees with the promise."""
    return outside_s <= promise_s * (1 + ALLOWED_SHARE) + ALLOWED_S


def run_promise(build: Path, runs: int) -> bool:
    """Measure, print a line for each run, and write ``promise.json`` into the directory `build` after each.

    Returns:
        Whether every promise was kept.

    Raises:
        LdomsError: a command failed, or the guest was lost.
    """
    build.mkdir(parents=True, exist_ok=True)
    before, seen = conditions(), list[PromiseRun]()
    heading(f"A guest that changes {SIZE_MIB} MiB at {RATE_MIB_S} MiB/s, over {LINK}, {runs} times")
    with stage(LAB) as made, tempfile.TemporaryDirectory(prefix="ldoms-bench-") as directory:
        _furnish(made)
        place = SOURCE
        for number in range(1, runs + 1):
            seen.append(_run(made, number, place, Path(directory) / "probe.jsonl"))
            say(_line(seen[-1]))
            place = made.runs_on(GUEST)
            if place not in (SOURCE, TARGET):
                raise HostError(f"the guest runs {place}", code="guest-gone")
            _write(build, seen, before)
    broken = [one for one in seen if not is_kept(one.outside_s, PROMISE_S)]
    heading("Median [least .. most]")
    say(f"longest gap outside   {spread([one.outside_s * 1000 for one in seen], Unit.MILLISECONDS)}")
    moved = [one.suspended_s * 1000 for one in seen if one.suspended_s is not None]
    if moved:
        say(f"stop to resumption    {spread(moved, Unit.MILLISECONDS)}")
    say(f"total                 {spread([one.total_s for one in seen], Unit.SECONDS)}")
    say(f"moved                 {len(moved)} of {runs}; the others have stayed")
    say(f"promise broken        {len(broken)} of {runs}")
    say(f"\nAll runs              {build / 'promise.json'}")
    return not broken


def _furnish(made: Stage) -> None:
    values = {"pulse.fill": FILL_MIB, "pulse.size": SIZE_MIB, "pulse.rate": RATE_MIB_S}
    words = [word for key, value in values.items() for word in ("-P", f"{key}={value}")]
    made.type(made.lab("guest", *words, "--memory", MEMORY, GUEST, "tiny"))
    made.type(made.on(SOURCE, "ldm", "start-domain", GUEST))
    made.type(made.lab("shape", "--rate", LINK))


def _run(made: Stage, number: int, source: str, record: Path) -> PromiseRun:
    probe = start_probe("tcp", ADDRESS, record, prefix=made.client)
    try:
        probe.wait_until_begun(timeout_s=60.0)
        began = time.time()
        time.sleep(BEFORE_S)
        asked = time.time()
        status = _migrate(made, source)
        time.sleep(AFTER_S)
        ended = time.time()
    finally:
        probe.stop()
    answers = probe.result().answer_times
    report = made.last_report(source)
    if status == UNKEPT and report.stop_resume_s is not None:
        raise HostError(f"the guest has moved although the status was {UNKEPT}", code="guest-gone")
    outside = longest_gap(answers, Window(asked, ended))
    return seen_as(report, number, outside, longest_gap(answers, Window(began, asked)).seconds)


def seen_as(report: MigrationReport, number: int, outside: Gap, usual_s: float) -> PromiseRun:
    """A report beside what was seen from outside."""
    return PromiseRun(
        run=number,
        source=report.source,
        outcome=report.outcome.value,
        cause=report.cause,
        outside_s=outside.seconds,
        gap_after_stop_s=outside.at - report.stopped_at if report.stop_resume_s is not None else None,
        usual_s=usual_s,
        suspended_s=report.stop_resume_s,
        total_s=report.total_s,
        throttle_percent=report.throttle_percent,
        throttled_s=report.throttled_s,
        held_back_s=report.held_back_s,
        sent_bytes=report.transferred_bytes,
    )


def _migrate(made: Stage, source: str) -> int:
    words = made.migrate_words(GUEST, source, "--max-suspend", f"{PROMISE_S * 1000:.0f}ms")
    try:
        made.output(words)
    except HostError as error:
        if "does not come to an end" not in error.message:
            raise
        return UNKEPT
    return 0


def _line(one: PromiseRun) -> str:
    kept = "kept" if is_kept(one.outside_s, PROMISE_S) else "BROKEN"
    suspended = "stayed" if one.suspended_s is None else f"suspended {one.suspended_s * 1000:.0f} ms"
    return (
        f"{one.run:>3}  outside {one.outside_s * 1000:>4.0f} ms, {suspended}, {one.total_s:.1f} s in all, held back by"
        f" {one.throttle_percent} % for {one.throttled_s:.1f} s: {kept}"
    )


def _write(build: Path, seen: Sequence[PromiseRun], before: object) -> None:
    result = {
        "host": {"before": before, "after": conditions()},
        "promise_s": PROMISE_S,
        "allowed_s": PROMISE_S * (1 + ALLOWED_SHARE) + ALLOWED_S,
        "link": LINK,
        "guest": {"memory": MEMORY, "fill_mib": FILL_MIB, "size_mib": SIZE_MIB, "rate_mib_s": RATE_MIB_S},
        "runs": to_wire(list(seen)),
    }
    (build / "promise.json").write_text(json.dumps(result, indent=2) + "\n")


def main_promise(build: Path, runs: int) -> int:
    """Measure, and say in a sentence why it could not be."""
    try:
        return 0 if run_promise(build, runs) else 1
    except LdomsError as error:
        print(f"bench: {error.message}", file=sys.stderr)
        return 1
