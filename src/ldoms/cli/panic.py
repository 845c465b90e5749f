"""``panic-domain``."""

from __future__ import annotations

from pathlib import Path

from ldoms.api.client import Client, error_from, part
from ldoms.cli.command import Command, Option, Words
from ldoms.cli.follow import CtrlC, follow
from ldoms.cli.output import say
from ldoms.model.codec import from_wire
from ldoms.model.operation import Operation, OperationStatus


def _panic(client: Client, words: Words) -> int:
    (name,) = words.operands
    core = words.options.get("--core", "")
    body = {"core": str(Path(core).absolute()) if core else ""}
    with CtrlC(client, "cancelling ...") as ctrl_c:
        operation = from_wire(Operation, client.post(f"/domains/{part(name)}/panic", body))
        ctrl_c.has_begun(operation)
        operation = follow(client, operation)
    if operation.status is not OperationStatus.SUCCESS:
        raise error_from({"family": "LdomsError", **operation.error})
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
        " fails. With --core the guest stands still while its memory is written, for crash(8), in the compressed format"
        " of kdump; FILE must not exist, and is FILE.part until it is whole. Ctrl-C ends that, as does an end of ldmd:"
        " nothing is left of FILE then, and the guest runs on without a panic.",
    ),
)
