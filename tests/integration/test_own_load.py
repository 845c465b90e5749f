"""A command of the user's own as load: started, watched, and ended with all that it has started."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from ldoms.bench.loads import CommandLoad
from ldoms.model.errors import HostError


def sleepers(mark: str) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", mark]]


def wait_for(count: int, mark: str) -> None:
    deadline = time.monotonic() + 10
    while len(sleepers(mark)) != count:
        assert time.monotonic() < deadline, f"there are {len(sleepers(mark))} of them, not {count}"
        time.sleep(0.02)


def test_a_command_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    """Also what it has left in the background, and its output is kept."""
    load, mark = CommandLoad("echo begun; sleep 3471 & sleep 3471"), "3471"
    load.start(tmp_path / "load", 60)
    try:
        wait_for(2, mark)
        load.require_running()
    finally:
        load.stop()
    assert sleepers(mark) == []
    assert (tmp_path / "load" / "load.out").read_text() == "begun\n"
    load.stop()
    assert load.transactions == ()
    assert load.record({}).name == load.command


def test_a_command_that_does_not_heed_its_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some time."""
    monkeypatch.setattr("ldoms.bench.loads._END_S", 0.3)
    load = CommandLoad("trap '' TERM; while true; do sleep 3472; done")
    load.start(tmp_path / "load", 60)
    try:
        wait_for(1, "3472")
    finally:
        load.stop()
    assert sleepers("3472") == []


def test_a_command_that_ends_early_is_said_so(tmp_path: Path) -> None:
    """With its status and its last word."""
    load = CommandLoad("echo it broke >&2; exit 3")
    load.start(tmp_path / "load", 60)
    with pytest.raises(HostError, match="with status 3: it broke") as caught:
        watch_for(load, 10)
    assert caught.value.code == "load-failed"
    load.stop()


def watch_for(load: CommandLoad, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        load.require_running()
        time.sleep(0.02)
