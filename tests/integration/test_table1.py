"""Table 1 as a person types it, small: a lab, a database, and moves with two numbers of control-domain CPUs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ldoms.lab import images
from support import check_no_trace, need_root_and_qemu

LIMIT_S = 400


def test_a_small_table(tmp_path: Path) -> None:
    """Two cells of one run each, on one strand to a quarter of a CPU: the table, the picture, and nothing is left."""
    need_root_and_qemu()
    images.build("postgres")
    # Short: the path of a socket has 107 characters at most.
    labs, build = Path(tempfile.mkdtemp(prefix="ldt-", dir="/tmp")), tmp_path / "build"
    labs.chmod(0o711)
    program = str(Path(sys.executable).with_name("ldoms-bench"))
    size = ["--vcpus", "2", "--memory", "1G", "--fill", "32", "--users", "4", "--rate", "4", "--strands-per-cpu", "4"]
    done = subprocess.run(
        [program, "table1", "--quick", "--cpus", "1,3", *size, "--build", str(build)],
        env={**os.environ, "LDOMS_LABS": str(labs)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "$ ldoms-lab --lab table1 exec t4-1 -- ldm add-vcpu 2 primary" in done.stdout
    assert "No transaction was lost, and no connection was dropped." in done.stdout
    kept = json.loads((build / "table1.json").read_text())
    assert [run["control_cpus"] for run in kept["runs"]] == [1, 3]
    for run in kept["runs"]:
        assert run["transferred_mib"] > 32
        assert 0 < run["suspension_s"] < 1
        assert 0 < run["guest_cpu_percent"] <= 100
        assert (build / "runs" / run["run"] / "run.json").exists()
    assert (build / "table1.png").stat().st_size > 10_000
    check_no_trace(labs)
    shutil.rmtree(labs)
