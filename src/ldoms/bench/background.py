"""A program that goes on in the background, whatever words were put in front of it to run it elsewhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from ldoms.model.errors import HostError


class Background:
    """A program started in a session of its own, so that an interrupt typed here does not reach it."""

    def __init__(
        self,
        words: Sequence[str],
        directory: Path,
        name: str,
        mark: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it.

        Args:
            words: the program and what is put in front of it.
            directory: where its output goes, to ``<name>.out`` and ``<name>.err``.
            name: of those files.
            environment: what is added to ours.
            mark: an argument by which the program itself is known from what was put in front of it.

        Raises:
            HostError: it cannot be started.
        """
        self._mark = mark
        with (directory / f"{name}.out").open("wb") as output, (directory / f"{name}.err").open("wb") as errors:
            try:
                self._child = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                )
            except OSError as error:
                raise HostError(f"{words[0]} cannot be started: {error}", code="no-program") from error

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._child.poll() is None

    @property
    def pid(self) -> int:
        """Its own, as this machine sees it, even if it runs in a namespace where it has another; 0 = not yet."""
        process = self._process()
        return process.pid if process is not None else 0

    def send(self, number: int) -> bool:
        """Send it a signal; False if it is not there (yet)."""
        process = self._process()
        if process is None:
            return False
        with suppress(psutil.Error):
            process.send_signal(number)
            return True
        return False

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; False if it goes on longer than that."""
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it, and what was put in front of it, at once."""
        process = self._process()
        if process is not None:
            with suppress(psutil.Error):
                process.kill()
        if self.is_running:
            self._child.kill()
        self._child.wait()

    def _process(self) -> psutil.Process | None:
        """Of all that was started, the one that nothing else with the mark comes after."""
        with suppress(psutil.Error):
            family = psutil.Process(self._child.pid)
            marked = []
            for process in (family, *family.children(recursive=True)):
                with suppress(psutil.Error):
                    if any(self._mark in word for word in process.cmdline()):
                        marked.append(process)
            parents = {process.ppid() for process in marked}
            return next((process for process in marked if process.pid not in parents), None)
        return None
