# ruff: noqa: E501 - the tables read best with a case a line

"""What is typed, what is sent, and what is said when it makes no sense or does not work."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ldoms.api.client import COMMAND_HEADER, error_from
from ldoms.cli import brief, dispatch, listing
from ldoms.cli.command import Command, Support, UsageError
from ldoms.cli.main import run
from ldoms.cli.migrate import parse_target
from ldoms.cli.table import COMMANDS, canonical, find
from ldoms.model.codec import to_wire
from ldoms.model.errors import CheckFailed, HostError, NotFound
from ldoms.model.events import CommandRecord
from ldoms.model.findings import Finding, Severity
from ldoms.model.operation import Operation, OperationStatus
from unit.cli.office import DONE, FAILED, FORECAST, VIEWS, Office

# What a line sends, as the API wants it.
SENT: tuple[tuple[str, str, str, Any], ...] = (
    ("add-domain cpu-arch=generic uuid= ldg9", "POST", "/domains", {"name": "ldg9", "properties": {"cpu-arch": "generic", "uuid": ""}}),
    ("create ldg9", "POST", "/domains", {"name": "ldg9", "properties": {}}),
    ("set-domain master=ldg1,ldg2 ldg3", "PATCH", "/domains/ldg3", {"properties": {"master": "ldg1,ldg2"}}),
    ("rm-dom ldg3", "DELETE", "/domains/ldg3", {}),
    ("destroy ldg3", "DELETE", "/domains/ldg3", {}),
    ("bind ldg3", "POST", "/domains/ldg3/bind", {}),
    ("bind -f -q ldg3", "POST", "/domains/ldg3/bind", {"quick": True}),
    ("unbind-dom ldg3", "POST", "/domains/ldg3/unbind", {}),
    ("start ldg3", "POST", "/domains/ldg3/start", {"force": False}),
    ("add-vcpu 8 primary", "PUT", "/domains/primary/vcpus", {"action": "add", "amount": 8}),
    ("rm-vcpu 8 primary", "PUT", "/domains/primary/vcpus", {"action": "remove", "amount": 8}),
    ("add-vcpu -c 1 ldg1", "PUT", "/domains/ldg1/cores", {"action": "add", "amount": 1}),
    ("set-core 2 ldg1", "PUT", "/domains/ldg1/cores", {"action": "set", "amount": 2}),
    ("add-core cid=1,2 ldg1", "PUT", "/domains/ldg1/cores", {"action": "add", "core_ids": [1, 2]}),
    ("set-core cid= ldg1", "PUT", "/domains/ldg1/cores", {"action": "set", "core_ids": []}),
    ("rm-core -f cid=0 ldg1", "PUT", "/domains/ldg1/cores", {"action": "remove", "core_ids": [0]}),
    ("rm-core -f 1 ldg1", "PUT", "/domains/ldg1/cores", {"action": "remove", "amount": 1}),
    ("set-domain max-cores=4 threading=max-ipc ldg1", "PATCH", "/domains/ldg1", {"properties": {"max-cores": "4", "threading": "max-ipc"}}),
    ("set-mem 4G ldg1", "PUT", "/domains/ldg1/memory", {"action": "set", "amount": 4096}),
    ("rm-mem --auto-adj 300M ldg1", "PUT", "/domains/ldg1/memory", {"action": "remove", "amount": 300, "adjusted": True}),
    ("cancel-op memdr ldg1", "POST", "/domains/ldg1/cancel-memory", {}),
    ("add-vds primary-vds0 primary", "POST", "/disk-services", {"name": "primary-vds0", "domain": "primary"}),
    ("rm-vdiskserver -f primary-vds0", "DELETE", "/disk-services/primary-vds0", {"force": True}),
    ("add-vdsdev -f options={ro,slice} mpgroup=g /dev/sdb data@vds0", "POST", "/disk-services/vds0/volumes", {"name": "data", "backend": "/dev/sdb", "options": ["ro", "slice"], "mpgroup": "g", "force": True, "quick": False}),
    ("rm-vdsdev data@vds0", "DELETE", "/disk-services/vds0/volumes/data", {"force": False}),
    ("add-policy enable=yes vcpu-max=8 name=follow ldg1", "POST", "/domains/ldg1/policies", {"name": "follow", "properties": {"enable": "yes", "vcpu-max": "8"}}),
    ("rm-policy name=follow quiet ldg1", "DELETE", "/domains/ldg1/policies", {"policy": ["follow", "quiet"]}),
    ("set-policy attack= follow ldg1", "PATCH", "/domains/ldg1/policies/follow", {"properties": {"attack": ""}}),
    ("set-policy attack=2 name=follow ldg1", "PATCH", "/domains/ldg1/policies/follow", {"properties": {"attack": "2"}}),
    ("add-vdisk timeout=60 id=3 vdisk1 data@vds0 ldg1", "POST", "/domains/ldg1/disks", {"name": "vdisk1", "volume": "data", "service": "vds0", "timeout_s": 60, "id": 3}),
    ("add-vswitch net-dev=net0 mtu=9000 vsw0 primary", "POST", "/switches", {"name": "vsw0", "domain": "primary", "properties": {"net-dev": "net0", "mtu": "9000"}, "quick": False}),
    ("set-vswitch -q vid=+20 net-dev= vsw0", "PATCH", "/switches/vsw0", {"properties": {"vid": "+20", "net-dev": ""}, "quick": True}),
    ("rm-vnet -f vnet0 ldg1", "DELETE", "/domains/ldg1/networks/vnet0", {"force": True}),
    ("set-vnet vswitch=vsw1 custom/max-vlans=4 protection= vnet0 ldg1", "PATCH", "/domains/ldg1/networks/vnet0", {"properties": {"vswitch": "vsw1", "custom/max-vlans": "4", "protection": ""}}),
    ("set-vdsdev options=ro,excl mpgroup= data@vds0", "PATCH", "/disk-services/vds0/volumes/data", {"options": ["ro", "excl"], "mpgroup": "", "force": False}),
    ("set-vdiskserverdevice -f options= data@vds0", "PATCH", "/disk-services/vds0/volumes/data", {"options": [], "mpgroup": None, "force": True}),
    ("set-vdisk volume=data@vds0 vdisk1 ldg1", "PATCH", "/domains/ldg1/disks/vdisk1", {"timeout_s": None, "volume": "data", "service": "vds0"}),
    ("set-vdisk timeout= vdisk1 ldg1", "PATCH", "/domains/ldg1/disks/vdisk1", {"timeout_s": 0}),
    ("rm-vdisk vdisk1 ldg1", "DELETE", "/domains/ldg1/disks/vdisk1", {"force": False}),
    ("remove-vdisk -f vdisk1 ldg1", "DELETE", "/domains/ldg1/disks/vdisk1", {"force": True}),
    ("add-vnet mac-addr=0:14:4f:fc:0:1 vnet0 vsw0 ldg1", "POST", "/domains/ldg1/networks", {"name": "vnet0", "switch": "vsw0", "properties": {"mac-addr": "0:14:4f:fc:0:1"}}),
    ("add-vconscon port-range=5000-5100 vcc0 primary", "POST", "/concentrators", {"name": "vcc0", "domain": "primary", "properties": {"port-range": "5000-5100"}}),
    ("set-vcons port=5001 group= ldg1", "PUT", "/domains/ldg1/console", {"properties": {"port": "5001", "group": ""}}),
    ("set-var 'auto-boot?=false' boot-device='disk net' ldg1", "PUT", "/domains/ldg1/variables", {"values": {"auto-boot?": "false", "boot-device": "disk net"}}),
    ("rm-var boot-device ldg1", "DELETE", "/domains/ldg1/variables", {"variable": ["boot-device"]}),
    ("cancel-op migration ldg1", "POST", "/domains/ldg1/cancel-migration", {"force": False}),
    ("cancel-operation -f migration ldg1", "POST", "/domains/ldg1/cancel-migration", {"force": True}),
    ("set-migration ldg1 max-bandwidth=16M/s max-suspend=1.5s", "POST", "/domains/ldg1/set-migration", {"max_bandwidth_bytes_s": 16 << 20, "max_suspend_s": 1.5}),
    ("set-migration max-time=10m ldg1", "POST", "/domains/ldg1/set-migration", {"max_time_s": 600.0}),
    ("set-migration ldg1 max-bandwidth=0 max-time=0", "POST", "/domains/ldg1/set-migration", {"max_bandwidth_bytes_s": 0, "max_time_s": 0.0}),
    ("set-logctl cmd=on debug=", "PUT", "/log", {"properties": {"cmd": "on", "debug": ""}, "defaults": False}),
    ("set-logctl defaults info=off", "PUT", "/log", {"properties": {"info": "off"}, "defaults": True}),
    ("add-mau 2 ldg1", "PUT", "/domains/ldg1/crypto", {"action": "add", "amount": 2}),
    ("set-vconscon port-range=5000-5200 vcc0", "PATCH", "/concentrators/vcc0", {"properties": {"port-range": "5000-5200"}}),
    ("set-mau 2 ldg1", "PUT", "/domains/ldg1/crypto", {"action": "set", "amount": 2}),
    ("rm-crypto -f 1 ldg1", "PUT", "/domains/ldg1/crypto", {"action": "remove", "amount": 1}),
    ("add-config mine", "POST", "/configurations", {"name": "mine", "autosave": ""}),
    ("add-spconfig -r mine other", "POST", "/configurations", {"name": "other", "autosave": "mine"}),
    ("set-config factory-default", "PUT", "/configurations/next", {"name": "factory-default"}),
    ("rm-config mine", "DELETE", "/configurations/mine", {}),
    ("rm-spconfig -r @post-migration", "DELETE", "/autosaves/%40post-migration", {}),
    ("start-reconf primary", "POST", "/domains/primary/reconfiguration", {}),
    ("cancel-reconf primary", "DELETE", "/domains/primary/reconfiguration", {}),
    ("cancel-op reconf primary", "DELETE", "/domains/primary/reconfiguration", {}),
    ("remove-trust t4-2", "DELETE", "/trust/t4-2", {}),
    ("add-trust --fingerprint SHA256:00 t4-2", "POST", "/trust", {"host": "t4-2", "fingerprint": "SHA256:00"}),
    ("start a/b", "POST", "/domains/a%2Fb/start", {"force": False}),
)  # fmt: skip

MISUSE: tuple[tuple[str, str], ...] = (
    ("", "Usage:"),
    ("frobnicate", "there is no command frobnicate; 'ldm --help' lists them"),
    ("--help frobnicate", "there is no command frobnicate"),
    ("unbind-domain", "unbind-domain: too few operands"),
    ("bind-domain", "bind-domain: name a domain, or give a file with -i"),
    ("bind-domain a b", "bind-domain: too many operands"),
    ("stop-domain", "name a domain, or use -a"),
    ("stop-domain -x ldg1", "stop-domain: option -x is not known"),
    ("migrate-domain -p", "migrate-domain: option -p needs a value (FILE)"),
    ("migrate-domain ldg1 cidmap=0:1", "migrate-domain: too few operands"),
    ("migrate-domain ldg1 t4-2 t4-3", "migrate-domain: too many operands"),
    ("migrate-domain ldg1 cidmap=0 t4-2", "cidmap=0 is no map of cores: write a core here and one there"),
    ("add-vsw colour=red vsw0 primary", "add-vsw: property colour is not known"),
    ("add-domain mac-addr=1 a b", "properties can be given for one domain at a time"),
    ("set-domain ldg1", "set-domain: give at least one property"),
    ("set-vsw primary-vsw0", "set-vsw: give at least one property"),
    ("set-vnet vnet0 ldg1", "set-vnet: give at least one property"),
    ("set-vcons ldg1", "set-vcons: give at least one property"),
    ("migrate-domain ldg1", "migrate-domain: too few operands"),
    ("list-history ''", "list-history: an operand is empty"),
    ("set-vcpu \u00b2 ldg1", "'\u00b2' is not a number of virtual CPUs"),
    ("add-vcpu -c many ldg1", "'many' is not a number of cores"),
    ("add-core ldg1", "add-core: give a number of cores, or cid=, and a domain"),
    ("add-core cid= ldg1", "cid= names no cores: write their numbers with commas between, such as cid=0,1"),
    ("set-core cid=1,,2 ldg1", "cid=1,,2 names no cores"),
    ("set-core cid=-1 ldg1", "cid=-1 names no cores"),
    ("set-core cid=1 2 ldg1", "set-core: with cid= give a domain, and no number"),
    ("set-core x ldg1", "'x' is not a number of cores"),
    ("set-logctl", "set-logctl: say what is to be logged, or defaults"),
    ("set-logctl cmd", "'cmd' is not of the form LOG=on or LOG=off"),
    ("set-vcpu 99999999999 ldg1", "99999999999 virtual CPUs are more than any host has"),
    ("add-core 99999999999 ldg1", "99999999999 cores are more than any host has"),
    ("set-vcpu many ldg1", "'many' is not a number of virtual CPUs"),
    ("set-vcpu -1 ldg1", "option -1 is not known"),
    ("add-vdisk id=x d v@s ldg1", "id=x is not a number"),
    ("set-vdisk vdisk1 ldg1", "set-vdisk needs volume= or timeout="),
    ("set-vdsdev data@vds0", "set-vdsdev needs options= or mpgroup="),
    ("set-variable novalue ldg1", "'novalue' is not of the form NAME=VALUE"),
    ("list -o colour", "format colour is not known; there are console, core"),
    ("list-devices colour", "there is no kind of device colour"),
    ("list-history -o colour", "the only format is migration"),
    ("migrate ldg1 a@b@c", "'a@b@c' is not a target: write [USER@]HOST[:NEWNAME]"),
    ("migrate -c ldg1 tracy@t4-2", "with -c no user is authenticated"),
    ("migrate --boost many ldg1 t4-2", "--boost many is no number of strands: write a number from 1 on, or auto"),
    ("migrate --boost 0 ldg1 t4-2", "--boost 0 is no number of strands"),
    ("migrate --max-suspend soon ldg1 t4-2", "--max-suspend soon is not a length of time: write 300ms or 1.5s"),
    ("migrate --max-time 1h ldg1 t4-2", "--max-time 1h is not a length of time: write 90s or 10m"),
    ("migrate --on-stall=hope ldg1 t4-2", "--on-stall hope is not known: write abort, throttle, suspend"),
    ("add-domain", "add-domain: name a domain, or give a file with -i"),
    ("set-domain mac-addr=1", "set-domain: name a domain, or give a file with -i"),
    ("add-domain -i file ldg1", "with -i FILE the file says everything"),
    ("start-domain -i file ldg1", "with -i FILE the file says everything"),
    ("init-system", "init-system: give the file with -i"),
    ("init-system ldg1", "init-system: too many operands"),
    ("list-constraints -x -p", "list-constraints: -x stands alone"),
    ("cancel-operation lunch ldg1", "'lunch' cannot be cancelled; there are migration, memdr and reconf"),
    ("add-memory 4G", "add-memory: too few operands"),
    ("add-memory", "add-memory: too few operands"),
    ("add-spconfig", "add-spconfig: give the configuration a name"),
    ("list-spconfig mine", "list-spconfig: a name can be given with -r only"),
)  # fmt: skip

ALIASES = (
    ("ls", "list-domain"), ("list", "list-domain"), ("ls-dom", "list-domain"), ("ls-bindings", "list-bindings"),
    ("ls-services", "list-services"), ("ls-devices", "list-devices"), ("create", "add-domain"), ("destroy", "remove-domain"),
    ("modify", "set-domain"), ("bind", "bind-domain"), ("unbind", "unbind-domain"), ("start", "start-domain"),
    ("stop", "stop-domain"), ("migrate", "migrate-domain"), ("cancel-op", "cancel-operation"), ("history", "list-history"),
    ("set-mau", "set-crypto"), ("add-ndpsldcc", "add-vdpcc"), ("rm-ndpsldcs", "remove-vdpcs"), ("ls-io", "list-io"),
    ("add-mem", "add-memory"), ("rm-mem", "remove-memory"), ("rm-dom", "remove-domain"), ("set-var", "set-variable"),
    ("ls-var", "list-variable"), ("ls-config", "list-spconfig"), ("list-config", "list-spconfig"), ("add-vconscon", "add-vcc"), ("set-vconsole", "set-vcons"), ("add-vdiskserver", "add-vds"),
    ("rm-vdiskserverdevice", "remove-vdsdev"), ("add-vswitch", "add-vsw"), ("rm-vnet", "remove-vnet"), ("rm-vcpu", "remove-vcpu"),
)  # fmt: skip


@pytest.mark.parametrize(("line", "method", "path", "body"), SENT, ids=[case[0].split()[0] for case in SENT])
def test_a_line_becomes_one_request(line: str, method: str, path: str, body: Any, office: Office) -> None:
    """With every option, property and operand where it belongs."""
    assert run(shlex.split(line)) == 0
    assert office.sent == [(method, path, body)]


@pytest.mark.parametrize(("line", "words"), MISUSE)
def test_a_line_without_sense_is_answered_with_its_usage(
    line: str, words: str, office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, with exit status 2, and nothing is sent."""
    assert run(shlex.split(line)) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Usage:" in printed.err or line.startswith(("frob", "--help"))
    assert printed.out == ""
    assert office.sent == []


@pytest.mark.parametrize(("alias", "name"), ALIASES)
def test_every_alias_finds_its_command(alias: str, name: str) -> None:
    """As the manual and people's fingers have them."""
    assert canonical(alias) == name
    assert find(alias).name == name


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command.support is Support.REFUSES], ids=lambda command: command.name
)
@pytest.mark.parametrize("rest", ["", "-f socket_id=1 custom/x= a b c"])
def test_what_only_sparc_has_is_answered_in_one_line(
    command: Command, rest: str, office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever follows it, without asking anybody, and with a status that is not 0; the help has it, too."""
    assert run([command.name, *rest.split()]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"{command.name} is not supported on this platform: .+\n", printed.err)
    assert office.sent == []
    assert run(["--help", command.name]) == 0
    assert "not supported on this platform" in " ".join(capsys.readouterr().out.split())


def test_no_two_commands_share_a_name() -> None:
    """Nor does one hide behind another's alias."""
    names = [command.name for command in COMMANDS]
    assert len(names) == len(set(names))
    assert all(canonical(name) == name for name in names)


def test_options_may_stand_together(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """``-lp`` is ``-l -p``; what follows ``--`` is no option."""
    assert run(["list", "-lp", "ldg1"]) == 0
    together = capsys.readouterr().out
    assert run(["list", "-l", "-p", "--", "ldg1"]) == 0
    assert capsys.readouterr().out == together


def test_an_error_of_the_manager_is_its_sentence(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, exit status 1; one failure does not keep the others from being tried."""
    office.answers["POST", "/domains/ldg1/start"] = HostError("LDom ldg1 cannot be started: no")
    assert run(["start-domain", "ldg1", "ldg3"]) == 1
    printed = capsys.readouterr()
    assert printed.err == "LDom ldg1 cannot be started: no\n"
    assert printed.out == "LDom ldg3 started\n"


def test_all_means_those_to_which_it_applies(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """``start -a`` starts what is bound; primary is left alone."""
    assert run(["start-domain", "-a"]) == 0
    assert [path for _, path, _ in office.sent] == ["/domains/ldg3/start"]


def test_an_unknown_variable_is_named(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts look for ``not found`` on standard error."""
    assert run(["list-variable", "boot-device", "colour", "ldg1"]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "Variable colour was not found in LDom ldg1\n")


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("t4-2", ("", "t4-2", "")),
        ("tracy@t4-2", ("tracy", "t4-2", "")),
        ("tracy@t4-2:new", ("tracy", "t4-2", "new")),
        ("t4-2.example.com:new", ("", "t4-2.example.com", "new")),
        ("[2001:db8::1]:new", ("", "2001:db8::1", "new")),
        ("tracy@[2001:db8::1]", ("tracy", "2001:db8::1", "")),
    ],
)
def test_targets(text: str, parsed: tuple[str, str, str]) -> None:
    """``[USER@]HOST[:NEWNAME]``."""
    assert parse_target(text) == parsed


@pytest.mark.parametrize("text", ["", "@t4-2", "t4-2:", "a@b@c", "tracy@", "2001:db8::1"])
def test_what_is_no_target(text: str) -> None:
    """It is refused before anything is asked of anybody."""
    with pytest.raises(UsageError, match="is not a target"):
        parse_target(text)


# -------------------------------------------------------------------------------------- migrate-domain


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "pfile"
    path.write_text("secret\nsecond line\n")
    path.chmod(0o400)
    return path


def ends(office: Office, status: OperationStatus, **more: Any) -> None:
    """Have the migration end like that."""
    running = Operation("op", "migrate-domain", "ldg1", "root", 1.0, phase="copy", progress=17)
    over = Operation("op", "migrate-domain", "ldg1", "root", 1.0, status, **more)
    office.answers["POST", "/domains/ldg1/migrate"] = to_wire(running)
    office.streams = [[to_wire(running), to_wire(over)]]


def body(office: Office) -> Any:
    return next(sent for method, path, sent in office.sent if path.endswith("/migrate"))


def test_success_says_nothing(office: Office, password_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts take any text for a failure. Only the first line of the file is the password."""
    ends(office, OperationStatus.SUCCESS, result={"report": to_wire(DONE)})
    assert run(["migrate-domain", "-p", str(password_file), "ldg1", "tracy@t4-2:new"]) == 0
    assert capsys.readouterr() == ("", "")
    sent = body(office)
    assert (sent["host"], sent["user"], sent["new_name"], sent["password"]) == ("t4-2", "tracy", "new", "secret")
    assert (sent["force"], sent["dry_run"], sent["certificates"], sent["encrypted"]) == (False, False, False, True)
    assert (sent["max_suspend_s"], sent["max_time_s"], sent["on_stall"]) == (0.3, 0.0, "throttle")


def test_every_option_is_sent(office: Office, password_file: Path) -> None:
    """In the units of the API."""
    ends(office, OperationStatus.SUCCESS, result={"report": to_wire(DONE)})
    options = f"-f -n --max-suspend 1.5s --max-time 10m --on-stall=suspend --max-bandwidth 100M/s --no-encryption -p {password_file}"
    line = f"migrate {options} ldg1 cidmap=0:1,3:2 t4-2"
    assert run(line.split()) == 0
    sent = body(office)
    assert (sent["force"], sent["dry_run"], sent["encrypted"]) == (True, True, False)
    assert (sent["max_suspend_s"], sent["max_bandwidth_bytes_s"]) == (1.5, 100 << 20)
    assert (sent["max_time_s"], sent["on_stall"]) == (600.0, "suspend")
    assert sent["core_map"] == [[0, 1], [3, 2]]


def test_a_dry_run_on_a_terminal_shows_the_forecast(
    office: Office, password_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a person; a script hears nothing."""
    line = ["migrate-domain", "-n", "-p", str(password_file), "ldg1", "t4-2"]
    monkeypatch.setattr("ldoms.cli.migrate.on_terminal", lambda: True)
    ends(office, OperationStatus.SUCCESS, result={"report": to_wire(DONE)})
    assert run(line) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[:5] == [
        "FORECAST           EXPECTED   BETWEEN",
        "total time            2.2 s   1.5 s .. 3.4 s",
        "suspension            55 ms   30 ms .. 120 ms",
        "memory sent         210 MiB   200 MiB .. 220 MiB",
        "slow-down              10 %   5 % .. 25 %",
    ]
    assert "119 MiB/s, tried just now, from QEMU to QEMU" in shown
    assert "would be given up" not in shown
    hot = replace(DONE, forecast=replace(FORECAST, converges=False))
    ends(office, OperationStatus.SUCCESS, result={"report": to_wire(hot)})
    assert run(line) == 0
    assert "would be given up" in capsys.readouterr().out


def test_what_is_set_by_hand_is_sent_as_typed(office: Office) -> None:
    """Several with commas between, or the option several times."""
    ends(office, OperationStatus.SUCCESS, result={"report": to_wire(DONE)})
    line = "migrate -c --tune channels=1,compression=zstd --tune throttle=50:70 ldg1 t4-2"
    assert run(line.split()) == 0
    assert body(office)["tuning"] == {"channels": "1", "compression": "zstd", "throttle": "50:70"}


@pytest.mark.parametrize("tuning", ["speed=9", "channels=none", "channels=1,channels=2"])
def test_what_cannot_be_set_by_hand_is_bad_usage(
    office: Office, capsys: pytest.CaptureFixture[str], tuning: str
) -> None:
    """Nothing is sent."""
    assert run(["migrate", "-c", "--tune", tuning, "ldg1", "t4-2"]) == 2
    assert "--tune: " in capsys.readouterr().err
    assert office.sent == []


@pytest.mark.parametrize(
    "line",
    [
        "set-migration ldg1",
        "set-migration max-time=1s",
        "set-migration ldg1 ldg2 max-time=1s",
        "set-migration ldg1 channels=2",
        "set-migration ldg1 max-suspend=0",
        "set-migration ldg1 max-suspend=2001s",
        "set-migration ldg1 max-suspend=soon",
        "set-migration ldg1 max-bandwidth=fast",
        "set-migration ldg1 max-time=1s max-time=2s",
    ],
)
def test_limits_without_sense_are_bad_usage(office: Office, line: str) -> None:
    """Nothing is sent."""
    assert run(line.split()) == 2
    assert office.sent == []


def test_a_dry_run_shows_the_plan_on_a_terminal(
    office: Office, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each choice with its reason; a script hears nothing, and a move that is none of a guest has no plan."""
    line = ["migrate", "-n", "-c", "ldg1", "t4-2"]
    ends(office, OperationStatus.SUCCESS, result={"report": to_wire(DONE)})
    assert run(line) == 0
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("ldoms.cli.migrate.on_terminal", lambda: True)
    for report, shown in ((DONE, "PLAN\n    channels     two of them\n    encryption   AES\n"), (FAILED, "")):
        ends(office, OperationStatus.SUCCESS, result={"report": to_wire(report)})
        assert run(line) == 0
        out = capsys.readouterr().out
        assert out.endswith(shown) if shown else not out


def test_memory_has_no_named_blocks(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """One clear line, and nothing is sent."""
    assert run(["migrate", "-c", "ldg1", "mblockmap=0x0:0x0", "t4-2"]) == 1
    assert capsys.readouterr().err == (
        "mblockmap= is not supported on this platform: memory has no named blocks here\n"
    )
    assert office.sent == []


def test_with_certificates_there_is_no_password(office: Office) -> None:
    """Nobody is asked for one."""
    ends(office, OperationStatus.SUCCESS, result={"report": to_wire(DONE)})
    assert run(["migrate-domain", "-c", "ldg1", "t4-2"]) == 0
    assert body(office)["certificates"] is True
    assert body(office)["password"] == ""


@pytest.mark.parametrize(
    ("dry_run", "closing"),
    [("-n", "Domain Migration of LDom ldg1 would fail if attempted"), ("", "Domain Migration of LDom ldg1 failed")],
)
def test_every_failing_check_has_its_line(
    office: Office, password_file: Path, capsys: pytest.CaptureFixture[str], dry_run: str, closing: str
) -> None:
    """With its remedy; warnings are for eyes only; the closing line is the one that scripts know."""
    findings = (
        Finding("volumes", Severity.ERROR, "volume a@b does not exist on t4-2", "add it there"),
        Finding("clocks", Severity.OVERRIDABLE, "the clock of t4-2 is 2 s ahead", "synchronise"),
        Finding("enough-vcpus", Severity.WARNING, "LDom ldg1 has 1 virtual CPUs", "quiet time"),
    )
    described = {"family": "CheckFailed", "code": "check-failed", "message": "x", "findings": to_wire(findings)}
    ends(office, OperationStatus.FAILURE, error=described)
    assert run(["migrate-domain", *filter(None, [dry_run]), "-p", str(password_file), "ldg1", "t4-2"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "volume a@b does not exist on t4-2; add it there",
        "the clock of t4-2 is 2 s ahead; synchronise",
        closing,
    ]


def test_a_promise_that_cannot_be_kept_has_a_status_of_its_own(
    office: Office, password_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scripts can tell it from a failure."""
    described = {"family": "MigrationError", "code": "promise", "message": "too busy", "details": {"passes": 9}}
    ends(office, OperationStatus.FAILURE, error=described)
    assert run(["migrate-domain", "-p", str(password_file), "ldg1", "t4-2"]) == 3
    assert capsys.readouterr().err.splitlines() == ["too busy", "Domain Migration of LDom ldg1 failed"]


def test_the_manager_may_be_restarted_meanwhile(
    office: Office, password_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream breaks, and is taken up again until the operation is over."""
    monkeypatch.setattr("ldoms.cli.follow.RETRY_S", 0.0)
    ends(office, OperationStatus.SUCCESS, result={"report": to_wire(DONE)})
    (whole,) = office.streams
    office.streams = [whole[:1], [], whole]
    assert run(["migrate-domain", "-p", str(password_file), "ldg1", "t4-2"]) == 0
    assert office.streams == []


def test_without_a_terminal_nobody_is_asked(
    office: Office, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither for a password nor whether to trust a host."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run(["migrate-domain", "ldg1", "t4-2"]) == 1
    assert "there is no terminal to ask for it: use -p FILE, or -c" in capsys.readouterr().err
    assert run(["migrate-domain", "-c", "ldg1", "t4-9"]) == 1
    assert "the certificate of host t4-9 is not known" in capsys.readouterr().err
    assert not any(path.endswith("/migrate") for _, path, _ in office.sent)


def test_the_prompt_is_that_of_ldoms(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Echo is off: that is getpass's business."""
    prompts = []
    monkeypatch.setattr(sys, "stdin", os.fdopen(os.openpty()[1]))
    monkeypatch.setattr("getpass.getpass", lambda prompt: prompts.append(prompt) or "typed")
    ends(office, OperationStatus.SUCCESS, result={"report": to_wire(DONE)})
    assert run(["migrate-domain", "ldg1", "t4-2"]) == 0
    assert prompts == ["Target Password: "]
    assert body(office)["password"] == "typed"


def test_an_end_of_input_at_the_prompt_is_no_password(
    office: Office, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-D is said to be what it is, on a line of its own."""

    def ended(prompt: str) -> str:
        sys.stderr.write(prompt)
        raise EOFError

    monkeypatch.setattr(sys, "stdin", os.fdopen(os.openpty()[1]))
    monkeypatch.setattr("getpass.getpass", ended)
    assert run(["migrate-domain", "ldg1", "t4-2"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "Target Password: ",
        "no password was typed: type it, or use -p FILE, or -c",
        "Domain Migration of LDom ldg1 failed",
    ]
    assert not any(path.endswith("/migrate") for _, path, _ in office.sent)


def test_an_unknown_domain_is_found_out_before_a_password_is_asked_for(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the closing line comes all the same."""
    assert run(["migrate-domain", "-p", "/nowhere", "nobody", "t4-2"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "LDom nobody was not found",
        "Domain Migration of LDom nobody failed",
    ]


# ------------------------------------------------------------------------------------------ the program


def test_without_a_manager_it_says_so() -> None:
    """In one sentence, with the socket."""
    done = subprocess.run(
        [Path(sys.executable).with_name("ldm"), "list"],
        env={**os.environ, "LDM_SOCKET": "/nowhere/ldmd.sock"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("ldmd does not answer on /nowhere/ldmd.sock: is it running?")


def test_a_reader_that_goes_away_is_no_error() -> None:
    """``ldm --help | head -1``."""
    program = Path(sys.executable).with_name("ldm")
    done = subprocess.run(
        f"{program} --help | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "Usage:\n", "")


def test_errors_come_back_as_what_they_were(office: Office) -> None:
    """The client makes of an answer the error that the manager has raised."""
    missing = error_from({"family": "NotFound", "code": "not-found", "message": "x", "details": {"a": 1}})
    assert type(missing) is NotFound
    assert missing.details == {"a": 1}
    assert isinstance(error_from({"family": "CheckFailed", "code": "c", "message": "m", "findings": []}), CheckFailed)
    assert error_from({"family": "os.system", "code": "c", "message": "m"}).code == "c"


@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("add-domain -i", {"action": "add"}),
        ("set-dom -i", {"action": "set"}),
        ("bind -i", {"action": "bind"}),
        ("start -i", {"action": "start"}),
        ("init-system -i", {"action": "init", "force": False, "services_only": False}),
        ("init-system -frs -i", {"action": "init", "force": True, "services_only": True}),
    ],
)
def test_a_description_is_sent_as_it_is(
    line: str, more: dict[str, Any], office: Office, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what is left out of it is told on standard error."""
    file = tmp_path / "ldg1.xml"
    file.write_text("\ufeff<LDM_interface/>")
    office.answers["POST", "/constraints"] = {"domains": ["ldg1"], "warnings": ["mau is left out"]}
    assert run([*line.split(), str(file)]) == 0
    assert office.sent == [("POST", "/constraints", {"xml": "<LDM_interface/>", **more})]
    printed = capsys.readouterr()
    assert printed.err.startswith("Notice: mau is left out\n")
    assert printed.out == ("LDom ldg1 started\n" if line.startswith("start") else "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff\xfe<", "it is not text in UTF-8"),
        (b"x" * (4 << 20 | 1), "it is larger than 4 MiB"),
    ],
)
def test_a_file_that_is_no_description_is_named(
    content: bytes | None, words: str, office: Office, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one sentence, and nothing is sent."""
    file = tmp_path / "ldg1.xml"
    if content is not None:
        file.write_bytes(content)
    assert run(["add-domain", "-i", str(file)]) == 1
    printed = capsys.readouterr().err
    assert words in printed
    assert str(file) in printed
    assert office.sent == []


def test_a_boot_device_that_is_not_there_is_warned_of(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be added later, so it is kept."""
    domain = next(view.domain for view in VIEWS if view.domain.name == "ldg1")
    set_now = replace(domain, variables=(("boot-device", "vdisk0 cdrom net"),))
    office.answers["PUT", "/domains/ldg1/variables"] = to_wire(set_now)
    assert run(["set-variable", "boot-device=vdisk0 cdrom net", "ldg1"]) == 0
    assert capsys.readouterr() == (
        *("",),
        "warning: LDom ldg1 has no device cdrom: it is passed over at the start\n",
    )


def test_values_are_taken_as_they_are(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """With blanks, equals signs and lines of their own, or empty."""
    text = "devalias a=b\n  c d"
    assert run(["add-variable", f"nvramrc={text}", "keyboard-layout=", "ldg1"]) == 0
    assert office.sent == [("PUT", "/domains/ldg1/variables", {"values": {"nvramrc": text, "keyboard-layout": ""}})]


def test_what_the_manager_wants_to_be_known_is_printed(
    office: Office, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, whatever is asked; also on the short way, which asks as a command line does."""
    office.notices.append("a newer autosave is there")
    assert run(["list-spconfig"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "a newer autosave is there\n"
    assert "initial [current]" in printed.out
    asked: list[Any] = []

    class Answer:
        status, notice = 200, "a%20newer%0Aautosave"

        def __enter__(self) -> Answer:
            return self

        def __exit__(self, *what: object) -> None:
            pass

        def json(self) -> list[Any]:
            return []

    def exchange(*what: Any) -> Answer:
        asked.append(what)
        return Answer()

    monkeypatch.setattr(brief, "connect", lambda path: None)
    monkeypatch.setattr(brief, "exchange", exchange)
    assert brief.main(["list", "-p"])
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("VERSION 1.11\n", "a newer\nautosave\n")
    assert asked[0][3] == {COMMAND_HEADER: "list-domain"}


@pytest.mark.parametrize("line", ["remove-core -g /SYS/CMU0 ldg1", "remove-core -g /SYS/CMU0 -n 2 ldg1"])
def test_there_are_no_resource_groups(line: str, office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """One clear line, and nothing is sent."""
    assert run(line.split()) == 1
    assert "is not supported on this platform" in capsys.readouterr().err
    assert office.sent == []


def test_a_command_goes_into_the_history_as_it_was_typed(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quoted, so that it can be typed again."""
    typed: list[str] = []
    made = dispatch.Client

    def client(command: str = "") -> Any:
        typed.append(command)
        return made(command=command)

    monkeypatch.setattr(dispatch, "Client", client)
    assert run(["set-var", "boot-args=quiet ro", "nvramrc=one\ntwo", "ldg1"]) == 0
    assert typed == ["set-var 'boot-args=quiet ro' 'nvramrc=one\ntwo' ldg1"]
    record = CommandRecord(1.0, "root", typed[0], True)
    (line,) = listing.command_lines([record])
    assert line.endswith(r" ok     ldm set-var 'boot-args=quiet ro' 'nvramrc=one\ntwo' ldg1")
    assert list(listing.command_records([record]))[1].endswith(
        r"|command=set-var 'boot-args=quiet ro' 'nvramrc=one\ntwo' ldg1"
    )
