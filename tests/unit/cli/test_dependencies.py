"""``list-dependencies``: who needs whom, both ways round; and ``panic-domain``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ldoms.cli.main import run
from ldoms.model.codec import to_wire
from ldoms.model.operation import Operation, OperationStatus
from unit.cli.office import Office

PLAIN = """\
DOMAIN                DEPENDENCY
primary
ldg1                  primary
app-production-01     primary
ldg3
ldg4
ldg5
"""
LONG = """\
DOMAIN                DEPENDENCY       TYPE            DEVICE
ldg1                  primary          VDISK           primary-vds0/vdisk0
                                       VDISK           primary-vds0/vdisk1
                                       VNET            primary-vsw0/vnet0
                                       MASTER
ldg3
"""
REVERSE = """\
DOMAIN                DEPENDENT        TYPE            DEVICE
primary               ldg1             VDISK           primary-vds0/vdisk0
                                       VDISK           primary-vds0/vdisk1
                                       VNET            primary-vsw0/vnet0
                                       MASTER
                      app-production-01 VNET            primary-vsw0/vnet0
"""
PARSED = """\
VERSION 1.11
DOMAIN|name=ldg1
DEPENDENCY|name=primary|type=VDISK|device=primary-vds0/vdisk0
DEPENDENCY|name=primary|type=VDISK|device=primary-vds0/vdisk1
DEPENDENCY|name=primary|type=VNET|device=primary-vsw0/vnet0
DEPENDENCY|name=primary|type=MASTER|device=
"""


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("list-dependencies", PLAIN),
        ("ls-dependencies -l ldg1 ldg3", LONG),
        ("list-dependencies -l -r primary", REVERSE),
        ("list-dependencies -lp ldg1", PARSED),
        ("list-dependencies -p ldg1", "VERSION 1.11\nDOMAIN|name=ldg1\nDEPENDENCY|name=primary\n"),
        ("list-dependencies -r -p ldg3", "VERSION 1.11\nDOMAIN|name=ldg3\n"),
    ],
)
def test_every_form(line: str, printed: str, office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is the same as above is left out for people, and never for programs."""
    assert run(line.split()) == 0
    assert capsys.readouterr() == (printed, "")


def test_json_has_everything(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """By domain."""
    assert run(["list-dependencies", "--json", "app-production-01"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "app-production-01": [
            {"domain": "app-production-01", "provider": "primary", "type": "VNET", "device": "primary-vsw0/vnet0"}
        ]
    }


def test_an_unknown_domain_is_named(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts look for ``not found``."""
    assert run(["list-dependencies", "ldg1", "nobody"]) == 1
    assert capsys.readouterr() == ("", "LDom nobody was not found\n")


@pytest.mark.parametrize(
    ("words", "body"), [(["ldg1"], {"core": ""}), (["--core", "/var/crash/ldg1", "ldg1"], {"core": "/var/crash/ldg1"})]
)
def test_a_panic_is_followed(
    words: list[str], body: dict[str, Any], office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until the guest has panicked, or has not."""
    running = Operation("op", "panic-domain", "ldg1", "root", 1.0)
    office.answers["POST", "/domains/ldg1/panic"] = to_wire(running)
    office.streams = [[to_wire(Operation("op", "panic-domain", "ldg1", "root", 1.0, OperationStatus.SUCCESS))]]
    assert run(["panic-domain", *words]) == 0
    assert office.sent[0] == ("POST", "/domains/ldg1/panic", body)
    assert capsys.readouterr() == ("LDom ldg1 panicked\n", "")
    error = {"code": "no-panic", "message": "LDom ldg1 shows no sign of a panic"}
    over = Operation("op", "panic-domain", "ldg1", "root", 1.0, OperationStatus.FAILURE, error=error)
    office.streams = [[to_wire(over)]]
    assert run(["panic-domain", *words]) == 1
    assert capsys.readouterr() == ("", "LDom ldg1 shows no sign of a panic\n")
