"""How QEMU sends and receives the memory of a guest: capabilities, key, connections, progress."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ldoms.hypervisor.qmp import QUICK_S, SLOW_S, Monitor
from ldoms.hypervisor.states import MigrationEnd, MigrationStatus
from ldoms.model.errors import HostError
from ldoms.model.migration import MigrationPlan, Progress
from ldoms.model.sizes import MIB

HANDSHAKE_S = 3.0
"""The other end of a copy may take so long to agree on TLS. The guest may stand still meanwhile."""
HANDSHAKE_POLL_S = 0.01
PAUSE_S, PAUSE_POLL_S = 5.0, 0.05
"""A connection that was broken is noticed within so long."""
READY_PERCENT = 1
"""The least that QEMU can hold a guest back by: what it does while it is ready to be told more."""
ANY_CHANGE_PERCENT, MANY_CHANGES_PERCENT = 1, 100
"""QEMU holds a guest back only if it changes more than so much of what is sent meanwhile."""
KEYS_DIRECTORY = "keys"
KEY_USER = "ldoms"
TLS_OBJECT = "ldoms-tls"
DH_FILE = "dh-params.pem"
# The group ffdhe2048 of RFC 7919. Our ciphers do not use it, but a QEMU that is to receive makes one of its own where
# it finds none (10.0, crypto/tlscreds.c), which took 26 to 390 ms, and up to 0.8 s beside others.
_DH_PARAMETERS = """-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


class QemuMigration:
    """One end of a migration. The promises are those of `ldoms.hypervisor.engine.Guest`."""

    def __init__(self, name: str, directory: Path, monitor: Monitor, break_connections: Callable[[], None]) -> None:
        """Prepare for domain `name`, whose key is kept below `directory` as long as it is needed."""
        self._name = name
        self._directory = directory
        self._monitor = monitor
        self._break_connections = break_connections

    async def set_up(self, end: MigrationEnd, plan: MigrationPlan, key: str) -> None:
        """Set capabilities and parameters, all of them, and read them back."""
        await self._set_capabilities(plan.capabilities)
        if plan.encrypted:
            await self._add_key(end, plan.cipher, key)
        wanted = await self._known(_parameters(plan))
        await self._monitor.execute("migrate-set-parameters", wanted)
        await self._read_back(plan, wanted)

    async def clear(self) -> None:
        """Take back what `set_up` set, and forget the key."""
        # What one attempt sets stays set in QEMU for the next.
        with suppress(HostError):
            await self._monitor.execute("migrate-set-parameters", {"tls-creds": ""})
        with suppress(HostError):
            await self._monitor.execute("object-del", {"id": TLS_OBJECT})
        with suppress(HostError):
            await self._set_capabilities(())
        self._forget_key()

    async def listen(self, host: str, port: int) -> None:
        """Wait for the memory of another host's guest."""
        try:
            await self._monitor.execute(
                # With exit-on-error a failed copy would end the process before we can ask it why.
                "migrate-incoming",
                {"channels": _channels(host, port), "exit-on-error": False},
                limit_s=SLOW_S,
            )
        except HostError as error:
            _raise_if_taken(error, port)
            raise

    async def send(self, host: str, port: int) -> None:
        """Start to send the guest's memory."""
        await self._monitor.execute("migrate", {"channels": _channels(host, port)}, limit_s=SLOW_S)
        await self._watch_handshake()

    async def continue_switchover(self) -> None:
        """Leave the state ``pre-switchover``: send the rest."""
        await self._monitor.execute("migrate-continue", {"state": "pre-switchover"}, limit_s=QUICK_S)

    async def cancel(self) -> None:
        """Ask for an end of the migration."""
        await self._monitor.execute("migrate_cancel", limit_s=QUICK_S)

    async def cut(self) -> None:
        """Break the connections of the migration, also when QEMU is blocked on them."""
        # From outside: QEMU's own `yank` knows a connection only once TLS has been agreed on. There are no others.
        self._break_connections()

    async def start_postcopy(self) -> None:
        """Go over as soon as can be."""
        await self._monitor.execute("migrate-start-postcopy")

    async def pause_postcopy(self) -> None:
        """Break the connection of a postcopy."""
        await self._monitor.execute("migrate-pause", out_of_band=True)

    async def listen_again(self, host: str, port: int) -> None:
        """Wait for the rest of the memory at another place."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + PAUSE_S
        where = {"uri": f"tcp:{f'[{host}]' if ':' in host else host}:{port}"}
        while True:
            try:
                await self._monitor.execute("migrate-recover", where, out_of_band=True)
                return
            except HostError as error:
                _raise_if_taken(error, port)
                if error.code != "qemu-refused" or clock() > deadline:
                    raise
            # It does so only when it knows that the connection is gone. A cut link tells nobody.
            with suppress(HostError):
                await self.pause_postcopy()
            await asyncio.sleep(PAUSE_POLL_S)

    async def send_again(self, host: str, port: int) -> None:
        """Go on sending the rest, over a new connection."""
        await self._monitor.execute("migrate", {"channels": _channels(host, port), "resume": True}, limit_s=SLOW_S)

    async def progress(self) -> Progress:
        """How far the migration is."""
        return _progress(await self._monitor.execute("query-migrate"))

    async def set_downtime_limit(self, seconds: float) -> None:
        """Allow a running migration to suspend the guest for so long."""
        await self._monitor.execute("migrate-set-parameters", {"downtime-limit": _limit_ms(seconds)})

    async def set_bandwidth(self, bytes_s: int) -> None:
        """Limit a running migration."""
        limits = {"max-bandwidth": bytes_s, "max-postcopy-bandwidth": bytes_s}
        await self._monitor.execute("migrate-set-parameters", limits)

    async def throttle(self, percent: int) -> None:
        """Have the guest held back by so much of its CPU time."""
        await self._monitor.execute("migrate-set-parameters", _throttle_parameters(percent, ANY_CHANGE_PERCENT))

    async def announce(self) -> None:
        """Tell the network where the guest's addresses are now."""
        await self._monitor.execute("announce-self", {"initial": 50, "max": 550, "rounds": 5, "step": 100})

    # Inside

    async def _watch_handshake(self) -> None:
        # QEMU agrees on TLS in its main loop, and waits there for the other end; soon its virtual CPUs wait as well.
        clock = asyncio.get_running_loop().time
        deadline = clock() + HANDSHAKE_S
        try:
            while clock() < deadline:
                answer = await self._monitor.execute("query-migrate", limit_s=HANDSHAKE_S)
                if answer.get("status") not in (MigrationStatus.NONE, MigrationStatus.SETUP):
                    return
                await asyncio.sleep(HANDSHAKE_POLL_S)
        except HostError as error:
            if error.code == "qemu-silent":
                await self.cut()
                raise HostError(
                    "the target has taken the connection for the memory and says nothing on it", code="target-mute"
                ) from error
            raise

    async def _set_capabilities(self, wanted: tuple[str, ...]) -> None:
        now = {
            entry["capability"]: entry["state"] for entry in await self._monitor.execute("query-migrate-capabilities")
        }
        missing = sorted(set(wanted) - set(now))
        if missing:
            raise HostError(
                f"the QEMU of LDom {self._name} has no migration capability {', '.join(missing)}", code="qemu-refused"
            )
        changes = [
            {"capability": name, "state": name in wanted} for name, is_on in now.items() if is_on != (name in wanted)
        ]
        if changes:
            await self._monitor.execute("migrate-set-capabilities", {"capabilities": changes})

    async def _add_key(self, end: MigrationEnd, cipher: str, key: str) -> None:
        directory = self._directory / KEYS_DIRECTORY
        self._forget_key()
        directory.mkdir(mode=0o700)
        file = os.open(directory / "keys.psk", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as keys:
            keys.write(f"{KEY_USER}:{key}\n")
        credentials = {"qom-type": "tls-creds-psk", "id": TLS_OBJECT, "dir": str(directory), "priority": cipher}
        if end is MigrationEnd.SEND:
            credentials |= {"endpoint": "client", "username": KEY_USER}
        else:
            credentials |= {"endpoint": "server"}
            (directory / DH_FILE).write_text(_DH_PARAMETERS)
        await self._monitor.execute("object-add", credentials)
        if end is MigrationEnd.SEND:
            # Loaded; the receiving end reads its file anew for each channel that connects.
            self._forget_key()

    async def _known(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Without what an older QEMU does not have, if that was only to be put back to what is usual."""
        names = set(await self._monitor.execute("query-migrate-parameters"))
        return {name: value for name, value in wanted.items() if name in names or _USUAL.get(name) != value}

    def _forget_key(self) -> None:
        shutil.rmtree(self._directory / KEYS_DIRECTORY, ignore_errors=True)

    async def _read_back(self, plan: MigrationPlan, wanted: Mapping[str, Any]) -> None:
        # Mismatched ends hang for ever instead of failing, so nothing is taken for granted.
        entries = await self._monitor.execute("query-migrate-capabilities")
        on = {entry["capability"] for entry in entries if entry["state"]}
        parameters = await self._monitor.execute("query-migrate-parameters")
        differing = {name for name, value in wanted.items() if parameters.get(name) != value}
        if on != set(plan.capabilities) or differing:
            raise HostError(
                f"the QEMU of LDom {self._name} did not keep the migration settings"
                f" {', '.join(sorted(differing | (on ^ set(plan.capabilities))))}",
                code="qemu-refused",
            )


def _raise_if_taken(error: HostError, port: int) -> None:
    if "already in use" in error.message:
        raise HostError(f"port {port} is taken by another process", code="port-taken") from error


def _channels(host: str, port: int) -> list[dict[str, Any]]:
    address = {"transport": "socket", "type": "inet", "host": host, "port": str(port)}
    return [{"channel-type": "main", "addr": address}]


_USUAL: Mapping[str, Any] = {
    "zero-page-detection": "multifd",
    "xbzrle-cache-size": 64 * MIB,
    "avail-switchover-bandwidth": 0,
    "vcpu-dirty-limit": 1,
    "max-postcopy-bandwidth": 0,
}
"""QEMU's own values of what a plan need not set. They are put back, as what one attempt sets stays for the next."""


def _parameters(plan: MigrationPlan) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        **_USUAL,
        "avail-switchover-bandwidth": plan.switchover_bandwidth_bytes_s,
        "max-bandwidth": plan.max_bandwidth_bytes_s,
        "max-postcopy-bandwidth": plan.max_bandwidth_bytes_s,
        "downtime-limit": _limit_ms(plan.downtime_limit_s),
        "tls-creds": TLS_OBJECT if plan.encrypted else "",
    }
    if "auto-converge" in plan.capabilities:
        # QEMU takes the capability only before it starts, and what it means at any time.
        parameters |= _throttle_parameters(READY_PERCENT, MANY_CHANGES_PERCENT)
    if "multifd" in plan.capabilities:
        # Never changed while a migration runs: QEMU 10.0 crashes on it.
        parameters |= {"multifd-channels": plan.channels, "multifd-compression": plan.compression}
    if plan.zero_pages:
        parameters["zero-page-detection"] = plan.zero_pages
    if plan.xbzrle_cache_bytes:
        parameters["xbzrle-cache-size"] = plan.xbzrle_cache_bytes
    if plan.dirty_limit_bytes_s:
        parameters["vcpu-dirty-limit"] = max(1, plan.dirty_limit_bytes_s // MIB)
    return parameters


def _limit_ms(seconds: float) -> int:
    # Never 0: at the end of a pass QEMU 10.0 then stops the guest without a look at what has been changed meanwhile.
    return max(1, round(seconds * 1000))


def _throttle_parameters(percent: int, threshold_percent: int) -> dict[str, Any]:
    """Those by which QEMU holds a guest back by that share at once, and never by more."""
    return {
        "throttle-trigger-threshold": threshold_percent,
        "cpu-throttle-initial": percent,
        "cpu-throttle-increment": percent,
        "max-cpu-throttle": percent,
        "cpu-throttle-tailslow": False,
    }


def _progress(answer: Mapping[str, Any]) -> Progress:
    ram: Mapping[str, Any] = answer.get("ram", {})
    throttle = answer.get("cpu-throttle-percentage", 0)
    page = ram.get("page-size", 4096)
    return Progress(
        status=answer.get("status", "none"),
        elapsed_s=answer.get("total-time", 0) / 1000,
        passes=ram.get("dirty-sync-count", 0),
        transferred_bytes=ram.get("transferred", 0),
        remaining_bytes=ram.get("remaining", 0),
        total_bytes=ram.get("total", 0),
        dirty_bytes_s=float(ram.get("dirty-pages-rate", 0) * page),
        bandwidth_bytes_s=ram.get("mbps", 0) * 1e6 / 8,
        expected_downtime_s=answer.get("expected-downtime", 0) / 1000,
        downtime_s=answer.get("downtime", 0) / 1000,
        throttle_percent=throttle if throttle > READY_PERCENT else 0,
        error=answer.get("error-desc", ""),
    )
