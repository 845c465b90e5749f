"""Resource management policies: written, and carried out.

Every second each domain whose policy counts is looked at: the manager measures what its virtual CPUs use over the
policy's sample, and gives or takes some. It does so with the same verb as ``ldm set-vcpu``, so that whatever holds the
domain (a migration, another command) makes it wait, and whatever is not free is not given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time
from typing import Any

import structlog

from ldoms.manager.background import Background
from ldoms.manager.host import Host
from ldoms.manager.properties import choice_property, int_property, refuse_unknown, without
from ldoms.manager.vcpus import VcpuVerbs
from ldoms.model.domain import Domain
from ldoms.model.errors import AlreadyExists, Busy, LdomsError, RequestError
from ldoms.model.events import EventKind
from ldoms.model.identity import check_name
from ldoms.model.policy import DAY_BEGIN, DAY_END, Policy, PolicyStatus, active_policy, decide

KIND = "resource-policy"
TICK_S = 1.0
"""Whether a sample is due is looked at so often; samples are whole seconds."""
MAX_PRIORITY = 9999
NO_AGENT = "the guest agent, which gives virtual CPUs back, does not run in the guest"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Sample:
    """The beginning of a measurement: when, by which policy, and how much CPU time had been used."""

    policy: str
    at: float
    seconds: float


class PolicyVerbs:
    """``add-policy``, ``set-policy``, ``remove-policy``, and the loop that carries policies out."""

    def __init__(self, host: Host, vcpus: VcpuVerbs, now: Callable[[], time] = lambda: datetime.now().time()) -> None:
        """Change numbers of virtual CPUs through `vcpus`; `now` is the local time of day."""
        self._host = host
        self._vcpus = vcpus
        self._now = now
        self._samples: dict[str, _Sample] = {}
        self._statistics: dict[tuple[str, str], PolicyStatus] = {}
        self._background = Background()

    # Verbs

    def add(self, domain_name: str, policy_name: str, properties: Mapping[str, str]) -> Domain:
        """Give a domain a policy.

        Raises:
            AlreadyExists: it has one of that name.
            RequestError: a property is wrong.
        """
        with self._host.changing(domain_name, "add-policy") as domain:
            _check_guest(domain)
            check_name(policy_name, "policy")
            if any(known.name == policy_name for known in domain.policies):
                raise AlreadyExists(f"policy {policy_name} already exists in LDom {domain_name}")
            added = _with_properties(Policy(policy_name), properties)
            return self._host.save(replace(domain, policies=(*domain.policies, added)))

    def set(self, domain_name: str, policy_name: str, properties: Mapping[str, str]) -> Domain:
        """Change properties of a policy; an empty value is the default.

        Raises:
            NotFound: the domain has no policy of that name.
            RequestError: a property is wrong.
        """
        with self._host.changing(domain_name, "set-policy") as domain:
            changed = _with_properties(domain.policy(policy_name), properties)
            policies = tuple(changed if known.name == policy_name else known for known in domain.policies)
            return self._host.save(replace(domain, policies=policies))

    def remove(self, domain_name: str, policy_names: Sequence[str]) -> Domain:
        """Take policies from a domain; none if one of them is not there.

        Raises:
            NotFound: the domain has no policy of that name.
        """
        with self._host.changing(domain_name, "remove-policy") as domain:
            left = domain.policies
            for name in policy_names:
                domain.policy(name)
                left = without(left, name, lambda known: known.name)
                self._statistics.pop((domain.uuid, name), None)
            return self._host.save(replace(domain, policies=left))

    def statuses(self, domain: Domain) -> tuple[PolicyStatus, ...]:
        """What each policy of a domain has done, and which one counts now."""
        counting = active_policy(domain.policies, self._now())
        return tuple(replace(self._known(domain, one.name), active=one is counting) for one in domain.policies)

    # The loop

    def start(self) -> None:
        """Begin to carry policies out."""
        self._background.start(self._go_on(), KIND)

    async def close(self) -> None:
        """Let every domain be as it is."""
        await self._background.close()

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for domain in self._host.store.domains():
                # Each by itself: a guest that takes its time, or hangs, holds no other domain up.
                look = f"{KIND} {domain.uuid}"
                if domain.policies and not self._background.is_at(look):
                    self._background.start(self.look(domain), look)

    async def look(self, domain: Domain) -> None:
        """Measure a domain, and if its policy's sample is complete do what the policy asks for."""
        policy = active_policy(domain.policies, self._now())
        running = self._host.guests.get(domain.uuid)
        if policy is None or running is None or domain.bindings is None or self._is_held(domain):
            self._samples.pop(domain.uuid, None)
            return
        sample = _Sample(policy.name, asyncio.get_running_loop().time(), sum(running.guest.cpu_seconds()))
        begun = self._samples.setdefault(domain.uuid, sample)
        if begun.policy != policy.name or sample.seconds < begun.seconds:  # another policy, or a new guest
            self._samples[domain.uuid] = sample
            return
        elapsed = sample.at - begun.at
        if elapsed < policy.sample_rate_s:
            return
        self._samples[domain.uuid] = sample
        have = len(domain.bindings.vcpus)
        given_s = elapsed * have / self._host.size.strands_per_cpu
        await self._carry_out(domain, policy, have, min(100.0, 100 * (sample.seconds - begun.seconds) / given_s))

    # Inside

    async def _carry_out(self, domain: Domain, policy: Policy, have: int, utilisation: float) -> None:
        known = self._known(domain, policy.name)
        known = replace(known, utilisation=utilisation, samples=known.samples + 1, note="")
        wanted = decide(policy, have, utilisation)
        wanted = min(wanted, have + len(self._host.partition().free_strands))
        running = self._host.guests.get(domain.uuid)
        if wanted < have and running is not None and not await running.guest.has_agent():
            known = replace(known, note=NO_AGENT)
        elif wanted != have:
            try:
                with self._host.operations.unasked(domain.name):
                    await self._vcpus.set(domain.name, wanted)
            except Busy:
                return  # somebody has come between; the next sample tells
            except LdomsError as error:
                known = replace(known, note=error.message)
                _log.warning("policy-failed", domain=domain.name, policy=policy.name, reason=error.message)
            self._samples.pop(domain.uuid, None)
            known = self._note_change(domain, policy, known, have)
        self._statistics[domain.uuid, policy.name] = known

    def _note_change(self, domain: Domain, policy: Policy, known: PolicyStatus, have: int) -> PolicyStatus:
        """Take in what has really come of a change, which may be a part of it."""
        now = self._host.store.domain_by_uuid(domain.uuid)
        change = len(now.bindings.vcpus) - have if now and now.bindings else 0
        if change:
            self._host.events.publish(
                EventKind.POLICY_APPLIED,
                domain.name,
                policy=policy.name,
                utilisation_percent=round(known.utilisation or 0.0, 1),
                vcpus_before=have,
                vcpus=have + change,
            )
        return replace(known, added=known.added + max(0, change), removed=known.removed + max(0, -change))

    def _known(self, domain: Domain, policy: str) -> PolicyStatus:
        return self._statistics.get((domain.uuid, policy)) or PolicyStatus(policy, active=False)

    def _is_held(self, domain: Domain) -> bool:
        """Whether a migration or other work has the domain: its policies pause, and what it uses then says little."""
        return bool(self._host.operations.holder(domain.name)) or not self._host.is_owner(domain.uuid)


def _check_guest(domain: Domain) -> None:
    if domain.is_control:
        raise RequestError(
            "LDom primary is the host itself, and has no policies: 'ldm set-vcpu' gives it virtual CPUs",
            code="control-domain",
        )


def _with_properties(policy: Policy, properties: Mapping[str, str]) -> Policy:
    given, default = dict(properties), Policy(policy.name)
    if "enable" in given:
        policy = replace(policy, enabled=choice_property("enable", given.pop("enable") or "no", ("yes", "no")) == "yes")
    if "tod-begin" in given:
        policy = replace(policy, begin=_time_of_day("tod-begin", given.pop("tod-begin") or DAY_BEGIN.isoformat()))
    if "tod-end" in given:
        policy = replace(policy, end=_time_of_day("tod-end", given.pop("tod-end") or DAY_END.isoformat()))
    for name, (field, _, high) in _NUMBERS.items():
        if name in given:
            text = given.pop(name)
            value: Any = _number(name, text, high) if text else getattr(default, field)
            policy = replace(policy, **{field: value})
    refuse_unknown(given)
    check_policy(policy)
    return policy


def check_policy(policy: Policy) -> None:
    """Make sure that a policy makes sense, whoever has written it.

    Raises:
        RequestError: it does not.
    """
    check_name(policy.name, "policy")
    for name, (field, low, high) in _NUMBERS.items():
        _check_number(name, getattr(policy, field), low, high)
    for name, text in (("tod-begin", policy.begin), ("tod-end", policy.end)):
        _time_of_day(name, text)
    if policy.util_lower >= policy.util_upper:
        raise RequestError(
            f"util-lower={policy.util_lower} must be less than util-upper={policy.util_upper}", code="bad-property"
        )
    if policy.vcpu_max is not None and policy.vcpu_min > policy.vcpu_max:
        raise RequestError(
            f"vcpu-min={policy.vcpu_min} must not be more than vcpu-max={policy.vcpu_max}", code="bad-property"
        )


# Property: the field of a policy, and what it may be; a highest value of 0 means that it may be unlimited.
_NUMBERS = {
    "priority": ("priority", 1, MAX_PRIORITY),
    "attack": ("attack", 1, 0),
    "decay": ("decay", 1, 0),
    "elastic-margin": ("elastic_margin", 0, 100),
    "sample-rate": ("sample_rate_s", 1, 3600),
    "util-lower": ("util_lower", 1, 99),
    "util-upper": ("util_upper", 1, 100),
    "vcpu-min": ("vcpu_min", 1, 4096),
    "vcpu-max": ("vcpu_max", 1, 0),
}


def _number(name: str, text: str, high: int) -> int | None:
    return None if not high and text == "unlimited" else int_property(name, text)


def _check_number(name: str, number: int | None, low: int, high: int) -> None:
    if number is None and not high:
        return
    if number is None or number < low or (high and number > high):
        limit = f"from {low} to {high}" if high else f"at least {low}, or unlimited"
        given = "unlimited" if number is None else number
        raise RequestError(f"{name}={given} is out of range: it is {limit}", code="bad-property")


def _time_of_day(name: str, text: str) -> str:
    for form in ("%H:%M:%S", "%H:%M"):
        try:
            return datetime.strptime(text, form).time().isoformat()
        except ValueError:
            continue
    raise RequestError(f"{name}={text} is no time of day: write hh:mm or hh:mm:ss", code="bad-property")
