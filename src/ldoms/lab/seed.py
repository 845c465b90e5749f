"""First settings for an image that runs cloud-init: a disk labelled ``cidata``, its data source *NoCloud*."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from ldoms.lab import debian

TOOL = "genisoimage"
"""What it takes; see `ldoms.lab.debian.require`."""
NOTHING_MORE = "#cloud-config\n{}\n"
"""User data that asks for nothing."""


def write_seed(path: Path, *, instance: str, hostname: str, mac: str, address: str, user_data: str) -> None:
    """Write the disk to the file `path`.

    Args:
        path: where; an ISO 9660 file system.
        instance: id of the domain; cloud-init sets an image up once for each.
        hostname: for the guest.
        mac: of the network interface that gets the address.
        address: with its prefix, such as ``10.77.0.10/24``.
        user_data: what else cloud-init shall do, in any of its formats.

    Raises:
        HostError: it cannot be written.
    """
    network = {"version": 2, "ethernets": {"vnet0": {"match": {"macaddress": mac}, "addresses": [address]}}}
    # JSON is YAML, which is what cloud-init reads.
    files = {
        "meta-data": json.dumps({"instance-id": instance, "local-hostname": hostname}),
        "network-config": json.dumps(network),
        "user-data": user_data,
    }
    with tempfile.TemporaryDirectory(prefix="ldoms-seed-") as work:
        for name, content in files.items():
            (Path(work) / name).write_text(content)
        debian.run([TOOL, "-quiet", "-output", str(path), "-volid", "cidata", "-joliet", "-rock", work])
