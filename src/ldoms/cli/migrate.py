"""``migrate-domain`` and what belongs to it: trust between hosts, cancelling."""

from __future__ import annotations

import getpass
import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from ldoms.api.client import Client, error_from, part
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.configuration import cancel_reconf
from ldoms.cli.follow import CtrlC, follow
from ldoms.cli.forecast import forecast_lines
from ldoms.cli.limits import bandwidth_bytes_s, length_s
from ldoms.cli.options import JSON, PARSE
from ldoms.cli.output import complain, on_terminal, say, say_json, say_lines
from ldoms.cli.plan import plan_lines
from ldoms.cli.text import PARSE_VERSION, columns, record
from ldoms.model.boost import AUTO
from ldoms.model.codec import from_wire
from ldoms.model.errors import CheckFailed, LdomsError, RequestError
from ldoms.model.findings import Severity, blocking
from ldoms.model.migration import DEFAULT_MAX_SUSPEND_S, MigrationReport, OnStall
from ldoms.model.operation import Operation, OperationStatus
from ldoms.model.tuning import TUNABLE, parse_tuning, split_tuning

UNKEPT = 3
"""Exit status: what was promised cannot be kept, and the guest stays."""
_TARGET = re.compile(r"(?:(?P<user>[^@]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:@]+)(?::(?P<name>[^:]+))?")


def parse_target(text: str) -> tuple[str, str, str]:
    """Read ``[USER@]HOST[:NEWNAME]``; an IPv6 address stands in brackets.

    Returns:
        User, host and new name; what is not given is empty.

    Raises:
        UsageError: it is not of that form.
    """
    match = _TARGET.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' is not a target: write [USER@]HOST[:NEWNAME]")
    return match["user"] or "", match["host"].strip("[]"), match["name"] or ""


def read_password_file(path: Path) -> str:
    """The first line of a file that nobody else can read.

    Raises:
        RequestError: it is not there, or others can read it.
    """
    try:
        with path.open() as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise RequestError(f"the password file {path} is not a regular file", code="bad-password-file")
            if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise RequestError(
                    f"the password file {path} can be read by others than its owner: run 'chmod 400 {path}'",
                    code="bad-password-file",
                )
            if status.st_uid not in (0, os.geteuid()):
                raise RequestError(
                    f"the password file {path} belongs to somebody else: it must be yours, or root's",
                    code="bad-password-file",
                )
            return file.readline().rstrip("\n")
    except OSError as error:
        raise RequestError(
            f"the password file {path} cannot be read: {error.strerror}", code="bad-password-file"
        ) from error


def _migrate(client: Client, words: Words) -> int:
    name, target, core_map = _sorted(words.operands)
    user, host, new_name = parse_target(target)
    dry_run = words.has("-n")
    if words.has("-c") and (words.has("-p") or user):
        raise UsageError("migrate-domain: with -c no user is authenticated: leave out -p and USER@")
    body = {
        "host": host,
        "user": user,
        "new_name": new_name,
        "force": words.has("-f"),
        "dry_run": dry_run,
        "certificates": words.has("-c"),
        "save_spconfig": words.has("-s"),
        "encrypted": not words.has("--no-encryption"),
        **({"core_map": core_map} if core_map else {}),
        **({"copy_storage": True} if words.has("--copy-storage") else {}),
        "max_suspend_s": _length_s(words, "--max-suspend", DEFAULT_MAX_SUSPEND_S),
        "max_bandwidth_bytes_s": _max_bandwidth(words),
        "max_time_s": _length_s(words, "--max-time", 0.0),
        "on_stall": _on_stall(words),
        **({"tuning": tuning} if (tuning := _tuning(words)) else {}),
        **_boost(words),
    }
    try:
        client.get("/domains", name=name)
        _check_trust(client, host)
        body["password"] = "" if words.has("-c") else _password(words)
        path = f"/domains/{part(name)}/cancel-migration"
        with CtrlC(client, "cancelling the migration ...", path, {"force": False}) as ctrl_c:
            operation = from_wire(Operation, client.post(f"/domains/{part(name)}/migrate", body))
            ctrl_c.has_begun(operation)
            operation = follow(client, operation)
        if operation.status is not OperationStatus.SUCCESS:
            raise error_from({"family": "LdomsError", **operation.error})
    except LdomsError as error:
        _complain_about(error, force=words.has("-f"))
        complain(
            f"Domain Migration of LDom {name} would fail if attempted"
            if dry_run
            else f"Domain Migration of LDom {name} failed"
        )
        return UNKEPT if error.code == "promise" else 1
    if words.has("--json"):
        say_json(operation.result["report"])
    elif dry_run and on_terminal():
        report = from_wire(MigrationReport, operation.result["report"])
        say_lines(forecast_lines(report.forecast) if report.forecast is not None else ())
        say_lines(plan_lines(report))
    return 0


def _sorted(operands: Sequence[str]) -> tuple[str, str, list[list[int]]]:
    """The domain, the target, and the cores of both hosts that belong together; the maps stand between the two."""
    maps = dict(word.split("=", 1) for word in operands if word.startswith(("cidmap=", "mblockmap=")))
    rest = [word for word in operands if not word.startswith(("cidmap=", "mblockmap="))]
    if len(rest) != 2:
        raise UsageError(f"migrate-domain: too {'few' if len(rest) < 2 else 'many'} operands")
    if "mblockmap" in maps:
        raise RequestError(
            "mblockmap= is not supported on this platform: memory has no named blocks here", code="not-supported"
        )
    pairs = maps["cidmap"].split(",") if "cidmap" in maps else []
    for pair in pairs:
        if not re.fullmatch(r"[0-9]{1,9}:[0-9]{1,9}", pair):
            raise UsageError(
                f"cidmap={maps['cidmap']} is no map of cores: write a core here and one there, such as cidmap=0:1,2:3"
            )
    return rest[0], rest[1], [[int(core) for core in pair.split(":")] for pair in pairs]


def _complain_about(error: LdomsError, *, force: bool) -> None:
    """Every requirement that is not met on a line of its own, with its remedy; any other error as it is."""
    if not isinstance(error, CheckFailed):
        complain(error.message)
        return
    for finding in blocking(error.findings, force=force):
        complain(f"{finding.message}; {finding.remedy}")
    if on_terminal():
        for finding in error.findings:
            if finding.severity is Severity.WARNING:
                complain(f"warning: {finding.message}; {finding.remedy}")


def _length_s(words: Words, flag: str, otherwise: float) -> float:
    """A length of time; a number alone is milliseconds."""
    text = words.options.get(flag, "")
    try:
        seconds = length_s(text) if text else otherwise
    except ValueError:
        seconds = 0.0
    if text and seconds <= 0:
        example = "300ms or 1.5s" if flag == "--max-suspend" else "90s or 10m"
        raise UsageError(f"{flag} {text} is not a length of time: write {example}")
    return seconds


def _on_stall(words: Words) -> str:
    text = words.options.get("--on-stall", OnStall.THROTTLE.value)
    if text not in list(OnStall):
        raise UsageError(f"--on-stall {text} is not known: write {', '.join(OnStall)}")
    return text


def _max_bandwidth(words: Words) -> int:
    text = words.options.get("--max-bandwidth", "")
    return bandwidth_bytes_s(text) if text else 0


def _tuning(words: Words) -> dict[str, str]:
    """What is set by hand, as it was typed; whether it fits together, and the hosts, is for the checks to say."""
    try:
        values = split_tuning(words.options["--tune"]) if words.has("--tune") else {}
        parse_tuning(values)
    except RequestError as error:
        raise UsageError(f"--tune: {error.message}") from error
    return values


def _boost(words: Words) -> dict[str, int]:
    """How many strands are to be lent; nothing if none are."""
    text = words.options.get("--boost")
    if text is None:
        return {}
    if text == "auto":
        return {"boost": AUTO}
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) == 0:
        raise UsageError(f"--boost {text} is no number of strands: write a number from 1 on, or auto")
    return {"boost": int(text)}


def _password(words: Words) -> str:
    if words.has("-p"):
        return read_password_file(Path(words.options["-p"]))
    if not sys.stdin.isatty():
        raise RequestError(
            "a password is needed, and there is no terminal to ask for it: use -p FILE, or -c", code="no-terminal"
        )
    try:
        return getpass.getpass("Target Password: ")
    except EOFError as error:
        complain("")  # ends the line of the prompt
        raise RequestError("no password was typed: type it, or use -p FILE, or -c", code="no-terminal") from error


# Trust


def _check_trust(client: Client, host: str) -> None:
    """Make sure that the target's certificate is known; on a terminal, ask about one that is not."""
    if any(trusted["host"] == host for trusted in client.get("/trust")):
        return
    if not (sys.stdin.isatty() and on_terminal()):
        raise RequestError(
            f"the certificate of host {host} is not known: look at it and trust it with 'ldm add-trust {host}'",
            code="host-key-unknown",
        )
    _ask_and_trust(client, host)


def _ask_and_trust(client: Client, host: str) -> None:
    fingerprint = client.post("/trust", {"host": host})["fingerprint"]
    complain(f"The certificate of host {host} is not known. Its fingerprint is\n    {fingerprint}")
    complain(f"('ldm list-trust' on {host} shows its own.)")
    print("Trust it? (yes/no) ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("yes", "y"):
        raise RequestError(f"host {host} is not trusted", code="host-key-unknown")
    client.post("/trust", {"host": host, "fingerprint": fingerprint})


def _add_trust(client: Client, words: Words) -> int:
    host = words.operands[0]
    fingerprint = words.options.get("--fingerprint", "")
    if fingerprint:
        client.post("/trust", {"host": host, "fingerprint": fingerprint})
    elif sys.stdin.isatty() and on_terminal():
        _ask_and_trust(client, host)
    else:
        shown = client.post("/trust", {"host": host})["fingerprint"]
        raise RequestError(
            f"there is no terminal to ask whether {shown} is the fingerprint of host {host}: compare it, then run"
            f" 'ldm add-trust --fingerprint {shown} {host}'",
            code="no-terminal",
        )
    return 0


def _list_trust(client: Client, words: Words) -> int:
    own = client.get("/host")["facts"]
    trusted = client.get("/trust")
    if words.has("--json"):
        say_json({"own": own["identity"], "trusted": trusted})
    elif words.has("-p"):
        say(PARSE_VERSION)
        say(record("OWN", host=own["name"], fingerprint=own["identity"]))
        say_lines(record("TRUST", host=entry["host"], fingerprint=entry["fingerprint"]) for entry in trusted)
    else:
        say(columns((24,), ["HOST", "FINGERPRINT"]))
        say(columns((24,), [f"{own['name']} (this host)", own["identity"]]))
        say_lines(columns((24,), [entry["host"], entry["fingerprint"]]) for entry in trusted)
    return 0


def _remove_trust(client: Client, words: Words) -> int:
    client.delete(f"/trust/{part(words.operands[0])}")
    return 0


# Cancelling


def _cancel_operation(client: Client, words: Words) -> int:
    what, name = words.operands
    if what == "reconf":
        return cancel_reconf(client, name)
    if what == "memdr":
        client.post(f"/domains/{part(name)}/cancel-memory")
        return 0
    if what != "migration":
        raise UsageError(f"cancel-operation: '{what}' cannot be cancelled; there are migration, memdr and reconf")
    client.post(f"/domains/{part(name)}/cancel-migration", {"force": words.has("-f")})
    return 0


_TUNING = ", ".join(f"{name}= ({form})" for name, (_, _, form) in TUNABLE.items())

COMMANDS = (
    Command(
        "migrate-domain",
        "migration",
        "DOM [MAP...] [USER@]HOST[:NEWNAME]",
        "move a domain to another host",
        _migrate,
        options=(
            Option("-f", "go on although a check fails that can be overruled"),
            Option(
                "-n",
                "dry run: make all checks on both hosts and report every one that fails; nothing moves. A terminal"
                " shows what to expect of the migration",
            ),
            Option("-p", "read the target's password from the first line of FILE, which only you can read", "FILE"),
            Option("-c", "the hosts know each other by their certificates; no password, no USER@"),
            Option("-s", "both hosts save their configuration afterwards, as @post-migration"),
            Option("--max-suspend", "longest suspension allowed, 300ms if not given (ours)", "TIME"),
            Option("--max-time", "longest time from the request to the end allowed, such as 90s or 10m (ours)", "TIME"),
            Option("--on-stall", "what to do at a stall, throttle if not given (ours)", "MEASURE", tuple(OnStall)),
            Option("--max-bandwidth", "limit of the copy, such as 100M, per second (ours)", "SIZE"),
            Option("--copy-storage", "copy the disks that the hosts do not share (ours)"),
            Option("--boost", "lend the control domains N free strands meanwhile, or as many as help (ours)", "N|auto"),
            Option("--no-encryption", "send the guest's memory in the clear (ours)"),
            Option(
                "--tune",
                "set by hand how memory is copied; may be repeated, or have several with commas between (ours)",
                "NAME=VALUE",
                choices=tuple(f"{name}=" for name in TUNABLE),
                repeats=True,
            ),
            JSON,
        ),
        details="An active domain keeps running while its memory is copied, is suspended for a moment for the rest,"
        " and resumes on the target; a bound or inactive one only moves its description. The command says nothing"
        " when it succeeds. Ctrl-C cancels the migration; if ldm is killed, or its terminal goes away, the migration"
        " goes on. The password is that of USER, or of the user who runs the command, on the target; the user must"
        " be root or in the group ldoms there. MAP is cidmap=CORE:CORE[,CORE:CORE...]: for each core that was named for"
        " the domain (set-core cid=), the one that it is to have on the target. mblockmap= is not supported: memory has"
        " no named blocks here. With --copy-storage each disk of an active domain whose image is not the same one on"
        " both hosts is copied while the guest runs, before its memory, to a volume of the same name, which is made if"
        " it is missing; nothing that is there is overwritten. --max-suspend and --max-time are promises. A guest that"
        " changes memory as fast as it is"
        " sent is, by MEASURE, held back in steps (throttle), suspended for as long as the rest takes (suspend), or"
        " left where it is (abort); throttle ends so, too, if it does not help. Where a promise cannot be kept, the"
        " guest stays and runs, the exit status is 3, and the message says what would do."
        " With -n on a terminal the plan of the copy is shown, with the reason for each choice;"
        f" --tune sets one by hand: {_TUNING}. What excludes each other, or one of the hosts cannot do, is refused"
        " before anything begins."
        " With --boost, free strands are lent to the control domains of both hosts, where QEMU copies memory, and"
        " returned when the migration ends, however it does: N must be free on this host, the target lends as many of N"
        " as it has. In listings primary keeps the number of virtual CPUs that it has, and a domain that needs a strand"
        " that is lent gets it.",
    ),
    Command(
        "cancel-operation",
        "migration",
        "OPERATION DOM",
        "cancel a migration, on its source, a change of memory, or a delayed reconfiguration",
        _cancel_operation,
        options=(Option("-f", "settle a migration whose other host is lost for good (ours)"),),
        details="OPERATION is migration, memdr or reconf. Everything is as before when the command returns, except that"
        " what was changed of the memory of a running domain (memdr) stays changed."
        " With -f, on the source, a domain whose target has"
        " not answered the hand-off runs on this host again. Use it only when the target is lost for good: otherwise"
        " the guest may run on both hosts and destroy its disks. With -f, on the target, a copy whose source is"
        " silent is discarded. If the source is lost for good, that copy may be the only one: 'ldm start-domain -f'"
        " lets it run.",
    ),
    Command(
        "add-trust",
        "trust",
        "HOST",
        "trust the certificate of another host",
        _add_trust,
        options=(Option("--fingerprint", "do not ask: it must be this one", "SHA256:..."),),
        details="Each host has a certificate of its own making. The fingerprint of HOST's is shown, to be compared"
        " with what list-trust says on HOST. A host that is trusted may do everything here that root may, so that"
        " migrate-domain -c works from there; trust is given on both hosts. HOST is the name by which it is called.",
        ours=True,
    ),
    Command(
        "list-trust",
        "trust",
        "",
        "list the hosts that are trusted",
        _list_trust,
        options=(PARSE, JSON),
        details="The first line is the certificate of this host.",
        ours=True,
    ),
    Command(
        "remove-trust",
        "trust",
        "HOST",
        "trust a host no more",
        _remove_trust,
        details="It counts from the next connection on.",
        ours=True,
    ),
)
