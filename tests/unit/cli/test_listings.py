"""Listings: layouts as scripts and eyes know them, and what `-p` prints read back by the grammar."""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ldoms.cli.command import Command, Support
from ldoms.cli.main import run
from ldoms.cli.table import COMMANDS
from ldoms.manager.network_properties import changed_network
from ldoms.model.domain import VirtualNetwork
from unit.cli import office as known
from unit.cli.office import Office

GOLDEN = Path(__file__).parent / "golden"

LISTINGS = (
    "list",
    "list -p",
    "list ldg1 ldg4",
    "list -l",
    "list -l -p",
    "list -e ldg1",
    "list -e -p ldg1",
    *(
        f"list -o {name} primary ldg1"
        for name in ("console", "core", "cpu", "disk", "domain", "memory", "network", "serial")
    ),
    *(f"list -o {name} -p primary ldg1" for name in ("console", "cpu", "disk", "domain", "memory", "network")),
    "list -o status app-production-01 ldg3 ldg4",
    "list -o status -p app-production-01 ldg3",
    "list -o cpu,memory ldg4",
    "list -o resmgmt,physio,crypto ldg1",
    "list -o core,cpu,resmgmt ldg6",
    "list -o core,resmgmt -p ldg6",
    "list -o crypto -p app-production-01",
    "list -o stats ldg1",
    "list -o resmgmt,stats app-production-01",
    "list -o resmgmt,stats -p app-production-01",
    "list-bindings",
    "list-bindings -p",
    "list-services",
    "list-services -p",
    "list-devices",
    "list-devices -p",
    "list-devices -a",
    "list-devices -a -p",
    "list-devices -a memory",
    "list-devices -S -a -p",
    "list-devices -S",
    "list-devices -B",
    "list-devices io crypto mau cmi",
    "list -S -o core,cpu,memory app-production-01 ldg4",
    "list -S -p -o core,cpu,memory ldg3",
    "list-logctl",
    "list-logctl -d",
    "list-logctl -a",
    "list-logctl -p",
    "list-io",
    "list-io -p",
    "list-variable ldg1",
    "list-history",
    "list-history -p",
    "list-history -o migration",
    "list-history -o migration -p",
    "list-history 0a1b2c3d",
    "list-constraints",
    "list-constraints -p",
    "list-constraints -e ldg1",
    "list-constraints -x",
    "list-spconfig",
    "list-spconfig -r",
    "list-netdev",
    "list-netdev -l",
    "list-netdev -b",
    "list-netdev -o vnet0 -p",
    "list-netdev -l -p",
    "list-netstat -c 1",
    "list-netstat -u k -o net0,vnet0",
    "list-netstat -p",
    "list-trust",
    "list-trust -p",
    "-V",
    "--help",
    "--help migrate-domain",
    "--help add-vnet",
    "--help set-vsw",
)


def file_of(line: str) -> Path:
    return GOLDEN / (re.sub(r"[^A-Za-z0-9]+", "-", line).strip("-") + ".txt")


@pytest.mark.parametrize("line", LISTINGS)
def test_the_layout_is_the_golden_one(line: str, office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """After a change that is meant, LDOMS_WRITE_GOLDEN=1 writes the files anew: read the difference."""
    assert run(shlex.split(line)) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    if os.environ.get("LDOMS_WRITE_GOLDEN"):
        file_of(line).write_text(printed.out)
    assert printed.out == file_of(line).read_text()
    assert not re.search(r"[ \t]$", printed.out, re.MULTILINE), "a line ends in blanks"


def test_no_golden_file_is_left_over() -> None:
    """Each belongs to a line above."""
    assert {path.name for path in GOLDEN.iterdir()} == {file_of(line).name for line in LISTINGS}


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("list-devices mem", "list-devices memory"),
        ("ls -o mem,net ldg1", "list -o memory,network ldg1"),
        ("ls -o mau primary", "list -o crypto primary"),
    ],
)
def test_short_names_are_the_same(short: str, full: str, office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """Of formats and kinds of devices, as of commands."""
    printed = []
    for line in (short, full):
        assert run(shlex.split(line)) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != ""


# ------------------------------------------------------------------------------------- reading -p back


@dataclass
class Record:
    """A keyword, its values, and the lines that continue it."""

    keyword: str
    values: dict[str, str]
    more: list[dict[str, str]] = field(default_factory=list)


def parse(text: str) -> list[Record]:
    """Read the output of ``-p`` by its grammar: VERSION first, then keywords; a line that begins with | goes on."""
    first, *lines = text.splitlines()
    assert re.fullmatch(r"VERSION \d+\.\d+", first)
    records: list[Record] = []
    for line in lines:
        keyword, *pairs = line.split("|")
        values = dict(pair.split("=", 1) for pair in pairs)
        assert len(values) == len(pairs), f"a key is there twice: {line}"
        if keyword:
            assert re.fullmatch(r"[A-Z0-9]+", keyword), line
            records.append(Record(keyword, values))
        else:
            records[-1].more.append(values)
    return records


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[Record]:
    assert run(words) == 0
    return parse(capsys.readouterr().out)


def test_list_p_is_the_model(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """One record a domain: sizes in bytes, times in seconds, shares without a sign; new keys come last."""
    records = printed(capsys, "list", "-p")
    assert [record.keyword for record in records] == ["DOMAIN"] * len(known.VIEWS)
    for record, view in zip(records, known.VIEWS, strict=True):
        assert list(record.values) == ["name", "state", "flags", "cons", "ncpu", "mem", "util", "uptime", "norm_util"]
        domain, status = view.domain, view.status
        assert record.values["name"] == domain.name
        assert record.values["state"] == status.state.value
        assert record.values["flags"] == status.flags
        assert record.values["ncpu"] == str(domain.constraints.vcpus or "")
        bindings = domain.bindings
        mib = bindings.memory_mib if bindings else domain.constraints.memory_mib
        assert record.values["mem"] == (str(mib << 20) if mib else "")
        assert record.values["uptime"] == ("" if status.uptime_s is None else str(int(status.uptime_s)))
        assert (record.values["util"] == "") == (status.utilisation is None)


def test_list_l_p_is_the_model(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """Flags in words; CPUs and memory as continuation lines; disks and networks with all they have."""
    records = printed(capsys, "list", "-l", "-p", "ldg1")
    by_keyword = {record.keyword: record for record in records}
    domain = known.LDG1.domain
    bindings = domain.bindings
    assert bindings is not None
    assert by_keyword["DOMAIN"].values["flags"] == "normal"
    assert by_keyword["UUID"].values == {"uuid": domain.uuid}
    assert by_keyword["MAC"].values == {"mac-addr": domain.mac}
    assert by_keyword["HOSTID"].values == {"hostid": domain.hostid}
    assert by_keyword["CONTROL"].values["cpu-arch"] == "generic"
    assert by_keyword["DEPENDENCY"].values == {"master": "primary"}
    assert [(int(cpu["vid"]), int(cpu["pid"]), int(cpu["cid"])) for cpu in by_keyword["VCPU"].more] == [
        (vcpu.vid, vcpu.strand, vcpu.core) for vcpu in bindings.vcpus
    ]
    assert [(int(one["ra"], 16), int(one["pa"], 16), int(one["size"])) for one in by_keyword["MEMORY"].more] == [
        (block.real_address_mib << 20, block.physical_address_mib << 20, block.size_mib << 20)
        for block in bindings.memory
    ]
    assert {name: value for line in by_keyword["VARIABLES"].more for name, value in line.items()} == dict(
        domain.variables
    )
    disks = [record.values for record in records if record.keyword == "VDISK"]
    assert [(disk["name"], disk["vol"], int(disk["id"])) for disk in disks] == [
        (disk.name, f"{disk.volume}@{disk.service}", disk.id) for disk in domain.disks
    ]
    assert disks[1]["timeout"] == "60"
    assert disks[1]["mpgroup"] == "group1"
    (net,) = [record.values for record in records if record.keyword == "VNET"]
    assert (net["name"], net["mac-addr"], net["service"], net["mtu"]) == (
        *("vnet0", "00:14:4f:fb:2d:7f", "primary-vsw0@primary", "1500"),
    )
    assert by_keyword["VCONS"].values == {
        "group": "ldg1",
        "service": "primary-vcc0@primary",
        "port": "5000",
        "log": "on",
    }


def test_every_property_of_a_network_is_read_back(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """As set-vnet takes it: what is printed could be typed."""
    records = printed(capsys, "list", "-o", "network", "-p", "app-production-01")
    network = next(record.values for record in records if record.keyword == "VNET")
    (entry,) = known.LONG.domain.networks
    typed = {name: network[name] for name in ("vid", "pvlan", "protection", "allowed-ips", "maxbw", "cos", "mode")}
    bare = VirtualNetwork("vnet0", "primary-vsw0", 0, entry.mac, mtu=1500, pvid=10, alt_macs=entry.alt_macs)
    assert changed_network(bare, typed, known.SERVICES.switch("primary-vsw0")) == entry
    assert network["alt-mac-addrs"] == entry.alt_macs[0]


def test_netstat_p_is_the_model(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each interface below its domain; whole numbers, whatever the unit."""
    records = printed(capsys, "list-netstat", "-p", "-u", "g")
    assert [(record.keyword, record.values["name"]) for record in records] == [
        ("DOMAIN", entry.domain) for entry in known.NETWORK_DEVICES
    ]
    (vnet,) = records[1].more
    assert [int(vnet[key]) for key in ("ipackets", "rbytes", "opackets", "obytes")] == [5, 1023, 6, 1024]
    assert [int(vnet[key]) for key in ("ierrors", "oerrors", "idrops", "odrops")] == [1, 2, 3, 4]


def test_netstat_again_shows_what_has_passed(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """The first time all, then what is new since: here nothing."""
    assert run(["list-netstat", "-t", "1", "-c", "2", "-p"]) == 0
    text = capsys.readouterr().out
    assert text.count("VERSION") == 1
    lines = [line for line in text.splitlines() if "name=vnet0|" in line]
    assert [line.split("|")[2:4] for line in lines] == [["ipackets=5", "rbytes=1023"], ["ipackets=0", "rbytes=0"]]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("list-netdev -o nodev0", "there is no network device nodev0 here"),
        ("list-netstat -t none", "-t none is not a number above 0"),
        ("list-netstat -c 0", "-c 0 is not a number above 0"),
        ("list-netstat -u t", "unit t is not known"),
    ],
)
def test_what_netstat_does_not_know(
    words: str, complaint: str, office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, and exit status 2 as for any misuse, or 1."""
    assert run(words.split()) != 0
    assert complaint in capsys.readouterr().err


def test_flags_are_words_in_long_records(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """As the manual has it for primary; plain records have letters."""
    (first, *_) = printed(capsys, "list", "-l", "-p", "primary")
    assert first.values["flags"] == "normal,control,vio-service"


def test_services_p_is_the_model(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """Volumes as continuation lines: vol, opts, dev, mpgroup in that order."""
    records = printed(capsys, "list-services", "-p")
    assert [record.keyword for record in records] == ["VCC", "VSW", "VSW", "VDS", "VDS"]
    assert [records[2].values[key] for key in ("pvid", "vid", "mtu", "linkprop", "mode", "inter-vnet-link")] == [
        *("20", "30,40", "9000", "phys-state", "sc", "auto"),
    ]
    vds = records[3]
    assert next(iter(vds.values)) == "name"
    assert [list(line) for line in vds.more] == [["vol", "opts", "dev", "mpgroup"]] * 2
    assert vds.more[1] == {"vol": "data", "opts": "ro,slice", "dev": "/dev/sdb", "mpgroup": "group1"}
    assert records[0].values["port-range"] == "5000-5100"
    assert records[1].values["mac-addr"] == "00:14:4f:fa:46:6a"
    assert [vds.values["nclients"] for vds in records[3:]] == ["2", "0"], "as list-bindings counts them"


def test_services_of_some_domains(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the control domain; no other has any here."""
    assert printed(capsys, "list-services", "-p", "ldg1", "primary") == printed(capsys, "list-services", "-p")
    assert run(["list-services", "ldg1"]) == 0
    assert capsys.readouterr().out == ""
    assert run(["list-services", "nobody"]) == 1
    assert capsys.readouterr().err == "LDom nobody was not found\n"


def test_devices_p_is_the_model(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """What is free has no `bound`, and all of it adds up."""
    records = {record.keyword: record for record in printed(capsys, "list-devices", "-a", "-p")}
    assert [int(cpu["pid"]) for cpu in records["VCPU"].more if cpu["free"] == "100"] == list(range(9, 16))
    assert sum(int(block["size"]) for block in records["MEMORY"].more) == 16384 << 20
    assert [block.get("bound", "") for block in records["MEMORY"].more] == [
        *("primary", "ldg1", "app-production-01", "ldg3", ""),
    ]
    assert [(core["id"], core["free"]) for core in records["CORE"].more] == [
        ("0", "0"),
        ("1", "0"),
        ("2", "75"),
        ("3", "100"),
    ]


def test_status_p_is_the_model(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """A script polls it: source or target by what this host is, error if a person must act."""
    records = printed(capsys, "list", "-o", "status", "-p", "app-production-01", "ldg3", "ldg4")
    assert [record.keyword for record in records] == ["DOMAIN", "STATUS", "DOMAIN", "STATUS", "DOMAIN"]
    sending, receiving = records[1].more[0], records[3].more[0]
    assert {key: sending[key] for key in ("op", "progress", "error", "target")} == {
        "op": "migration",
        "progress": "17",
        "error": "no",
        "target": "t4-2",
    }
    assert (receiving["error"], receiving["source"]) == ("yes", "t4-3")


def test_history_p_is_the_model(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands, and migrations."""
    commands = printed(capsys, "list-history", "-p")
    assert [(record.values["user"], record.values["result"], record.values["command"]) for record in commands] == [
        ("root", "ok", "start-domain ldg1"),
        ("tracy", "failed", "set-vcpu 99 ldg1"),
        ("root", "begun", "stop-domain ldg1"),
    ]
    done, failed = printed(capsys, "list-history", "-o", "migration", "-p")
    assert (done.values["id"], done.values["outcome"], done.values["suspended"]) == (known.DONE.id, "done", "0.060")
    assert (failed.values["target-domain"], failed.values["suspended"]) == ("ldg4x", "")


@pytest.mark.parametrize(
    "command",
    [command for command in COMMANDS if command.name.startswith("list-") and command.support is not Support.REFUSES],
    ids=lambda command: command.name,
)
def test_every_listing_has_json(command: Command, office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing beside it."""
    words = [command.name, "--json", *(["ldg1"] if command.name == "list-variable" else [])]
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out) or command.support is Support.EMPTY
