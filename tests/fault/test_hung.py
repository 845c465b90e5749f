"""A source QEMU that stops answering in the last part of the copy, and goes on later: so does its guest."""

from __future__ import annotations

import signal
import time

from support import SOURCE, TARGET, Hosts, wait_until

HUNG_S = 30.0


def test_the_guest_goes_on_when_its_qemu_does(hosts: Hosts) -> None:
    """Long after the migration has failed, and after a restart of the manager; until then the operator sees it."""
    guest, source = hosts.running_guest()
    view = hosts.view(source, guest)
    assert view is not None
    before = hosts.ask(guest)
    hosts.close_gate("source-suspend")
    command = hosts.start(source, *hosts.migrate_words(guest, source))
    hosts.wait_at_gate("source-suspend")
    qemu = hosts.qemus(view["domain"]["uuid"])[source]
    qemu.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        hosts.open_gate("source-suspend")
        assert command.wait(60) == 1
        assert command.stderr is not None
        assert f"ldm stop-domain -f {guest}" in command.stderr.read()
        assert (hosts.state(source, guest), hosts.flags(source, guest)[5]) == ("suspended", "e")
        hosts.kill_manager(source)
        hosts.start_manager(source)
        assert (hosts.state(source, guest), hosts.flags(source, guest)[5]) == ("suspended", "e")
        time.sleep(max(0.0, HUNG_S - (time.monotonic() - began)))
    finally:
        qemu.send_signal(signal.SIGCONT)
    hosts.settle(guest, 30)
    wait_until(lambda: hosts.state(source, guest) == "active", 10, "the guest does not go on")
    count, errors = hosts.ask(guest)
    assert (count > before[0], errors) == (True, 0)
    hosts.check_clean(TARGET if source == SOURCE else SOURCE)
    # The manager was restarted meanwhile, and finds a QEMU that was silent again within seconds.
    wait_until(
        lambda: hosts.migrate(guest, source).returncode == 0,
        20,
        "what is left of it is in the way of the next migration",
    )
