"""``stop-domain``: one domain or many, followed until they have stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ldoms.api.client import Client, error_from, part
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.domain import ALL, chosen
from ldoms.cli.follow import attend
from ldoms.cli.output import complain, on_terminal, say
from ldoms.model.codec import from_wire
from ldoms.model.dependencies import stop_order
from ldoms.model.domain import DomainState
from ldoms.model.errors import LdomsError
from ldoms.model.operation import Operation, OperationStatus
from ldoms.model.stopping import MAX_STOP_S, STOP_S, StopMode

AT_ONCE = 16
"""So many domains are stopped at the same time."""

_MODES = {"-f": StopMode.FORCE, "-q": StopMode.QUICK, "-h": StopMode.HALT, "-r": StopMode.REBOOT}


class Following:
    """Operations that are followed, and can be called off together."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.running: dict[str, Operation] = {}

    def finish(self, operation: Operation, show: Any = lambda operation: None) -> Operation:
        """Wait for the end of an operation; the manager may be restarted meanwhile.

        Raises:
            LdomsError: it has failed, or was called off.
        """
        self.running[operation.id] = operation
        operation = attend(self._client, operation, show)
        del self.running[operation.id]
        if operation.status is not OperationStatus.SUCCESS:
            raise error_from({"family": "LdomsError", **operation.error})
        return operation

    def call_off(self) -> None:
        """Have the manager wait no more for what was begun."""
        for operation in list(self.running.values()):
            with suppress(LdomsError):
                self._client.post(f"/operations/{operation.id}/cancel")


def _stop(client: Client, words: Words) -> int:
    from concurrent.futures import ThreadPoolExecutor

    body = _options(words)
    names, known = chosen(client, words, DomainState.ACTIVE)
    groups = [[domain.name for domain in group] for group in stop_order(known)]
    unknown = [name for name in names if not any(name in group for group in groups)]
    following, status = Following(client), 0
    done = "rebooted" if body["mode"] == StopMode.REBOOT else "stopped"
    with progress() as show:

        def stop(name: str) -> Operation:
            begun = from_wire(Operation, client.post(f"/domains/{part(name)}/stop", body))
            return following.finish(begun, show)

        for group in filter(None, [unknown, *groups]):
            pool = ThreadPoolExecutor(min(AT_ONCE, len(group)))
            try:
                results = [(name, pool.submit(stop, name)) for name in group]
                for name, result in results:
                    try:
                        for note in result.result().result.get("notes", ()):
                            complain(note)
                        say(f"LDom {name} {done}")
                    except LdomsError as error:
                        complain(error.message)
                        status = 1
            except KeyboardInterrupt:
                _interrupted(following)
                raise
            finally:
                pool.shutdown(cancel_futures=True)
    return status


def _interrupted(following: Following) -> None:
    for operation in following.running.values():
        name = operation.domain
        complain(
            f"LDom {name} is waited for no more; it has been asked already and may still stop"
            f" ('ldm list {name}' shows it)"
        )
    following.call_off()


def _options(words: Words) -> dict[str, Any]:
    modes = [flag for flag in _MODES if words.has(flag)]
    if len(modes) > 1:
        raise UsageError(f"stop-domain: {modes[0]} and {modes[1]} exclude each other")
    for flag in ("-t", "-m"):
        if words.has(flag) and modes and (flag == "-t" or modes[0] in ("-f", "-q")):
            raise UsageError(f"stop-domain: {modes[0]} and {flag} exclude each other")
    limit = words.options.get("-t")
    if limit is not None and not (limit.isascii() and limit.isdecimal() and int(limit) <= MAX_STOP_S):
        raise UsageError(f"stop-domain: -t {limit} is not a number of seconds up to {MAX_STOP_S:g}")
    return {
        "mode": (_MODES[modes[0]] if modes else StopMode.SHUT_DOWN).value,
        "limit_s": None if limit is None else float(limit),
        "message": words.options.get("-m", ""),
    }


@contextmanager
def progress() -> Iterator[Any]:
    """A line for each operation on standard error, if a person watches; else nothing at all."""
    if not on_terminal():
        yield lambda operation: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bars = Progress(
        TextColumn("{task.fields[domain]}"),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    tasks: dict[str, Any] = {}

    def show(operation: Operation) -> None:
        if operation.id not in tasks:
            tasks[operation.id] = bars.add_task("", total=100, domain=operation.domain)
        bars.update(
            tasks[operation.id],
            description=operation.phase,
            completed=operation.progress,
            visible=not operation.is_over,
        )

    with bars:
        yield show


COMMANDS = (
    Command(
        "stop-domain",
        "domain",
        "[DOM...]",
        "stop active domains; they stay bound",
        _stop,
        options=(
            ALL,
            Option("-f", "end the guest at once, without asking it"),
            Option("-q", "quick: have the guest write its file systems and switch off, without ending its services"),
            Option("-h", "shut down, and never anything quicker"),
            Option("-r", "have the guest restart instead"),
            Option("-t", "switch off as with -q if the guest has not shut down after SECONDS", "SECONDS"),
            Option("-m", "show MESSAGE to the users of the guest before", "MESSAGE"),
        ),
        details="Without -f and -q the guest is asked to shut down, through its agent, or the power button where it"
        f" has none, and has {STOP_S:g} seconds for it; a guest that needs longer goes on running, and the command"
        " fails. -q, also after -t, needs a guest agent that may run programs; without one the guest is asked in good"
        " order, as ever. -r needs a guest agent; without one the guest is shut down and started again. A message is"
        " shown by wall in the guest, through its agent; if that cannot be, a line on standard error says so."
        " Several domains are stopped in the order of their shutdown groups, higher ones first, slaves before their"
        " masters; those of one group at the same time. One that does not stop does not hold up the others. Ctrl-C"
        " ends the waiting: a guest that was asked already may still stop, which 'ldm list' shows.",
    ),
)
