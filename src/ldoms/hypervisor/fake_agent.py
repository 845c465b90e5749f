"""What answers inside a guest of `FakeEngine`: its agent, and the driver of its added memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from ldoms.hypervisor.specs import GuestSpec
from ldoms.hypervisor.states import AddedMemory, GuestVcpu, PowerWish
from ldoms.model.errors import HostError
from ldoms.model.guest import CpuTimes, TimeService


class Machine(Protocol):
    """What an agent must have of its guest."""

    vcpus: int
    offline: set[int]
    started: set[int]

    async def press_power_button(self) -> None:
        """Shut down."""

    async def reset(self) -> None:
        """Restart."""


class FakeAddedMemory:
    """Memory beyond what a guest was started with.

    Attributes:
        size_mib: that the guest has taken.
        requested_mib: that it is asked to have.
        step_mib: that it takes or gives back each time that somebody looks; 0 = it does not obey.
        least_mib: that it cannot give back.
    """

    def __init__(self, spec: GuestSpec) -> None:
        self._spec = spec
        self.size_mib = 0
        self.requested_mib = spec.added_memory_mib
        self.step_mib = 1 << 20
        self.least_mib = 0

    def look(self, *, runs: bool) -> AddedMemory | None:
        """Go a step towards what was asked, if the guest runs."""
        if not self._spec.memory_room_mib:
            return None
        if runs:
            wanted = max(self.requested_mib, min(self.least_mib, self.size_mib))
            self.size_mib += max(-self.step_mib, min(self.step_mib, wanted - self.size_mib))
        return AddedMemory(4096, self.size_mib, self.requested_mib, self._spec.memory_room_mib)

    def request(self, size_mib: int) -> None:
        """Note the wish."""
        if size_mib > self._spec.memory_room_mib:
            raise HostError("qom-set: QEMU says: more than the maximum", code="qemu-refused")
        self.requested_mib = size_mib


class FakeAgent:
    """A guest agent.

    Attributes:
        error_s: what the guest's clock is off.
        keeper: what keeps the guest's clock right.
        is_there: it answers.
        obeys: the guest does what it is asked to.
        told: what its users have been told.
        used_s: seconds of CPU time that programs have used, by virtual CPU.
        busy: virtual CPUs that cannot be taken offline now.
    """

    def __init__(self, guest: Machine) -> None:
        self.error_s = 0.0
        self.keeper: TimeService | None = None
        self.is_there = True
        self.obeys = False
        self.told: list[str] = []
        self.used_s: dict[int, float] = {}
        self.busy: set[int] = set()
        self._guest = guest

    async def clock(self) -> float:
        """The host's time, and what the guest's is off."""
        return time.time() + self.error_s

    async def set_clock(self, at: float) -> None:
        """Set the guest's clock."""
        self.error_s = at - time.time()

    async def time_service(self) -> TimeService | None:
        """What was put into `keeper`."""
        self._check()
        return self.keeper

    async def vcpus(self) -> tuple[GuestVcpu, ...]:
        """The virtual CPUs of the guest; the first one is fixed."""
        self._check()
        return tuple(
            GuestVcpu(vid, online=vid not in self._guest.offline, fixed=vid == 0) for vid in range(self._guest.vcpus)
        )

    async def set_vcpus(self, vids: Sequence[int], *, online: bool) -> None:
        """Bring virtual CPUs online or take them offline, up to the first one that cannot be."""
        self._check()
        for number, vid in enumerate(vids):
            if not 0 <= vid < self._guest.vcpus or (not online and (vid == 0 or vid in self.busy)):
                if number == 0:
                    raise HostError(f"guest-set-vcpus: the guest agent says: CPU {vid}", code="agent-refused")
                return
            if online:
                self._guest.offline.discard(vid)
                self._guest.started.add(vid)
            else:
                self._guest.offline.add(vid)

    async def cpu_times(self) -> tuple[CpuTimes, ...]:
        """What was put into `used_s`, and nothing else; CPUs that are offline are left out."""
        self._check()
        return tuple(
            CpuTimes(vid, user_s=self.used_s.get(vid, 0.0), system_s=0.0, idle_s=0.0)
            for vid in range(self._guest.vcpus)
            if vid not in self._guest.offline
        )

    async def ping(self) -> bool:
        """Whether it answers."""
        return self.is_there

    async def shut_down(self, wish: PowerWish = PowerWish.OFF) -> None:
        """Accept the wish; what comes of it is the guest's business: see `obeys`."""
        self._check()
        if self.obeys and wish is PowerWish.OFF:
            await self._guest.press_power_button()
        elif self.obeys:
            await self._guest.reset()

    async def switch_off(self) -> None:
        """It obeys, also when it does not obey otherwise."""
        self._check()
        await self._guest.press_power_button()

    async def tell(self, text: str) -> None:
        """Keep it."""
        self._check()
        self.told.append(text)

    async def system(self) -> str:
        """A system."""
        self._check()
        return "Fake OS 1"

    def _check(self) -> None:
        if not self.is_there:
            raise HostError("the guest agent does not answer", code="no-agent")
