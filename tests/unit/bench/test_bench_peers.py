"""The comparison with other tools: what is moved, what is counted, and what becomes of it."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from ldoms.bench.log import Transaction
from ldoms.bench.peers.hand import run_one, sent_bytes
from ldoms.bench.peers.hands import Result
from ldoms.bench.peers.libvirts import describe
from ldoms.bench.peers.record import (
    ENDLESS,
    FAILED,
    FLOOR,
    MOVED,
    REFUSED,
    PeerRun,
    least_bytes,
    median_of,
    table,
    targets,
)
from ldoms.bench.peers.run import LIMIT_MS, _runs_of_others, fewer_percent, slower_percent
from ldoms.bench.peers.scenario import SCENARIOS, SPARE_MIB, chosen, guests_of
from ldoms.bench.peers.tools import Ldm, Plain, Virsh, all_tools, qemu_words, worst
from ldoms.bench.probe import Ending, Exchange, ProbeRecord
from ldoms.bench.solo import Image
from ldoms.migration.plan import FIRST_DOWNTIME_LIMIT_S
from ldoms.model.codec import to_wire
from ldoms.model.errors import NotFound, RequestError

IMAGE = Image(Path("/home/vmlinuz"), Path("/home/initrd.img"), "quiet")
RUN = PeerRun("1gbit", "ldm", True, 1, 2.0, 60.0, 400_000_000, 3.0, 1.5, MOVED, copy_s=1.5, own_ms=8.0)
VIRSH = replace(RUN, tool="virsh --tls", total_s=4.0, suspension_ms=200.0, copy_s=None, own_ms=None)
LIMITED = replace(VIRSH, tool="virsh --tls, limit 30 ms", total_s=3.0, suspension_ms=80.0, limit_ms=30.0)
TLS_FLOOR = replace(RUN, tool=f"{FLOOR}, TLS", total_s=1.4, suspension_ms=None, copy_s=None, own_ms=None)
DEVICES = """Inter-|   Receive   |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:    1168      18    0    0    0     0          0         0     1168      18    0    0    0     0       0     0
 link0: 5000 7 0 0 0 0 0 0 91234 8 0 0 0 0 0 0
"""


def test_every_tool_moves_the_same_guests() -> None:
    """Name, identity, address and memory do not depend on the tool, and no two guests of a scenario share one."""
    (ten,) = chosen(["ten"])
    guests = guests_of(ten, IMAGE)
    assert guests == guests_of(ten, IMAGE)
    for values in zip(*((one.name, one.uuid, one.mac, one.address) for one in guests), strict=True):
        assert len(set(values)) == ten.guests == 10


def test_a_guest_is_told_what_to_fill_and_rewrite() -> None:
    """And has room for it."""
    (far,) = chosen(["1gbit-far"])
    (guest,) = guests_of(far, IMAGE)
    assert guest.image.boot_args == (
        "quiet pulse.ip=10.77.0.10/24 pulse.fill=384 pulse.size=32 pulse.rate=16 pulse.period=100"
    )
    assert guest.memory_mib == 384 + 32 + SPARE_MIB
    assert far.shape == ("--rate", "1gbit", "--delay", "2.5ms")
    assert far.title == "384 MiB filled, 32 MiB rewritten at 16 MiB/s, 1 Gbit/s, 2.5ms delay"


def test_less_can_be_filled() -> None:
    """Scenarios with less already stay as they are; an unknown one is refused by name."""
    chosen_ones = {one.name: one.fill_mib for one in chosen([], 256)}
    assert chosen_ones == {one.name: min(one.fill_mib, 256) for one in SCENARIOS}
    with pytest.raises(NotFound, match="no scenario busy: there are idle"):
        chosen(["busy"])


def test_libvirt_and_qemu_start_the_guest_alike() -> None:
    """As much memory, the same processor, network address and identity; memory that is free is reported."""
    (guest,) = guests_of(chosen(["idle"], 64)[0], replace(IMAGE, boot_args='note="<1>"'))
    described = ElementTree.fromstring(describe(guest))
    words = qemu_words(guest, "peer0", Path("/home/qmp"))
    after = dict(pairwise(words))
    assert described.findtext("memory") == after["-m"].removesuffix("M") == "320"
    assert described.findtext("uuid") == after["-uuid"]
    assert described.findtext("os/cmdline") == after["-append"]
    assert described.findtext("cpu/model") == after["-cpu"]
    mac, balloon = described.find("devices/interface/mac"), described.find("devices/memballoon")
    assert mac is not None
    assert balloon is not None
    assert any(f"mac={mac.get('address')}" in word for word in words)
    assert balloon.get("freePageReporting") == "on"
    assert any("free-page-reporting=on" in word for word in words)


def test_a_database_has_the_same_disk_and_processors_everywhere() -> None:
    """And boots from it; other guests have none."""
    disk = Path("/home/a&b.qcow2")
    (guest,) = guests_of(chosen(["database"])[0], IMAGE, disk)
    described = ElementTree.fromstring(describe(guest))
    words = qemu_words(guest, "peer0", Path("/home/qmp"))
    source = described.find("devices/disk/source")
    assert source is not None
    assert source.get("file") == str(disk)
    assert any(word.startswith(f"file={disk},format=qcow2") for word in words)
    assert described.findtext("vcpu") == dict(pairwise(words))["-smp"] == "2"
    assert guest.image.boot_args == "quiet root=/dev/vda ldoms.ip=10.77.0.10/24 ldoms.hostname=peer0"
    (idle,) = guests_of(chosen(["idle"])[0], IMAGE)
    assert ElementTree.fromstring(describe(idle)).find("devices/disk") is None
    assert "-drive" not in qemu_words(idle, "peer0", Path("/home/qmp"))


def test_fewer_transactions_show() -> None:
    """A second before the move against one during it."""
    at = [100.0 - 0.1 * number for number in range(1, 31)] + [100.05, 100.15, 100.25, 100.35, 101.5]
    done = [Transaction(0, seq, "NO", when) for seq, when in enumerate(sorted(at))]
    assert fewer_percent(done, 100.0, 1.0) == pytest.approx(60.0)
    assert fewer_percent(done, 90.0, 1.0) is None


def test_virsh_is_run_in_all_its_variants() -> None:
    """Default and best flags, encrypted or not, with the limit of ours or as it is: each has its name."""
    names = [tool.name for tool in all_tools(30, virsh=True)]
    assert len(set(names)) == len(names) == 11
    assert Virsh().name == "virsh"
    assert "virsh best --tls, limit 30 ms" in names
    assert [tool.name for tool in all_tools(30, virsh=False)] == [Ldm(True).name, Ldm(False).name, Plain().name]


def test_the_worst_of_many_commands_counts() -> None:
    """One that had to be called off above all; a refusal is told from a failure by what was said."""
    good, late = Result(0, "", "", late=False), Result(1, "", "", late=True)
    refused = Result(1, "", "\nit would have to be suspended for 900 ms\nmore\n", late=False)
    assert worst([good, good]) == (MOVED, "")
    assert worst([refused, late]) == (ENDLESS, "")
    assert worst([good, refused], ("suspended",)) == (REFUSED, "it would have to be suspended for 900 ms")
    assert worst([good, refused])[0] == FAILED


def test_the_counters_of_a_link_are_found() -> None:
    """By the name of the device: what it has sent, not what it has received."""
    assert sent_bytes(DEVICES, "link0") == 91234
    with pytest.raises(ValueError, match="no device link1"):
        sent_bytes(DEVICES, "link1")


def test_a_command_that_takes_too_long_is_ended() -> None:
    """And that is known; what it said before is kept."""
    words = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"]
    ended = run_one(words, 0.5)
    assert (ended["late"], ended["out"]) == (True, "begun\n")
    assert run_one([sys.executable, "-c", "raise SystemExit(3)"], 30.0)["status"] == 3


def test_targets_compare_with_the_same_encryption() -> None:
    """The fastest of virsh's, the one with our limit, the usual one, and the floor."""
    clear = replace(VIRSH, tool="virsh", encrypted=False, total_s=0.1, suspension_ms=1.0)
    found = {one.what: one for one in targets([RUN, VIRSH, LIMITED, TLS_FLOOR, clear])}
    assert found["ldm: time, to virsh's best"].found == pytest.approx(2 / 3)
    assert found["ldm: suspension, to virsh's with that limit"].found == pytest.approx(0.75)
    assert found["ldm: suspension, to virsh's as called"].found == pytest.approx(0.3)
    assert found["ldm: copy, to the floor"].found == pytest.approx(1.5 / 1.4)
    kept = {what.partition(": ")[2]: one.kept for what, one in found.items()}
    assert [what for what, is_kept in kept.items() if not is_kept] == ["suspension, to virsh's with that limit"]
    assert "MISSED (60 to 80 of virsh --tls, limit 30 ms)" in str(found["ldm: suspension, to virsh's with that limit"])


def test_a_target_without_a_peer_is_not_kept() -> None:
    """It was not measured, and says so."""
    lonely = targets([RUN])[0]
    assert (lonely.found, lonely.kept) == (None, False)
    assert str(lonely).endswith("not measured")


def test_runs_that_did_not_move_the_guest_have_no_part_in_medians() -> None:
    """Nor in what at least has to be moved."""
    failed = replace(VIRSH, outcome=FAILED, total_s=0.01, bytes=1)
    found = {one.what: one for one in targets([RUN, VIRSH, failed])}
    assert found["ldm: time, to virsh's best"].found == pytest.approx(0.5)
    assert least_bytes([RUN, failed], "1gbit") == RUN.bytes
    assert least_bytes([failed], "1gbit") == 0


def test_a_hot_writer_has_to_come_to_an_end() -> None:
    """Moved or refused; one that had to be called off breaks the target."""
    hot = replace(RUN, scenario="hot", outcome=REFUSED)
    assert [one.kept for one in targets([hot])] == [True]
    assert [one.kept for one in targets([hot, replace(hot, outcome=ENDLESS)])] == [False]


def test_a_table_has_medians_and_outcomes() -> None:
    """One line a tool; a figure that nobody has is left empty."""
    lines = table([RUN, replace(RUN, run=2, total_s=4.0, outcome=FAILED), TLS_FLOOR], "1gbit")
    assert len(lines) == 4
    assert "| floor, TLS | yes | 1.4 (1.4 .. 1.4) |  | 400 (400 .. 400) |" in lines[2]
    assert lines[3].startswith("| ldm | yes | 3 (2 .. 4) | 60 (60 .. 60) |")
    assert lines[3].endswith("| 1 moved, 1 failed |")
    assert median_of([], lambda run: run.total_s) is None


def test_a_guest_that_is_slowed_down_shows() -> None:
    """Pages rewritten before the move against those during it, at whatever moments they were read."""
    points = [(0.0, 0), (1.0, 100), (1.9, 190), (3.0, 200), (4.1, 260), (5.0, 400)]
    exchanges = tuple(
        Exchange(seq, at, at, f"{seq} count=1 errors=0 memory=64 dirtied={pages}")
        for seq, (at, pages) in enumerate(points)
    )
    record = ProbeRecord("tcp", "guest", 1.0, 0.0, 5.0, Ending.STOPPED, exchanges)
    assert slower_percent(record, 2.0, 2.0) == pytest.approx((1 - (260 - 190) / 2.2 / 100) * 100)
    assert slower_percent(replace(record, exchanges=exchanges[:1]), 2.0, 2.0) is None


def test_virsh_is_told_what_ldm_tries_first() -> None:
    """Half of its variants, so that both aim at the same suspension."""
    assert pytest.approx(FIRST_DOWNTIME_LIMIT_S * 1000) == LIMIT_MS


def test_runs_of_other_scenarios_stay(tmp_path: Path) -> None:
    """The whole can be measured in parts; a scenario that is measured again has new runs only."""
    runs = [replace(RUN, scenario=name) for name in ("idle", "ten")]
    (tmp_path / "peers.json").write_text(json.dumps(to_wire(runs)))
    assert _runs_of_others(tmp_path, chosen(["idle"])) == runs[1:]
    assert _runs_of_others(tmp_path / "new", chosen([])) == []


@pytest.mark.parametrize("text", ["", "[1]", '[{"scenario": "idle"}]', '"idle"'])
def test_a_file_with_other_runs_is_not_written_over(tmp_path: Path, text: str) -> None:
    """It is somebody's: a sentence says so, before anything is measured."""
    (tmp_path / "peers.json").write_text(text)
    with pytest.raises(RequestError, match=r"peers\.json has no runs of this comparison: move it away"):
        _runs_of_others(tmp_path, chosen(["idle"]))
