"""Consoles of guests that run, by what people have at hand: telnet, and `ldm console`."""

from __future__ import annotations

import contextlib
import os
import re
import termios

from support import SOURCE, TARGET, Hosts, interrupt, kill_command, wait_until
from terminals import ANSWER_S, program, program_on_terminal, telnet

IAC, BRK = b"\xff", b"\xf3"


def console_of(hosts: Hosts, domain: str, host: str = SOURCE) -> tuple[str, str]:
    """Port and log of a domain's console, as `ldm list` has them."""
    found = re.search(r"\|port=(\d+)\|log=(on|off)", hosts.ldm(host, "list", "-o", "console", "-p", domain))
    assert found
    return found[1], found[2]


def test_two_at_a_console(hosts: Hosts) -> None:
    """Both read; the first writes, the second when it has taken that away, or when the first has left."""
    name = hosts.standing_guest()
    port, _ = console_of(hosts, name)
    with contextlib.ExitStack() as both:
        first = both.enter_context(telnet(hosts, port))
        first.expect("control options")  # before the other one comes, or that may be the first
        second = both.enter_context(telnet(hosts, port))
        second.expect("control options")
        first.type("echo for both\r\n")
        first.expect("for both")
        second.expect("for both")
        second.type("echo from the second\r\n")
        second.expect("You do not have write access")
        second.type("\r~w")
        second.expect("Would you like to continue?")
        second.type("y")
        first.expect("Warning: Console connection forced into read-only mode")
        second.type("\r\necho by force\r\n")
        assert "from the second" not in second.expect("by force")
        second.type("\r~.")
        second.process.wait(ANSWER_S)
        first.type("\r\necho the first again\r\n")
        first.expect("the first again")


def test_a_break_reaches_the_kernel(hosts: Hosts) -> None:
    """By the escape, and as telnet has it: the kernel takes the next key for a command of its own."""
    name = hosts.standing_guest()
    port, _ = console_of(hosts, name)
    bare = f"exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3 & exec cat >&3"
    with program(hosts, SOURCE, "bash", "-c", bare) as console:
        console.expect("control options")
        console.type("echo first\r~#h")
        console.expect("first")
        console.expect("sysrq: HELP")
        os.write(console.keyboard, b"echo second\r" + IAC + BRK + b"h")
        console.expect("second")
        console.expect("sysrq: HELP")
        console.type("echo third\r")
        console.expect("third")


def test_what_was_said_while_nobody_was_there(hosts: Hosts) -> None:
    """It is shown to whoever comes later, also after a restart of the manager, and is in the log."""
    name = hosts.standing_guest()
    port, log = console_of(hosts, name)
    assert log == "on"
    with telnet(hosts, port) as console:
        console.expect("control options")
        console.type("echo remember me\r\n")
        console.expect("remember me")
    path = hosts.lab.root(SOURCE) / f"var/lib/ldoms/consoles/{name}/console-log"
    wait_until(lambda: "remember me" in path.read_text(errors="replace"), 5, "it is not in the log")
    hosts.kill_manager(SOURCE)
    hosts.start_manager(SOURCE)
    with telnet(hosts, port) as console:
        console.expect("remember me")
    hosts.ldm(SOURCE, "set-vcons", "log=off", name)
    size = path.stat().st_size
    with telnet(hosts, port) as console:
        console.expect("control options")
        console.type("echo off the record\r\n")
        console.expect("off the record")
    assert path.stat().st_size == size
    hosts.ldm(SOURCE, "set-vcons", "log=", name)
    assert console_of(hosts, name) == (port, "on")


def test_domains_that_share_a_port(hosts: Hosts) -> None:
    """A menu at the port; a clash is refused, and a bound domain gets its new console at once."""
    name = hosts.standing_guest()
    port, _ = console_of(hosts, name)
    other = hosts.add_guest()
    try:
        assert console_of(hosts, other)[0] != port
        refused = hosts.run(SOURCE, "ldm", "set-vcons", f"group={name}", f"port={int(port) + 7}", other)
        assert refused.returncode == 1
        assert f"its console group {name} has port {port}" in refused.stderr
        hosts.ldm(SOURCE, "set-vcons", f"group={name}", other)
        assert console_of(hosts, other)[0] == port
        with telnet(hosts, port) as console:
            console.expect(f"t4-1-vnts-{name}: h, l, c{{id}}, n{{name}}, q:")
            console.type("l")
            console.expect("DOMAIN ID           DOMAIN NAME                   DOMAIN STATE")
            console.type(f"n{other}\r")
            console.expect(f'Connecting to console "{other}" in group "{name}" ....')
            console.type("~n")
            console.expect(f'Connecting to console "{name}" in group "{name}" ....')
            console.type("echo through the menu\r\n")
            console.expect("through the menu")
            console.type("\r~.")
            console.expect("q:")
            console.type("q")
            console.process.wait(ANSWER_S)
    finally:
        hosts.remove_guest(other)


def test_ldm_console_on_a_terminal(hosts: Hosts) -> None:
    """Every key goes to the guest, Ctrl-C too; the terminal is as before when it is left, and when it is killed."""
    name = hosts.standing_guest()
    for way in ("escape", "signal"):
        with program_on_terminal(hosts, SOURCE, "ldm", "console", name) as (console, device):
            before = termios.tcgetattr(device)
            console.expect(f'Connecting to console "{name}"')
            wait_until(lambda: not termios.tcgetattr(device)[3] & termios.ISIG, 5, "the terminal is not raw")
            console.type("echo one\x03echo two\r")
            console.expect("two")
            if way == "escape":
                console.type("~.")
            else:
                interrupt(console.process)
            console.process.wait(ANSWER_S)
            assert console.process.returncode == (0 if way == "escape" else 130)
            assert termios.tcgetattr(device) == before


def test_ldm_console_between_pipes(hosts: Hosts) -> None:
    """What is piped in is typed, and the answer comes out; without a console there is one sentence."""
    name = hosts.standing_guest()
    done = hosts.run(SOURCE, "ldm", "console", name, text="echo from a pipe\r")
    assert done.returncode == 0, done.stderr
    assert "from a pipe" in done.stdout
    assert "pulse" in hosts.run(SOURCE, "timeout", "20", "bash", "-c", f"ldm console {name} <&-", check=True).stdout
    done = hosts.run(SOURCE, "ldm", "console", "primary", text="x")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_a_console_moves_with_its_domain(hosts: Hosts) -> None:
    """Whoever was there is told where it is now; there it has a port, and the log goes on."""
    name = hosts.standing_guest()
    with telnet(hosts, console_of(hosts, name)[0]) as one, program(hosts, SOURCE, "ldm", "console", name) as other:
        one.expect("control options")
        other.expect("control options")
        assert hosts.migrate(name).returncode == 0
        for console in (one, other):
            console.expect(f"LDom {name} has moved to {TARGET}: its console is there now.")
            console.process.wait(ANSWER_S)
    port, log = console_of(hosts, name, TARGET)
    assert log == "on"
    with telnet(hosts, port, TARGET) as console:
        console.expect("control options")
        console.type("echo over here\r\n")
        console.expect("over here")
    path = hosts.lab.root(TARGET) / f"var/lib/ldoms/consoles/{name}/console-log"
    wait_until(lambda: "over here" in path.read_text(errors="replace"), 5, "it is not in the log of the target")


def test_a_client_that_is_killed_writes_no_more(hosts: Hosts) -> None:
    """The next one in line does, without asking."""
    name = hosts.standing_guest()
    with program(hosts, SOURCE, "ldm", "console", name) as first:
        first.expect("control options")
        with program(hosts, SOURCE, "ldm", "console", name) as second:
            second.expect("Another user has write access to this console; ~w takes it.")
            kill_command(first.process)
            first.process.wait(ANSWER_S)
            with program(hosts, SOURCE, "ldm", "console", name) as third:
                third.expect("Another user has write access")  # by then the first is forgotten
                second.type("echo anybody there\r")
                second.expect("anybody there")
