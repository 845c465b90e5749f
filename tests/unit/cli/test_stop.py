"""``stop-domain``: what is sent, in which order, and what is said."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import pytest

from ldoms.cli.main import run
from ldoms.model.codec import to_wire
from ldoms.model.errors import RequestError
from ldoms.model.operation import Operation, OperationStatus
from unit.cli.office import Office

DEFAULT = {"mode": "shut-down", "limit_s": None, "message": ""}


class StopOffice(Office):
    """A manager that stops whatever it is asked to; `ends` has what becomes of those that it does not stop."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[str, Operation] = {}
        self.interrupted = False

    def _call(self, method: str, path: str, body: Any, query: Any = None) -> Any:
        answer = super()._call(method, path, body, query)
        if path.endswith("/stop"):
            name = path.split("/")[2]
            return to_wire(Operation(f"op-{name}", "stop-domain", name, "root", 1.0, may_cancel=True))
        return answer

    def stream(self, path: str) -> Any:
        name = path.split("/")[2].removeprefix("op-")
        over = Operation(f"op-{name}", "stop-domain", name, "root", 1.0, OperationStatus.SUCCESS)
        yield to_wire(self.ends.get(name, over))

    def stops(self) -> list[str]:
        """Whom it was asked to stop, in order."""
        return [path.split("/")[2] for _, path, _ in self.sent if path.endswith("/stop")]


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> StopOffice:
    made = StopOffice()
    monkeypatch.setattr("ldoms.cli.dispatch.Client", lambda *arguments, **options: made)
    return made


def failed(name: str, message: str) -> Operation:
    error = {"code": "stop-timeout", "message": message, "details": {}}
    return Operation(f"op-{name}", "stop-domain", name, "root", 1.0, OperationStatus.FAILURE, error=error)


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("stop ldg1", DEFAULT),
        ("stop-domain -f ldg1", {**DEFAULT, "mode": "force"}),
        ("stop-dom -q ldg1", {**DEFAULT, "mode": "quick"}),
        ("stop-domain -h ldg1", {**DEFAULT, "mode": "halt"}),
        ("stop-domain -t 30 -m 'down in a minute' ldg1", {**DEFAULT, "limit_s": 30.0, "message": "down in a minute"}),
        ("stop-domain -h -m bye ldg1", {**DEFAULT, "mode": "halt", "message": "bye"}),
    ],
)
def test_every_form_is_sent(
    line: str, body: dict[str, Any], office: StopOffice, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the manager wants it; the line that scripts expect is printed, and nothing else."""
    assert run(shlex.split(line)) == 0
    assert office.sent == [("POST", "/domains/ldg1/stop", body)]
    assert capsys.readouterr() == ("LDom ldg1 stopped\n", "")


def test_a_restart_is_not_said_to_be_a_stop(office: StopOffice, capsys: pytest.CaptureFixture[str]) -> None:
    """The domain goes on."""
    assert run(["stop-domain", "-r", "ldg1"]) == 0
    assert office.sent == [("POST", "/domains/ldg1/stop", {**DEFAULT, "mode": "reboot"})]
    assert capsys.readouterr().out == "LDom ldg1 rebooted\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-f", "-q", "ldg1"], "-f and -q exclude each other"),
        (["-h", "-r", "ldg1"], "-h and -r exclude each other"),
        (["-r", "-t", "5", "ldg1"], "-r and -t exclude each other"),
        (["-f", "-m", "x", "ldg1"], "-f and -m exclude each other"),
        (["-t", "soon", "ldg1"], "-t soon is not a number of seconds up to 86400"),
        (["-t", "-1", "ldg1"], "-t -1 is not a number"),
        (["-t", "86401", "ldg1"], "-t 86401 is not a number"),
        ([], "name a domain, or use -a"),
        (["-a", "ldg1"], "name domains, or use -a, not both"),
    ],
)
def test_what_makes_no_sense_is_not_sent(
    words: Sequence[str], sentence: str, office: StopOffice, capsys: pytest.CaptureFixture[str]
) -> None:
    """The usage is printed with the reason."""
    assert run(["stop-domain", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert office.sent == []


def test_all_means_what_is_active(office: StopOffice, capsys: pytest.CaptureFixture[str]) -> None:
    """Not primary, and not what is only bound."""
    assert run(["stop-domain", "-a"]) == 0
    assert sorted(office.stops()) == ["app-production-01", "ldg1"]
    assert capsys.readouterr().out == "LDom ldg1 stopped\nLDom app-production-01 stopped\n"


def test_one_that_does_not_stop_does_not_hold_up_the_others(
    office: StopOffice, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each failure has its sentence, and the status is 1; a name that is not known is one, too."""
    office.ends["ldg1"] = failed("ldg1", "LDom ldg1 did not shut down within 100 s")
    office.answers["POST", "/domains/nobody/stop"] = RequestError("LDom nobody was not found")
    assert run(["stop-domain", "nobody", "ldg1", "ldg3"]) == 1
    printed = capsys.readouterr()
    assert printed.err == "LDom nobody was not found\nLDom ldg1 did not shut down within 100 s\n"
    assert printed.out == "LDom ldg3 stopped\n"


def test_what_was_not_shown_to_users_is_said(office: StopOffice, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error; the domain has stopped all the same."""
    result = {"notes": ["the message was not shown"]}
    office.ends["ldg1"] = Operation(
        "op-ldg1", "stop-domain", "ldg1", "root", 1.0, OperationStatus.SUCCESS, result=result
    )
    assert run(["stop-domain", "-m", "bye", "ldg1"]) == 0
    assert capsys.readouterr() == ("LDom ldg1 stopped\n", "the message was not shown\n")
