"""Who has which part of the host: strands and memory, handed out and taken back.

All of it is pure: a `Partition` is computed from the bindings of the domains, and a change is a new value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ldoms.model.domain import Bindings, Domain, MemoryBlock, VcpuBinding
from ldoms.model.errors import NoResources


@dataclass(frozen=True, slots=True)
class HostSize:
    """What there is to partition.

    Attributes:
        cpus: numbers of the host CPUs, ascending.
        strands_per_cpu: into how many strands each CPU is divided; strand ``s`` is on CPU
            ``cpus[s // strands_per_cpu]``.
        memory_mib: a multiple of 256.
    """

    cpus: tuple[int, ...]
    strands_per_cpu: int
    memory_mib: int

    @property
    def strands(self) -> range:
        """Every strand of the host."""
        return range(len(self.cpus) * self.strands_per_cpu)

    def cpu_of(self, strand: int) -> int:
        """The host CPU that a strand is on."""
        return self.cpus[strand // self.strands_per_cpu]

    def cpus_of(self, strands: Iterable[int]) -> frozenset[int]:
        """The host CPUs that the strands are on."""
        return frozenset(self.cpu_of(strand) for strand in strands)


@dataclass(frozen=True, slots=True)
class Partition:
    """A host's strands and memory and who holds them.

    Attributes:
        bindings: of every bound domain, by its name.
    """

    size: HostSize
    bindings: Mapping[str, Bindings]

    @classmethod
    def of(cls, size: HostSize, domains: Iterable[Domain]) -> Partition:
        """The partition that the bindings of `domains` make of a host."""
        return cls(size, {domain.name: domain.bindings for domain in domains if domain.bindings})

    @property
    def free_strands(self) -> tuple[int, ...]:
        """Strands that nobody holds, ascending."""
        held = {strand for bindings in self.bindings.values() for strand in bindings.held}
        return tuple(strand for strand in self.size.strands if strand not in held)

    @property
    def free_memory(self) -> tuple[tuple[int, int], ...]:
        """Ranges of memory that nobody holds: (first MiB, length in MiB), ascending."""
        held = sorted(
            (block.physical_address_mib, block.size_mib)
            for bindings in self.bindings.values()
            for block in bindings.memory
        )
        free, start = [], 0
        for address, size in held:
            if address > start:
                free.append((start, address - start))
            start = max(start, address + size)
        if start < self.size.memory_mib:
            free.append((start, self.size.memory_mib - start))
        return tuple(free)

    @property
    def free_memory_mib(self) -> int:
        """All memory that nobody holds."""
        return sum(size for _, size in self.free_memory)

    def core_of(self, strand: int) -> int:
        """The core that a strand is part of; cores have numbers of their own, without gaps."""
        return strand // self.size.strands_per_cpu

    def strands_of(self, core: int) -> range:
        """The strands of a core."""
        per_core = self.size.strands_per_cpu
        return range(core * per_core, (core + 1) * per_core)

    def whole_cores(self, name: str = "") -> tuple[int, ...]:
        """Cores that nobody but domain `name` holds a strand of."""
        own = self.bindings[name].held if name in self.bindings else frozenset[int]()
        usable = own | set(self.free_strands)
        return tuple(core for core in range(len(self.size.cpus)) if usable.issuperset(self.strands_of(core)))

    def pick_strands(self, count: int, name: str, already: int = 0, preferred: Collection[int] = ()) -> tuple[int, ...]:
        """Choose `count` free strands for domain `name`, whole CPUs first.

        Args:
            count: how many more it gets.
            name: for the message.
            already: how many it holds; for the message.
            preferred: cores whose strands are taken before those of others.

        Raises:
            NoResources: there are not so many.
        """
        free = self.free_strands
        if count > len(free):
            raise NoResources(
                f"LDom {name} cannot get {already + count} virtual CPU{_s(already + count)}: it needs {count} free"
                f" strand{_s(count)}, and"
                f" {len(free)} of this host's {len(self.size.strands)} are free"
                f"{self._relief('vcpu', len(free), count)}",
                code="no-strands",
                wanted=count,
                free=len(free),
            )
        per_cpu = self.size.strands_per_cpu
        free_on = Counter(strand // per_cpu for strand in free)
        by_preference = sorted(
            free, key=lambda strand: (strand // per_cpu not in preferred, free_on[strand // per_cpu] < per_cpu, strand)
        )
        return tuple(sorted(by_preference[:count]))

    def bind_vcpus(self, strands: Iterable[int], first_vid: int = 0) -> tuple[VcpuBinding, ...]:
        """Virtual CPUs on the given strands, numbered from `first_vid`."""
        per_cpu = self.size.strands_per_cpu
        return tuple(VcpuBinding(vid, strand, strand // per_cpu) for vid, strand in enumerate(strands, start=first_vid))

    def pick_memory(self, size_mib: int, name: str, real_address_mib: int = 0) -> tuple[MemoryBlock, ...]:
        """Choose free memory for domain `name`: one range if one is large enough, else several.

        Raises:
            NoResources: there is not so much.
        """
        if size_mib > self.free_memory_mib:
            raise NoResources(
                f"LDom {name} cannot get {size_mib}M of memory: {self.free_memory_mib}M of this host's"
                f" {self.size.memory_mib}M are free{self._relief('memory', self.free_memory_mib, size_mib)}",
                code="no-memory",
                wanted_mib=size_mib,
                free_mib=self.free_memory_mib,
            )
        ranges = sorted(self.free_memory, key=lambda free: free[1])
        fitting = [free for free in ranges if free[1] >= size_mib]
        blocks = []
        for start, length in fitting[:1] or reversed(ranges):
            taken = min(length, size_mib)
            blocks.append(MemoryBlock(real_address_mib, start, taken))
            real_address_mib += taken
            size_mib -= taken
            if size_mib == 0:
                break
        return tuple(blocks)

    def _relief(self, resource: str, free: int, wanted: int) -> str:
        primary = self.bindings.get("primary")
        if primary is None:
            return ""
        if resource == "vcpu" and len(primary.vcpus) - (wanted - free) >= 1:
            return f"; 'ldm set-vcpu {len(primary.vcpus) - (wanted - free)} primary' would free the rest"
        if resource == "memory":
            rest = (primary.memory_mib - (wanted - free)) // 256 * 256
            if rest >= 256:
                return f"; 'ldm set-memory {rest}M primary' would free the rest"
        return ""


def shrink_memory(blocks: tuple[MemoryBlock, ...], size_mib: int) -> tuple[MemoryBlock, ...]:
    """Keep the first `size_mib` of the blocks."""
    kept = []
    for block in blocks:
        taken = min(block.size_mib, size_mib)
        if taken > 0:
            kept.append(MemoryBlock(block.real_address_mib, block.physical_address_mib, taken))
        size_mib -= taken
    return tuple(kept)


def _s(count: int) -> str:
    return "" if count == 1 else "s"
