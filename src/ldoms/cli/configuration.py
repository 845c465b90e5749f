"""Commands about configurations of the host, and the delayed reconfiguration of its control domain."""

from __future__ import annotations

from collections.abc import Iterable

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.options import JSON
from ldoms.cli.output import say, say_json, say_lines
from ldoms.model.codec import from_wire
from ldoms.model.configuration import ConfigurationView

_INITIATING = (
    "Initiating a delayed reconfiguration operation on the primary domain.\n"
    "All configuration changes for other domains are disabled until the primary\n"
    "domain reboots, at which time the new configuration for the primary domain\n"
    "will also take effect."
)


def _add(client: Client, words: Words) -> int:
    name = words.operands[0] if words.operands else ""
    autosave = words.options.get("-r", "")
    if not name and not autosave:
        raise UsageError("add-spconfig: give the configuration a name")
    client.post("/configurations", {"name": name, "autosave": autosave})
    return 0


def _set(client: Client, words: Words) -> int:
    client.put("/configurations/next", {"name": words.operands[0]})
    return 0


def _remove(client: Client, words: Words) -> int:
    kind = "autosaves" if words.has("-r") else "configurations"
    client.delete(f"/{kind}/{part(words.operands[0])}")
    return 0


def _list(client: Client, words: Words) -> int:
    if words.operands and not words.has("-r"):
        raise UsageError("list-spconfig: a name can be given with -r only")
    data = client.get("/autosaves", name="".join(words.operands)) if words.has("-r") else client.get("/configurations")
    if words.has("--json"):
        say_json(data)
    else:
        views = [from_wire(ConfigurationView, entry) for entry in data]
        say_lines(_lines(views, autosaves=words.has("-r")))
    return 0


def _lines(views: Iterable[ConfigurationView], *, autosaves: bool) -> Iterable[str]:
    for view in views:
        if autosaves:
            yield f"{view.name} [newer]" if view.is_newer else view.name
        else:
            marks = (" [current]" if view.is_current else "", " [next poweron]" if view.is_next else "")
            yield view.name + "".join(marks)


def _start_reconf(client: Client, words: Words) -> int:
    client.post(f"/domains/{part(words.operands[0])}/reconfiguration")
    say(_INITIATING)
    return 0


def cancel_reconf(client: Client, name: str) -> int:
    """Forget the changes of the control domain that wait for the next power-on."""
    client.delete(f"/domains/{part(name)}/reconfiguration")
    return 0


COMMANDS = (
    Command(
        "add-spconfig",
        "spconfig",
        "[CONFIG]",
        "save the configuration of the host under a name",
        _add,
        options=(Option("-r", "make it of changes that were not saved, under their own name or CONFIG", "AUTOSAVE"),),
        details="Saved are domains with all that they have, and whether they are bound; services; and the CPUs and the"
        " memory of primary. The new configuration is the current one, and the next power-on brings it back. With -r,"
        " changes that the last power-on has replaced come back with the next one.",
    ),
    Command(
        "set-spconfig",
        "spconfig",
        "CONFIG",
        "choose the configuration for the next power-on",
        _set,
        details="Nothing changes before the host was off. With factory-default primary owns everything then, and there"
        " are no guest domains and no services; what was there is in an autosave.",
    ),
    Command(
        "remove-spconfig",
        "spconfig",
        "CONFIG",
        "forget a configuration",
        _remove,
        options=(Option("-r", "forget only its autosave"),),
        details="The host stays as it is. Without the current configuration it is as if none had ever been saved: the"
        " host comes up as it went down.",
    ),
    Command(
        "list-spconfig",
        "spconfig",
        "[AUTOSAVE]",
        "list configurations",
        _list,
        options=(Option("-r", "list changes that were not saved, all or of one configuration"), JSON),
        details="[current] is the one that the host was last saved as, or has come up with; [next poweron] was chosen"
        " for the next one. With -r, [newer] marks changes that the configuration of that name does not have.",
    ),
    Command(
        "start-reconf",
        "reconf",
        "DOM",
        "let changes of primary wait for the next power-on",
        _start_reconf,
        details="DOM is primary. From then on changes of its CPUs and memory are made when the host was off; meanwhile"
        " other domains cannot be changed, stopped or moved. Without it every change of primary is made at once.",
    ),
    Command(
        "cancel-reconf",
        "reconf",
        "DOM",
        "forget the changes of primary that wait",
        lambda client, words: cancel_reconf(client, words.operands[0]),
        details="The same as cancel-operation reconf.",
    ),
)
