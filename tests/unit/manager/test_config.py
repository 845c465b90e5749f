"""``ldmd.toml``: every setting is read, and whatever has no meaning is named with its file and place."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldoms.manager.config import Config, HostConfig, Places, host_size, read_config
from ldoms.model.errors import RequestError

FULL = """
[host]
name = "t4-1"
cpus = [0, 1]
strands_per_cpu = 4
confine = false
memory = "4G"
[network]
address = "192.0.2.1"
port = 7000
data_address = "198.51.100.1"
data_ports = [9000, 9009]
auto_inter_vnet_link_limit = 2
isolate_vnets = true
[migration]
incoming = false
outgoing = false
save_spconfig = true
max_outgoing = 3
max_incoming = 4
bandwidth = "100M"
[hypervisor]
accelerator = "tcg"
probe_kernel = "/boot/vmlinuz"
dirty_ring = true
[auth]
pam_service = "login"
group = "wheel"
review_group = "adm"
[ldmd]
autorecovery_policy = 3
"""


def test_every_setting_is_read(tmp_path: Path) -> None:
    """None of them has its default afterwards."""
    path = tmp_path / "ldmd.toml"
    path.write_text(FULL)
    config, defaults = read_config(path), Config()
    for section in ("host", "network", "migration", "hypervisor", "auth", "ldmd"):
        for key in type(getattr(config, section)).__dataclass_fields__:
            assert getattr(getattr(config, section), key) != getattr(getattr(defaults, section), key), key
    assert config.network.data_ports == (9000, 9009)


def test_no_file_means_defaults(tmp_path: Path) -> None:
    """A host needs no configuration."""
    assert read_config(tmp_path / "none") == Config()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[hsot]\n", "there is no section [hsot]; the sections are host, network"),
        ("host = 1\n", "host must be a section"),
        ("[host]\ncpu = [1]\n", "[host] has no setting cpu; it has name, cpus"),
        ("[host]\nname = 5\n", "[host] name must be a text in quotes, not 5"),
        ("[host]\nstrands_per_cpu = true\n", "strands_per_cpu must be a number, not True"),
        ("[host]\nstrands_per_cpu = 0\n", "strands_per_cpu must be between 1 and 256"),
        ('[host]\ncpus = ["a"]\n', "cpus must be a list of numbers"),
        ("[host]\nconfine = 1\n", "confine must be true or false, not 1"),
        ("[network]\nport = 0\n", "port must be between 1 and 65535"),
        ("[network]\ndata_ports = [9000]\n", "data_ports must be a list of two ports"),
        ("[network]\ndata_ports = [9009, 9000]\n", "data_ports must be a list of two ports"),
        ('[hypervisor]\naccelerator = "xen"\n', 'accelerator must be "auto", "kvm" or "tcg"'),
        ("[host\n", "Expected ']'"),
    ],
)
def test_what_has_no_meaning_is_named(tmp_path: Path, text: str, reason: str) -> None:
    """With the file, the section and the setting."""
    path = tmp_path / "ldmd.toml"
    path.write_text(text)
    with pytest.raises(RequestError) as caught:
        read_config(path)
    assert caught.value.code == "bad-config"
    assert caught.value.message.startswith(f"the configuration {path} cannot be used: ")
    assert reason in caught.value.message


def test_a_directory_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    """As any file that cannot be read."""
    with pytest.raises(RequestError, match="Is a directory"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (HostConfig(cpus=(4711,)), "cpus names CPU 4711, which this process cannot use"),
        (HostConfig(memory="900000G"), 'memory = "900000G" is more than the'),
        (HostConfig(memory="much"), "'much' is not a memory size"),
    ],
)
def test_a_machine_cannot_be_divided_into_more_than_it_has(config: HostConfig, reason: str) -> None:
    """Neither CPUs nor memory."""
    with pytest.raises(RequestError, match=reason):
        host_size(config)


def test_memory_is_divided_in_steps(tmp_path: Path) -> None:
    """Of 256 MiB, and never more than asked for."""
    assert host_size(HostConfig(memory="1000M")).memory_mib == 768


def test_everything_lives_below_the_root() -> None:
    """And managers with different roots do not share cgroups."""
    one, other = Places(Path("/a")), Places(Path("/b"))
    for place in (one.config, one.state, one.run, one.socket, one.pid_file, one.domain("u")):
        assert place.is_relative_to("/a")
    assert one.instance != other.instance
    assert Places(Path("/")).instance == "main"
