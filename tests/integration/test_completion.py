"""Completion in real shells, and the short way of `ldm list`, against a real `ldmd`."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import SOURCE, Hosts

DOMAIN = "completed1"
ECHO_S = 20.0
ASK = """
source <(ldm --completion bash)
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:@'
COMP_LINE=$1 COMP_POINT=${#1}
_ldm ldm
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module", autouse=True)
def domain(hosts: Hosts) -> Iterator[None]:
    """A domain whose name nothing else begins like."""
    hosts.ldm(SOURCE, "add-domain", DOMAIN)
    yield
    hosts.ldm(SOURCE, "remove-domain", DOMAIN)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ldm unbind-d", ["unbind-domain"]),
        ("ldm unbind-domain comp", [DOMAIN]),
        ("ldm set-domain failure-policy=", ["ignore", "panic", "reset", "stop"]),
        ("ldm set-domain master=primary,comp", ["primary,completed1"]),
        ("ldm add-vnet x primary-v", ["primary-vsw0"]),
        ("ldm add-vdsdev /etc/ldoms/ldmd.t", ["/etc/ldoms/ldmd.toml"]),
        ("ldm bind-domain nothing-like-that", [""]),
    ],
)
def test_bash_offers_what_there_is(hosts: Hosts, line: str, offered: list[str]) -> None:
    """Whatever stands behind the last = : or @ is what bash puts in place."""
    found = hosts.run(SOURCE, "bash", "-c", ASK, "-", line, check=True).stdout.removesuffix("\n").split("\n")
    assert [word for word in found if not word.endswith("unbind-dom")] == offered


def test_without_ldmd_bash_offers_nothing(hosts: Hosts) -> None:
    """At once, and without a word on the terminal."""
    begun = time.monotonic()
    done = hosts.run(SOURCE, "env", "LDM_SOCKET=/nowhere", "bash", "-c", ASK, "-", "ldm bind-domain comp", check=True)
    assert (done.stdout, done.stderr) == ("\n", "")
    assert time.monotonic() - begun < 5.0


def typed(hosts: Hosts, shell: list[str], lines: list[str], wanted: str) -> str:
    """What a shell on a terminal shows of keys that are pressed, until it shows what is wanted."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        hosts.command(SOURCE, *shell),
        env={**hosts.lab.environment(SOURCE), "TERM": "dumb", "PS1": "> "},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = ""
    try:
        for line in lines:
            os.write(ours, line.encode())
            deadline = time.monotonic() + ECHO_S
            stop = "ready" if line.endswith("\n") else wanted
            while stop not in shown and time.monotonic() < deadline:
                if select.select([ours], [], [], 0.2)[0]:
                    shown += os.read(ours, 4096).decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_key_completes_a_name(hosts: Hosts, shell: str, tmp_path: Path) -> None:
    """On a terminal, as a person does it: half a name, the key, and the rest of it appears."""
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}: run 'setup/system tests'")
    words = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[shell]
    load = {
        "bash": "source <(ldm --completion bash)",
        "zsh": "autoload -U compinit; compinit -D -u; source <(ldm --completion zsh)",
    }
    shown = typed(hosts, words, [f"{load[shell]}; echo rea''dy\n", "ldm unbind-domain comp\t"], DOMAIN)
    assert f"unbind-domain {DOMAIN}" in shown, shown


def test_the_short_way_prints_what_the_long_way_does(hosts: Hosts) -> None:
    """``--`` makes it the long one; an error is told by it alone."""
    for words in ([], ["-p"]):
        assert hosts.ldm(SOURCE, "list", *words, DOMAIN) == hosts.ldm(SOURCE, "list", *words, "--", DOMAIN)
    short, long = (hosts.run(SOURCE, "ldm", "list", *words, "nobody") for words in ([], ["--"]))
    assert (short.returncode, short.stdout, short.stderr) == (1, "", "LDom nobody was not found\n")
    assert (long.returncode, long.stdout, long.stderr) == (1, "", "LDom nobody was not found\n")
