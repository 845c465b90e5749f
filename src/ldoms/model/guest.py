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
