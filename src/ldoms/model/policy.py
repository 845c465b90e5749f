"""Resource management policies (DRM): how many virtual CPUs a domain should have, for the load that it has.

Pure: `active_policy` says which policy of a domain counts now, `decide` what it asks for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import time

DAY_BEGIN, DAY_END = time(0, 0, 0), time(23, 59, 59)
UNLIMITED = None
"""Of `attack`, `decay` and `vcpu_max`: as many as it takes."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of a domain, with the defaults of LDoms.

    Attributes:
        enabled: it counts at all.
        priority: 1 to 9999; of several policies that count, the one with the lowest number does.
        vcpu_min, vcpu_max: never fewer, never more, whatever the load; None = no limit.
        util_lower, util_upper: percent; between them everything stays as it is.
        begin, end: time of day, local, between which it counts, ``HH:MM:SS``; a `begin` after `end` means overnight.
        sample_rate_s: utilisation is measured over so long.
        attack, decay: at most so many virtual CPUs are added, or taken away, at a time; None = no limit.
        elastic_margin: percent; virtual CPUs are only taken away if the load of the others then stays so far below
            `util_upper`. Keeps small domains from going up and down.
    """

    name: str
    enabled: bool = False
    priority: int = 99
    vcpu_min: int = 2
    vcpu_max: int | None = UNLIMITED
    util_lower: int = 60
    util_upper: int = 85
    begin: str = DAY_BEGIN.isoformat()
    end: str = DAY_END.isoformat()
    sample_rate_s: int = 10
    attack: int | None = UNLIMITED
    decay: int | None = 1
    elastic_margin: int = 5

    def counts_at(self, now: time) -> bool:
        """Whether it is enabled, and its time of day."""
        begin, end, second = time.fromisoformat(self.begin), time.fromisoformat(self.end), now.replace(microsecond=0)
        inside = begin <= second <= end if begin <= end else second >= begin or second <= end
        return self.enabled and inside


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """What a policy has done to a domain since the manager has started.

    Attributes:
        active: it is the one that counts now.
        utilisation: percent, of the last sample; None = none was taken yet.
        samples: how often it was asked.
        added, removed: virtual CPUs, in all.
        note: why the last change could not be made, or empty.
    """

    name: str
    active: bool
    utilisation: float | None = None
    samples: int = 0
    added: int = 0
    removed: int = 0
    note: str = ""


def active_policy(policies: Iterable[Policy], now: time) -> Policy | None:
    """The policy that counts at a time of day: of those whose time it is, the first by priority, then by name."""
    counting = [policy for policy in policies if policy.counts_at(now)]
    return min(counting, key=lambda policy: (policy.priority, policy.name), default=None)


def decide(policy: Policy, vcpus: int, utilisation: float) -> int:
    """How many virtual CPUs a domain should have.

    The load is taken to stay the same and to divide evenly. Above `util_upper` so many are added that it falls to it;
    below `util_lower` as many are taken away as leave the others `elastic_margin` below `util_upper`.

    Args:
        policy: that counts.
        vcpus: that the domain has, >= 1.
        utilisation: their mean, percent, over the last sample.
    """
    most = math.inf if policy.vcpu_max is None else policy.vcpu_max
    wanted = vcpus
    if utilisation > policy.util_upper:
        wanted = max(vcpus + 1, _fewest(vcpus * utilisation, policy.util_upper))
    elif utilisation < policy.util_lower:
        wanted = min(vcpus, _fewest(vcpus * utilisation, max(1, policy.util_upper - policy.elastic_margin)))
    wanted = int(min(max(wanted, policy.vcpu_min), most))
    rise = wanted - vcpus if policy.attack is None else min(wanted - vcpus, policy.attack)
    fall = vcpus - wanted if policy.decay is None else min(vcpus - wanted, policy.decay)
    return vcpus + rise if wanted > vcpus else vcpus - fall


def _fewest(load: float, share: int) -> int:
    """The fewest virtual CPUs that carry a load (in percent of one) with each at most `share` percent busy."""
    return max(1, math.ceil(load / share))
