"""The comparison with other tools, as small as can be: real guests are moved by each of them that is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ldoms.bench.libvirt import why_not
from ldoms.lab import images
from support import check_no_trace, need_root_and_qemu

LIMIT_S = 300


def test_every_tool_moves_a_guest(tmp_path: Path) -> None:
    """One run of each: all are counted, the guest is found on the other side, and nothing is left."""
    need_root_and_qemu()
    images.build("tiny")
    # Short: the path of a socket has 107 characters at most.
    labs, build = Path(tempfile.mkdtemp(prefix="ldt-", dir="/tmp")), tmp_path / "build"
    labs.chmod(0o711)
    tools = ["ldm", "QEMU alone", *(["virsh best --tls"] if not why_not() else [])]
    words = [str(Path(sys.executable).with_name("ldoms-bench")), "peers", "--rounds", "1", "--scenario", "idle"]
    words += ["--fill", "16", "--build", str(build), *(word for tool in tools for word in ("--tool", tool))]
    done = subprocess.run(
        words,
        env={**os.environ, "LDOMS_LABS": str(labs)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = {run["tool"]: run for run in json.loads((build / "peers.json").read_text())}
    assert sorted(runs) == sorted([*tools, "floor", "floor, TLS"])
    for tool, run in runs.items():
        assert run["outcome"] == "moved", run
        assert run["encrypted"] == (tool in ("ldm", "virsh best --tls", "floor, TLS"))
        assert 16e6 < run["bytes"] < 320e6
        assert 0 < run["total_s"] < LIMIT_S
        if not tool.startswith("floor"):
            assert 0 < run["suspension_ms"] < 1000 * run["total_s"] + 1000
            assert 0 < run["target_cpu_s"] < run["cpu_s"]
    assert "| ldm | yes |" in (build / "peers.md").read_text()
    check_no_trace(labs)
    shutil.rmtree(labs)
