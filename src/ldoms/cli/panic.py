"""``panic-domain``."""

from __future__ import annotations

from pathlib import Path

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, Option, Words
from ldoms.cli.output import say
from ldoms.cli.stop import Following, progress
from ldoms.model.codec import from_wire
from ldoms.model.operation import Operation


def _panic(client: Client, words: Words) -> int:
    (name,) = words.operands
    core = words.options.get("--core", "")
    body = {"core": str(Path(core).absolute()) if core else ""}
    with progress() as show:
        begun = from_wire(Operation, client.post(f"/domains/{part(name)}/panic", body))
        Following(client).finish(begun, show)
    say(f"LDom {name} panicked")
    return 0


COMMANDS = (
    Command(
        "panic-domain",
        "domain",
        "DOM",
        "make the guest of an active domain panic",
        _panic,
        options=(Option("--core", "write the guest's memory to FILE of this host before (ours)", "FILE"),),
        details="The guest is sent an NMI. A Linux guest panics on it if it was told to: kernel.unknown_nmi_panic=1 for"
        " sysctl, or unknown_nmi_panic among its boot arguments. What follows is for the guest to decide, too: a dump"
        " by kdump, a restart (kernel.panic=SECONDS), or nothing. If the guest shows no sign of a panic, the command"
        " fails. With --core the guest stands still while its memory is written, for crash(8); FILE must not exist.",
    ),
)
