"""What an answer tells `ldm` apart from the answer itself: in a header, so that no program stumbles over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ldoms.api.wire import COMMAND_HEADER, NOTICE_HEADER, PREFIX
from ldoms.manager.manager import Manager
from ldoms.model.identity import CONTROL_DOMAIN

_RULE = "-" * 78
DELAYED = "\n".join(
    [
        _RULE,
        f"Notice: LDom {CONTROL_DOMAIN} is in the process of a delayed reconfiguration.",
        f"Any changes made to {CONTROL_DOMAIN} will only take effect after it reboots.",
        _RULE,
    ]
)
_DELAYED_PATHS = tuple(f"{PREFIX}/domains/{CONTROL_DOMAIN}/{what}" for what in ("vcpus", "cores", "memory"))


class Notices:
    """An ASGI application that adds notices to the answers of another one."""

    def __init__(self, app: Any, manager: Manager) -> None:
        self._app = app
        self._manager = manager

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Pass a request on, and add what there is to tell to an answer that says yes."""

        async def send_with_notice(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                notice = self._notice(scope)
                if notice:
                    headers = [*message.get("headers", ()), (NOTICE_HEADER.encode(), quote(notice).encode())]
                    message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_with_notice if scope["type"] == "http" else send)

    def _notice(self, scope: Mapping[str, Any]) -> str:
        names = {name.lower() for name, _ in scope.get("headers", ())}
        if COMMAND_HEADER.lower().encode() not in names:
            return ""  # a program that would not show it to anybody
        if self._manager.reconfiguration.delays(CONTROL_DOMAIN) and scope["path"] in _DELAYED_PATHS:
            return DELAYED
        return self._manager.power_on.take_notice()
