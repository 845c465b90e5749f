"""Which messages are logged: said at run time, at once, and remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog

from ldoms.manager.events import EventHub
from ldoms.manager.logs import LogControl, LogVerbs
from ldoms.model.errors import RequestError
from ldoms.model.events import EventKind
from ldoms.model.logs import LogKind
from ldoms.store import Store

LEVELS = {"debug": LogKind.DEBUG, "info": LogKind.INFO, "warning": LogKind.WARNING, "error": LogKind.FATAL}


def logged(control: LogControl) -> list[str]:
    """What gets through of one message of each sort."""
    found: list[str] = []

    def keep(logger: Any, method: str, message: Any) -> Any:
        assert "log_kind" not in message
        found.append(message["event"])
        raise structlog.DropEvent

    structlog.configure(processors=[control, keep])
    try:
        log = structlog.get_logger()
        for level in LEVELS:
            getattr(log, level)(level)
        log.info("command", log_kind=LogKind.CMD)
        EventHub(Store(":memory:")).publish(EventKind.DOMAIN_ADDED, "ldg1")
    finally:
        structlog.reset_defaults()
    return found


def test_each_sort_of_message_has_its_switch() -> None:
    """At first those of the level that ldmd was started with; each can be switched alone."""
    control = LogControl()
    verbs = LogVerbs(Store(":memory:"), control)
    assert logged(control) == ["info", "warning", "error", "domain-added"]
    verbs.set({"cmd": "on", "info": "off"})
    assert logged(control) == ["warning", "error", "command", "domain-added"]
    verbs.set({"notice": "off", "fatal": "off", "debug": "on"})
    assert logged(control) == ["debug", "warning", "command"]
    verbs.set({"notice": ""}, defaults=True)
    assert logged(control) == ["info", "warning", "error", "domain-added"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error", "domain-added"]),
        ("info", ["info", "warning", "error", "domain-added"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_option_of_ldmd_says_what_is_usual(level: str, expected: list[str]) -> None:
    """``--log-level``."""
    assert logged(LogControl(level)) == expected


def test_it_is_remembered(tmp_path: Path) -> None:
    """What was said counts after a restart; what was not follows the option that ldmd is started with."""
    store = Store(tmp_path / "ldoms.db")
    LogVerbs(store, LogControl()).set({"cmd": "on", "warning": "off"})
    store.close()
    control = LogControl("debug")
    verbs = LogVerbs(Store(tmp_path / "ldoms.db"), control)
    verbs.restore()
    assert logged(control) == ["debug", "info", "error", "command", "domain-added"]
    assert [(one.kind.value, one.is_on, one.default) for one in verbs.list()][:2] == [
        ("cmd", True, False),
        ("debug", True, True),
    ]


@pytest.mark.parametrize("properties", [{"colour": "on"}, {"cmd": "loud"}, {"cmd": "off", "Cmd": "on"}])
def test_what_has_no_meaning_changes_nothing(properties: dict[str, str]) -> None:
    """Not even what had a meaning."""
    control = LogControl()
    verbs = LogVerbs(Store(":memory:"), control)
    with pytest.raises(RequestError, match=r"not known|has no meaning"):
        verbs.set({"info": "off", **properties}, defaults=True)
    assert control.on == control.default
