"""What the QEMU of this host can do, asked of QEMU itself; and whether a guest really boots with KVM."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from ldoms.hypervisor.process import Process
from ldoms.hypervisor.qmp import Monitor
from ldoms.model.errors import HostError
from ldoms.model.host import HypervisorFacts
from ldoms.model.migration import POSTCOPY

START_S = 60.0
BOOT_PROOF_S = 10.0
"""A healthy KVM boots a kernel in about one second."""
MACHINE = "q35"
# The kernel's words when it has come all the way up and finds that it was given no root file system.
_BOOTED = b"Unable to mount root fs"

# Fast under emulation, and the same in every QEMU; more features only make TCG slower.
_TCG_MODEL = "qemu64-v1"
# Any server of the last decade has it, of either maker.
_GENERIC_MODELS = ("Nehalem-v1", "kvm64-v1", "qemu64-v1")

# linux/kvm.h: KVM_CHECK_EXTENSION; KVM_CAP_DIRTY_LOG_RING, and the same for CPUs that order memory weakly.
_CHECK_EXTENSION = 0xAE03
_DIRTY_RINGS = (192, 223)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found: the facts, and the CPU (model first, then features) for each ``cpu-arch``."""

    facts: HypervisorFacts
    cpus: Mapping[str, tuple[str, ...]]


async def probe(accelerator: str, kernels: Iterable[Path], cache: Path, *, dirty_ring: bool = False) -> Probe:
    """Find out what QEMU can do here.

    Args:
        accelerator: ``auto``, ``kvm`` or ``tcg``; ``auto`` takes KVM if it is proven to boot a kernel.
        kernels: candidates for that proof, best first.
        cache: where the result of the proof is kept, as it can take seconds.
        dirty_ring: guests are to have KVM's dirty ring, if it has one.

    Raises:
        HostError: QEMU is missing or too broken to ask.
    """
    if accelerator == "auto":
        accelerator, reason = await _choose_accelerator(kernels, cache)
    else:
        reason = "set in the configuration"
    async with _asking(accelerator) as monitor:
        found = await _ask(monitor, accelerator, reason)
    has_ring = dirty_ring and accelerator == "kvm" and await asyncio.to_thread(kvm_has_dirty_ring)
    return replace(found, facts=replace(found.facts, dirty_ring=has_ring))


def kvm_has_dirty_ring(device: Path = Path("/dev/kvm")) -> bool:
    """Whether this kernel's KVM can keep a ring of changed pages for each virtual CPU (KVM API, sections 4.4, 8.29)."""
    try:
        with device.open("rb", buffering=0) as kvm:
            return any(fcntl.ioctl(kvm, _CHECK_EXTENSION, extension) > 0 for extension in _DIRTY_RINGS)
    except OSError:
        return False


async def boots(accelerator: str, kernel: Path, limit_s: float = BOOT_PROOF_S) -> tuple[bool, str]:
    """Whether a stock kernel comes up with that accelerator, and how that was seen."""
    words = ["qemu-system-x86_64", "-machine", MACHINE, "-accel", accelerator, "-cpu", _GENERIC_MODELS[0]]
    words += ["-m", "256", "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]
    words += ["-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"]
    process = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    output = b""
    try:
        async with asyncio.timeout(limit_s):
            while chunk := await process.stdout.read(65536):
                output += chunk
                if _BOOTED in output:
                    return True, f"a guest with {kernel.name} boots with {accelerator}"
        last = output.decode(errors="replace").strip().splitlines()
        return False, f"{accelerator} does not start a guest: {last[-1] if last else 'QEMU ended'}"
    except TimeoutError:
        return False, f"a guest with {kernel.name} does not boot with {accelerator} within {limit_s:g} s"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _choose_accelerator(kernels: Iterable[Path], cache: Path) -> tuple[str, str]:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "there is no /dev/kvm that can be opened"
    kernel = next((path for path in kernels if path.is_file()), None)
    if kernel is None:
        return "tcg", 'KVM is not proven: no kernel was found to boot with it; set accelerator = "kvm" if it works'
    key = [os.uname().release, os.uname().version, str(kernel)]
    with suppress(OSError, ValueError, LookupError, TypeError):  # whatever is in that file, it can be made again
        entry = json.loads(cache.read_text())
        if entry["key"] == key:
            return entry["accelerator"], entry["reason"]
    _log.info("kvm-proof-started", kernel=str(kernel), limit_s=BOOT_PROOF_S)
    works, reason = await boots("kvm", kernel)
    accelerator = "kvm" if works else "tcg"
    with suppress(OSError):
        cache.write_text(json.dumps({"key": key, "accelerator": accelerator, "reason": reason}))
    return accelerator, reason


@asynccontextmanager
async def _asking(accelerator: str) -> AsyncIterator[Monitor]:
    """A QEMU without a machine, just to be asked."""
    with tempfile.TemporaryDirectory(prefix="ldoms-probe-") as name:
        directory = Path(name)
        socket, log = directory / "qmp.sock", directory / "log"
        # With -incoming, as only an end that is to receive looks for what postcopy needs.
        words = ["qemu-system-x86_64", "-machine", "none", "-accel", accelerator, "-S", "-incoming", "defer"]
        words += ["-no-user-config", "-nodefaults", "-display", "none"]
        words += ["-chardev", f"socket,id=qmp,path={socket},server=on,wait=off", "-mon", "chardev=qmp,mode=control"]
        monitor = Monitor("probe")
        process = Process.start(words, directory, log)
        try:
            if not await monitor.connect(socket, process.gone, START_S):
                raise HostError(f"QEMU does not start: {log.read_text().strip()}", code="no-qemu")
            yield monitor
        finally:
            await monitor.close()
            process.kill()
            await process.gone.wait()


async def _ask(monitor: Monitor, accelerator: str, reason: str) -> Probe:
    version = (await monitor.execute("query-version"))["qemu"]
    machines = await monitor.execute("query-machines")
    definitions = await monitor.execute("query-cpu-definitions")
    capabilities = await monitor.execute("query-migrate-capabilities")
    parameters = await monitor.execute("query-migrate-parameters")
    schema = await monitor.execute("query-qmp-schema")
    can_postcopy, why_not = await _postcopy(monitor)
    everything = await _features(monitor, "host" if accelerator == "kvm" else "max")
    runnable = [
        entry["name"] for entry in definitions if entry.get("migration-safe") and not entry["unavailable-features"]
    ]
    versioned = sorted(name for name in runnable if name.rpartition("-v")[2].isdigit())
    facts = HypervisorFacts(
        version=f"{version['major']}.{version['minor']}.{version['micro']}",
        accelerator=accelerator,
        accelerator_reason=reason,
        machine_types=tuple(sorted(machine["name"] for machine in machines)),
        default_machine_type=next(machine["name"] for machine in machines if machine.get("alias") == MACHINE),
        cpu_models=tuple(versioned),
        cpu_features=everything,
        migration_capabilities=tuple(sorted(entry["capability"] for entry in capabilities)),
        compressions=_multifd_compressions(schema),
        migration_parameters=tuple(sorted(parameters)),
        postcopy=can_postcopy,
        postcopy_reason=why_not,
    )
    generic = next(model for model in _GENERIC_MODELS if model in versioned)
    native = _TCG_MODEL if accelerator == "tcg" else await _largest(monitor, versioned)
    cpus = {
        "generic": (generic, *await _features(monitor, generic)),
        "native": (native, *await _features(monitor, native)),
    }
    return Probe(facts, cpus)


async def _postcopy(monitor: Monitor) -> tuple[bool, str]:
    """Whether a guest could run here before all of its memory has come, and why not."""
    wanted = {"capabilities": [{"capability": POSTCOPY, "state": True}]}
    try:
        await monitor.execute("migrate-set-capabilities", wanted)
    except HostError as error:
        return False, error.message.partition("QEMU says: ")[2] or error.message
    return True, ""


async def _largest(monitor: Monitor, models: Iterable[str]) -> str:
    """The model with the most features of those that this host can give in full."""
    sizes = {model: len(await _features(monitor, model)) for model in models}
    return max(sizes, key=lambda model: (sizes[model], model))


async def _features(monitor: Monitor, model: str) -> tuple[str, ...]:
    expansion = await monitor.execute("query-cpu-model-expansion", {"type": "static", "model": {"name": model}})
    return tuple(sorted(name for name, value in expansion["model"]["props"].items() if value is True))


def _multifd_compressions(schema: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The methods of multifd compression: the enumeration of the schema that has both ``none`` and ``zlib``."""
    for entry in schema:
        if entry["meta-type"] == "enum":
            values = [member["name"] for member in entry.get("members", ())]
            if "none" in values and "zlib" in values:
                return tuple(sorted(values))
    return ("none",)
