"""What an administrator copies into /etc fits the program."""

from __future__ import annotations

import configparser
import dataclasses
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ldoms
from ldoms.manager.config import AuthConfig, Config, HostConfig, read_config

ROOT = Path(ldoms.__file__).parents[2]
PACKAGING = ROOT / "packaging"


def test_the_example_changes_nothing() -> None:
    """As it is shipped, it means the same as no file at all."""
    assert read_config(PACKAGING / "ldmd.toml") == Config()


def test_the_example_shows_every_key_with_its_default(tmp_path: Path) -> None:
    """With the commented lines switched on it is read without error, and names every key of every section."""
    text = re.sub(r"^# (\w+ = )", r"\1", (PACKAGING / "ldmd.toml").read_text(), flags=re.MULTILINE)
    path = tmp_path / "ldmd.toml"
    path.write_text(text)
    wanted = dataclasses.replace(Config(), host=HostConfig(name="t4-1"))
    assert read_config(path) == wanted
    named = {section: list(values) for section, values in tomllib.loads(text).items()}
    assert named == {part.name: _keys(getattr(wanted, part.name)) for part in dataclasses.fields(Config)}


def _keys(section: Any) -> list[str]:
    return [key.name for key in dataclasses.fields(section)]


def service() -> Mapping[str, str]:
    parser = configparser.ConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(PACKAGING / "ldmd.service")
    return parser["Service"]


def test_the_service_leaves_guests_alone() -> None:
    """Stopping ldmd ends ldmd only, and takes away nothing that the next one needs."""
    assert service()["KillMode"] == "process"
    assert service()["OOMPolicy"] == "continue"
    assert "RuntimeDirectory" not in service()
    assert "PrivateTmp" not in service(), "images may be anywhere"


def test_the_service_starts_what_is_installed() -> None:
    """The program of pyproject.toml, from the place that docs/how-to/install.md installs it to."""
    program = Path(service()["ExecStart"])
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert program.name in scripts
    assert f"python3 -m venv {program.parents[1]}" in (ROOT / "docs/how-to/install.md").read_text()


def test_the_pam_file_has_the_name_of_the_service() -> None:
    """It is copied to /etc/pam.d under the name that ldmd asks for."""
    assert (PACKAGING / f"pam-{AuthConfig().pam_service}").exists()
