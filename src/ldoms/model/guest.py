"""What the system in a guest says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """What a virtual CPU has done since the guest booted, as its kernel counts it (``/proc/stat``), in seconds.

    Attributes:
        cpu: the guest's number of it.
        user_s, nice_s: programs; as in the kernel these include `guest_s` and `guest_nice_s`, guests of the guest.
        steal_s: it was ready to run, and the host did not let it.
    """

    cpu: int
    user_s: float
    system_s: float
    idle_s: float
    nice_s: float = 0.0
    iowait_s: float = 0.0
    irq_s: float = 0.0
    softirq_s: float = 0.0
    steal_s: float = 0.0
    guest_s: float = 0.0
    guest_nice_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GuestCpus:
    """The virtual CPUs of a guest at one moment.

    Attributes:
        at: seconds since 1970 by the host's clock, when the guest's answer was there.
        cpus: those that are online, by number.
    """

    at: float
    cpus: tuple[CpuTimes, ...]


@dataclass(frozen=True, slots=True)
class TimeService:
    """What the program that keeps a guest's clock right says of itself.

    Attributes:
        program: ``chrony``, or ``systemd``, which speaks for whatever keeps the kernel's clock.
        source: the server that it follows; empty = it does not say.
    """

    program: str
    synchronised: bool
    source: str = ""


@dataclass(frozen=True, slots=True)
class GuestTime:
    """A guest's clock against its host's, and who keeps it.

    Attributes:
        offset_s: what the guest's clock is ahead.
        uncertainty_s: half of the time that the question took.
        service: None = nobody in the guest could be asked.
    """

    offset_s: float
    uncertainty_s: float
    service: TimeService | None = None

    @property
    def is_synchronised(self) -> bool:
        """Whether the guest corrects its clock by itself."""
        return self.service is not None and self.service.synchronised
