"""``ldoms-lab`` as a person types it: labs come and go, side by side, and leave nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from ldoms.lab import images
from support import check_no_trace, need_root_and_qemu, wait_until

LIMIT_S = 90.0
PROGRAM = str(Path(sys.executable).with_name("ldoms-lab"))


class LabCommand:
    """The command, with its labs in a directory of this test's own."""

    def __init__(self, directory: Path, prefix: Sequence[str] = (), **environment: str) -> None:
        self.directory = directory
        self.environment = {**os.environ, "LDOMS_LABS": str(directory), **environment}
        self._prefix = prefix

    def __call__(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._prefix, PROGRAM, *words],
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def good(self, *words: str, text: str = "") -> str:
        """A command that must work; what it prints."""
        done = self(*words, text=text)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def status(self, name: str) -> list[dict[str, object]]:
        """What a lab says of its hosts."""
        (one,) = json.loads(self.good("--lab", name, "status", "--json"))
        return list(one["hosts"])

    def bad(self, *words: str) -> str:
        """A command that must fail, at once; its one sentence."""
        (sentence,) = self.failing(*words)
        return sentence

    def failing(self, *words: str) -> list[str]:
        """A command that must fail; its progress, and its sentence at the end."""
        done = self(*words)
        assert done.returncode != 0, f"{words} was not refused: {done.stdout}"
        return done.stderr.splitlines()


def processes_that_name(path: str) -> list[int]:
    """Those with a path on their command line."""
    found = psutil.process_iter(["cmdline"])
    return [process.pid for process in found if path in " ".join(process.info["cmdline"] or ())]


@pytest.fixture(scope="module")
def command() -> Iterator[LabCommand]:
    need_root_and_qemu()
    images.build("tiny")
    with tempfile.TemporaryDirectory(prefix="ldl-", dir="/tmp") as directory:
        made = LabCommand(Path(directory))
        try:
            yield made
        finally:
            for name in ("one", "three", "cut"):
                made("--lab", name, "down", "-f")
            check_no_trace(made.directory)


@pytest.fixture(scope="module")
def three(command: LabCommand) -> Iterator[LabCommand]:
    """A lab of three hosts."""
    command.good("--lab", "three", "up", "--hosts", "3")
    try:
        yield command
    finally:
        command.good("--lab", "three", "down")


def test_up_makes_hosts_that_know_each_other(three: LabCommand) -> None:
    """Each has a manager, half of its strands free for guests, and trusts the others."""
    hosts = three.status("three")
    assert [host["name"] for host in hosts] == ["t4-1", "t4-2", "t4-3"]
    assert all(host["manager"] for host in hosts)
    trusted = three.good("--lab", "three", "exec", "t4-3", "--", "ldm", "list-trust")
    assert "t4-1" in trusted
    assert "t4-2" in trusted
    assert "t4-3" in three.good("--lab", "three", "status")


def test_up_again_changes_nothing_and_mends_what_is_missing(three: LabCommand) -> None:
    """The same managers run on; one that was killed is started."""
    before = three.status("three")
    three.good("--lab", "three", "up", "--hosts", "3")
    assert three.status("three") == before
    three.good("--lab", "three", "ldmd", "kill", "t4-2")
    assert three.status("three")[1]["manager"] is None
    three.good("--lab", "three", "up", "--hosts", "3")
    after = three.status("three")
    assert after[1]["manager"]
    assert (after[0], after[2]) == (before[0], before[2])


def test_labs_stand_side_by_side(three: LabCommand) -> None:
    """Under their names, with the same addresses; one goes while the other stays."""
    three.good("--lab", "one", "up", "--hosts", "1")
    told = three.good("status", "-a")
    assert "lab one " in told
    assert "lab three " in told
    three.good("--lab", "one", "exec", "t4-1", "--", "ldm", "add-domain", "only-here")
    assert "only-here" not in three.good("--lab", "three", "exec", "t4-1", "--", "ldm", "list")
    three.good("--lab", "one", "down")
    assert not (three.directory / "one").exists()
    assert all(host["manager"] for host in three.status("three"))


def test_exec_is_like_the_command_itself(three: LabCommand) -> None:
    """Its words, its input, its output, its exit status."""
    done = three(
        "--lab", "three", "exec", "client", "--", "sh", "-c", 'cat; echo "$1" >&2; exit 7', "sh", "a  b", text="in"
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "in", "a  b\n")
    assert three.good("--lab", "three", "exec", "t4-2", "--", "hostname") == "t4-2\n"
    assert three("--lab", "three", "exec", "t4-1", "--", "ldm", "list", "nobody").returncode == 1


def asks_for_the_time(command: LabCommand, number: int) -> bool:
    """Whether the control domain of a host of the lab "three" answers a client, as it does guests."""
    words = ("chronyd", "-x", "-Q", "-t", "10", f"server 10.77.0.20{number} iburst")
    done = command("--lab", "three", "exec", "client", "--", *words)
    return done.returncode == 0 and "System clock wrong by" in done.stderr


def test_control_domains_serve_time(three: LabCommand) -> None:
    """Each of them; what it says of itself is seen on its host, and it comes back with the power."""
    assert all(asks_for_the_time(three, number) for number in (1, 2, 3))
    told = three.good("--lab", "three", "exec", "t4-2", "--", "chronyc", "-n", "tracking")
    assert re.search(r"Stratum +: 8\b", told), told
    three.good("--lab", "three", "power", "off", "t4-3")
    assert not asks_for_the_time(three, 3)
    three.good("--lab", "three", "power", "on", "t4-3")
    assert asks_for_the_time(three, 3)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("exec", "t9", "--", "true"), "lab three has no host t9: it has switch, client, t4-1, t4-2, t4-3"),
        (("shape", "--rate", "fast"), "fast"),
        (("shape", "--delay", "1 parsec"), "1 parsec"),
        (("shape", "--loss", "200%"), "200%"),
        (("shape", "t9"), "has no host t9"),
        (("guest", "ldg1", "/no/such/image"), "/no/such/image"),
        (("up", "--hosts", "99"), "1 to 16 hosts, not 99"),
    ],
)
def test_bad_words_get_one_sentence(three: LabCommand, words: tuple[str, ...], sentence: str) -> None:
    """It names what was wrong; the lab is as before."""
    assert sentence in three.bad("--lab", "three", *words)


def test_a_lab_that_is_not_there(command: LabCommand) -> None:
    """Is said to be so; `down -f` is content."""
    assert command.bad("--lab", "none", "down") == "ldoms-lab: lab none is not up: 'ldoms-lab up' makes it"
    assert command.good("--lab", "none", "down", "-f") == ""
    assert "cannot name a lab" in command.bad("--lab", "No Lab", "up")


def test_ctrl_c_while_a_lab_is_made_leaves_nothing(command: LabCommand) -> None:
    """It is taken away again, and the exit status is that of an interrupted command."""
    process = subprocess.Popen(
        [PROGRAM, "--lab", "cut", "up"],
        env=command.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until((command.directory / "cut/t4-1/ldmd.log").exists, 60, "the lab is not begun")
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not (command.directory / "cut").exists()


def test_down_takes_running_guests_and_killed_managers_along(command: LabCommand) -> None:
    """Nothing of a lab is left, in whatever state it was."""
    command.good("--lab", "one", "up", "--hosts", "1")
    command.good("--lab", "one", "guest", "ldg1", "tiny")
    command.good("--lab", "one", "exec", "t4-1", "--", "ldm", "start-domain", "ldg1")
    command.good("--lab", "one", "ldmd", "kill", "t4-1")
    mark = f"{command.directory}/one"
    assert processes_that_name(mark)
    command.good("--lab", "one", "down")
    assert not processes_that_name(mark)
    assert not (command.directory / "one").exists()


def test_settings_that_do_not_fit_an_image_are_refused(three: LabCommand, tmp_path: Path) -> None:
    """Kernel arguments are for ours, user data for one's own; and nothing has been made."""
    bad = three.bad
    own = tmp_path / "own.raw"
    own.write_bytes(bytes(1 << 20))
    assert "boots by itself" in bad("--lab", "three", "guest", "web", str(own), "-P", "a=b")
    assert "does not run cloud-init" in bad("--lab", "three", "guest", "web", "tiny", "--user-data", "/etc/hostname")
    missing = bad("--lab", "three", "guest", "web", str(own), "--user-data", "/none")
    assert missing.startswith("ldoms-lab: the user data in /none cannot be read")
    assert "there is no image" in bad("--lab", "three", "guest", "web", str(tmp_path / "none.qcow2"))
    assert "web" not in three.good("--lab", "three", "status")


def test_a_guest_that_cannot_be_made_leaves_nothing(three: LabCommand, tmp_path: Path) -> None:
    """A late step fails: what was made on both hosts is gone, the address is free, and what was there before stays."""
    own, other = tmp_path / "own.raw", tmp_path / "other.raw"
    for image in (own, other):
        image.write_bytes(bytes(1 << 20))

    def ldm(host: str, *words: str) -> str:
        return three.good("--lab", "three", "exec", host, "--", "ldm", *words)

    ldm("t4-2", "add-vdsdev", str(other), "web-seed@primary-vds0")
    before = ldm("t4-1", "list-services"), ldm("t4-2", "list-services")
    *_, sentence = three.failing("--lab", "three", "guest", "web", str(own))
    assert sentence.startswith("ldoms-lab: 'ldm add-vdsdev options=ro")
    assert sentence.endswith("on t4-2: volume web-seed@primary-vds0 already exists")
    assert (ldm("t4-1", "list-services"), ldm("t4-2", "list-services")) == before
    assert "web" not in ldm("t4-1", "list-domain")
    assert not list((three.directory / "three").rglob("web-*"))
    assert "web" not in three.good("--lab", "three", "status")
    ldm("t4-2", "remove-vdsdev", "web-seed@primary-vds0")


NOBODY = 65534
CHECKOUT = Path(__file__).parents[2]
# In a mount namespace: /dev/net/tun as an ordinary user has it on most machines, and the checkout where everybody can
# reach it, also if it is below a directory that only root can enter.
AS_NOBODY = """
scratch=$1 checkout=$2; shift 2
mknod "$scratch/tun" c 10 200 && chmod 666 "$scratch/tun" && mount --bind "$scratch/tun" /dev/net/tun
rm "$scratch/tun"
if ! setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$checkout/src"; then
    mkdir "$scratch/checkout" && mount --bind "$checkout" "$scratch/checkout"
    top=/$(echo "$checkout" | cut -d/ -f2)
    mount -t tmpfs -o mode=755 tmpfs "$top" && mkdir -p "$checkout"
    mount --bind "$scratch/checkout" "$checkout" && umount "$scratch/checkout" && rmdir "$scratch/checkout"
fi
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
"""


@pytest.fixture
def nobody(command: LabCommand) -> Iterator[LabCommand]:
    """The command without root, with an image cache of its own."""
    with tempfile.TemporaryDirectory(prefix="ldu-", dir="/tmp") as name:
        directory = Path(name)
        image = images.build("tiny").kernel.parent
        shutil.copytree(image, directory / "cache/ldoms/images" / image.name)
        for path in (directory, *directory.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        prefix = ["unshare", "--mount", "--propagation=private", "sh", "-ec", AS_NOBODY, "sh"]
        prefix += [name, str(CHECKOUT)]
        places = {"HOME": name, "XDG_CACHE_HOME": str(directory / "cache")}
        made = LabCommand(directory / "labs", prefix, **places)
        try:
            yield made
        finally:
            for lab in ("own", "other"):
                made("--lab", lab, "down", "-f")
            check_no_trace(made.directory)
            assert not made.directory.exists()


def test_a_lab_without_root(nobody: LabCommand) -> None:
    """In a user namespace of its own: a guest boots and moves; other labs stand beside it; nothing is left."""
    assert "is not up" in nobody.bad("--lab", "own", "status")
    nobody.good("--lab", "own", "up")
    nobody.good("--lab", "own", "guest", "ldg1", "tiny")

    def ldm(host: str, *words: str) -> str:
        return nobody.good("--lab", "own", "exec", host, "--", "ldm", *words)

    ldm("t4-1", "start-domain", "ldg1")
    ask = "exec 3<>/dev/tcp/10.77.0.10/7 && echo hello >&3 && head -c 1 <&3"
    client = ("--lab", "own", "exec", "client", "--", "timeout", "5", "bash", "-c", ask)
    wait_until(lambda: nobody(*client).returncode == 0, 30, "the guest does not answer")
    ldm("t4-1", "migrate-domain", "-p", str(nobody.directory / "own/pfile"), "ldg1", "ldmadmin@t4-2")
    assert "ldg1" in ldm("t4-2", "list-domain")
    assert nobody("--lab", "own", "exec", "client", "--", "sh", "-c", "exit 7").returncode == 7
    nobody.good("--lab", "other", "up", "--hosts", "1")
    labs = json.loads(nobody.good("status", "-a", "--json"))
    assert [(lab["name"], [bool(host["manager"]) for host in lab["hosts"]]) for lab in labs] == [
        ("other", [True]),
        ("own", [True, True]),
    ]
    nobody.good("--lab", "own", "down")
    nobody.good("--lab", "own", "down", "-f")
    assert "lab other " in nobody.good("status", "-a")
    nobody.good("--lab", "other", "down")
