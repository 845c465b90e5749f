"""Routes to the consoles of guests: a stream of what a guest says, and a way to type."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ldoms.api import wire
from ldoms.api.access import Changer, Known
from ldoms.manager.consoles import Attachment, Consoles

router = APIRouter(prefix=wire.PREFIX, tags=["consoles"])


@router.post("/domains/{name}/console", response_class=StreamingResponse)
async def attach_console(known: Known, who: Changer, name: str, body: wire.Force) -> StreamingResponse:
    """What the console of a domain shows, as bytes, until it is left; with force, with write access."""
    consoles = known.manager.consoles
    return _ConsoleStream(consoles, consoles.attach(known.manager.host.store.domain(name), force=body.force))


@router.post("/consoles/{identity}", status_code=204)
async def type_at_console(known: Known, who: Changer, identity: str, request: Request) -> None:
    """Type the bytes of the request at a console that is being shown, as the id in that answer's header names it."""
    known.manager.consoles.attachment(identity).client.feed(await request.body())


class _ConsoleStream(StreamingResponse):
    """What a client of a console is shown. However it ends, the client is forgotten: it may have write access."""

    def __init__(self, consoles: Consoles, attachment: Attachment) -> None:
        super().__init__(
            attachment.output(),
            media_type="application/octet-stream",
            headers={wire.CONSOLE_HEADER: attachment.id},
        )
        self._consoles = consoles
        self._attachment = attachment

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._consoles.detach(self._attachment)
