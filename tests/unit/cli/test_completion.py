"""What a shell is offered at each place of a command line."""

from __future__ import annotations

import pytest

from ldoms.cli.completion import FILES, candidates, names
from ldoms.cli.listing import FORMATS
from ldoms.cli.main import run
from ldoms.cli.table import COMMANDS, aliases
from ldoms.cli.words import Kind
from unit.cli.office import Office

# A line as far as it is typed, and all that is offered.
OFFERED: tuple[tuple[str, set[str]], ...] = (
    ("unb", {"unbind-domain", "unbind-dom", "unbind"}),
    ("--c", {"--completion"}),
    ("--help bind-d", {"bind-domain", "bind-dom"}),
    ("--help bind-domain x", set()),
    ("--completion ", {"bash", "zsh"}),
    ("nothing-like-that ", set()),
    ("bind-domain ld", {"ldg1", "ldg3", "ldg4", "ldg5"}),
    ("rm-dom ldg1 ldg3 l", {"ldg1", "ldg3", "ldg4", "ldg5"}),
    ("add-domain ld", set()),
    ("add-domain fail", {"failure-policy="}),
    ("add-domain cpu-arch=ge", {"cpu-arch=generic"}),
    ("add-domain cpu-arch=native cpu", set()),
    ("set-domain master=ldg1,l", {"master=ldg1,ldg3", "master=ldg1,ldg4", "master=ldg1,ldg5"}),
    ("set-domain hostid=", set()),
    ("set-vcpu 2 p", {"primary"}),
    ("set-vcpu p", set()),
    ("set-vcpu 2 primary ", set()),
    ("list-domain -o cons,c", {"cons,console", "cons,core", "cons,cpu", "cons,crypto"}),
    ("list-domain -o ", set(FORMATS)),
    ("list-domain -l -", {"-e", "-S", "-o", "-p", "--json"}),
    ("list-domain -l -- -", set()),
    ("list-devices c", {"core", "cpu", "crypto", "cmi"}),
    ("add-vds primary-", set()),
    ("remove-vds -f primary-", {"primary-vds0", "primary-vds1"}),
    ("add-vdisk x ", {"ldg1-root@primary-vds0", "data@primary-vds0"}),
    ("add-vdisk x data@primary-vds0 p", {"primary"}),
    ("remove-vdisk v", {"vdisk0", "vdisk1"}),
    ("add-vdsdev /et", {FILES}),
    ("add-vsw linkprop=", {"linkprop=phys-state"}),
    ("add-vnet x ", {"primary-vsw0", "primary-vsw1"}),
    ("remove-vnet v", {"vnet0"}),
    ("set-vcons service=", {"service=primary-vcc0"}),
    ("remove-variable ", {"auto-boot?", "boot-device"}),
    ("remove-variable auto-boot? ldg1", {"ldg1"}),
    ("list-variable ", {"auto-boot?", "boot-device", "primary", "ldg1", "app-production-01", "ldg3", "ldg4", "ldg5"}),
    ("set-variable boot-d", {"boot-device="}),
    ("migrate-domain -p ", {FILES}),
    ("migrate-domain ldg1 t", {"t4-2"}),
    ("remove-trust ", {"t4-2"}),
    ("remove-policy hi", {"high-usage"}),
    ("remove-policy high-usage app", {"app-production-01"}),
    ("set-policy hi", {"high-usage"}),
    ("set-policy name=hi", {"name=high-usage"}),
    ("set-policy enable=no high-usage ldg1 app", {"app-production-01"}),
    ("add-policy name=", {"name=high-usage", "name=rest"}),
    ("add-policy priority=", set()),
    ("set-vnet priority=", {"priority=high", "priority=medium", "priority=low"}),
    ("set-socket ", set()),
)  # fmt: skip


@pytest.mark.parametrize(("line", "offered"), OFFERED)
def test_what_is_offered(line: str, offered: set[str], office: Office) -> None:
    """Words that may stand there and begin so, and none that may not; names are those that exist."""
    words = line.split(" ")
    found = [candidate.word for candidate in candidates(words, lambda kind: names(office, kind))]
    assert set(found) == offered
    assert len(found) == len(offered), "one is offered twice"


def test_every_command_has_its_names() -> None:
    """All commands at once; their other names to whoever begins to type one."""
    assert {one.word for one in candidates([""], lambda kind: ())} == {command.name for command in COMMANDS}
    for command in COMMANDS:
        for name in (command.name, *aliases(command)):
            assert name in {one.word for one in candidates([name], lambda kind: ())}


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.FILE, Kind.SPCONFIG)])
def test_every_kind_of_name_is_looked_up(kind: Kind, office: Office) -> None:
    """This host has some of each."""
    assert list(names(office, kind))


def test_without_ldmd_it_is_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], office: Office
) -> None:
    """A person who presses a key gets what is known without asking, and no complaint."""
    monkeypatch.setenv("LDM_SOCKET", "/nowhere/at/all")
    assert run(["--complete", "bind-domain", "l"]) == 0
    assert capsys.readouterr() == ("", "")
    assert run(["--complete", "set-domain", "failure-policy=p"]) == 0
    assert capsys.readouterr() == ("failure-policy=panic\t\n", "")
    assert run(["--complete"]) == 0
    assert capsys.readouterr().out.startswith("list-domain\tlist domains\n")


def test_an_unknown_shell_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """With those that are known."""
    assert run(["--completion", "fish"]) == 2
    assert capsys.readouterr().err.startswith("--completion: name a shell: bash or zsh\n")
