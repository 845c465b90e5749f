"""How much memory a domain may be given, in which steps, and where its guest sees it. All of it is pure.

A guest is started with some memory, and room for more (`Machine.memory_max_mib`). What is added while it runs lies in
that room, above all that it was started with, and only that can be taken back from it while it runs. The next start
makes all of it one piece again.
"""

from __future__ import annotations

from dataclasses import replace

from ldoms.model.domain import Bindings, MemoryBlock
from ldoms.model.errors import RequestError
from ldoms.model.sizes import ACTIVE_ALIGNMENT_MIB, GIB, MIB, align_up, format_size

LEAST_MAXIMUM_MIB = 16 * GIB // MIB
MAXIMUM_FACTOR = 4
"""A guest may grow to so many times what it is bound with: each MiB of room costs QEMU and KVM some bookkeeping."""
MOST_MAXIMUM_MIB = 512 * GIB // MIB
"""What the addresses of any CPU model have room for, with everything else in them (40 bits, AMD's hole below 1 TiB)."""

_SHORT_VERBS = {"set-memory": "set-mem", "add-memory": "add-mem", "remove-memory": "rm-mem"}


def memory_maximum_mib(bound_mib: int, host_mib: int) -> int:
    """To which a guest's memory may grow while it runs, if it is bound with `bound_mib` on a host of `host_mib`."""
    return min(host_mib, MOST_MAXIMUM_MIB, max(LEAST_MAXIMUM_MIB, MAXIMUM_FACTOR * bound_mib))


def lay_out(blocks: tuple[MemoryBlock, ...], boot_mib: int, added_address_mib: int) -> tuple[MemoryBlock, ...]:
    """The same memory as a guest sees it that was started with `boot_mib`; the rest is at `added_address_mib`."""
    laid, real, left = [], 0, boot_mib
    for block in blocks:
        physical, rest = block.physical_address_mib, block.size_mib
        while rest:
            size = min(rest, left) if left else rest
            laid.append(MemoryBlock(real, physical, size))
            physical, rest, real = physical + size, rest - size, real + size
            if left:
                left -= size
                real = real if left else added_address_mib
    return tuple(laid)


def at_start(bindings: Bindings) -> Bindings:
    """What a domain has when its guest is started: all memory in one piece."""
    whole = bindings.memory_mib
    return replace(bindings, memory=lay_out(bindings.memory, whole, whole), boot_memory_mib=0)


def as_before(bindings: Bindings, moved: Bindings) -> Bindings:
    """What a domain is given on another host, with its memory where its guest has seen it so far."""
    boot = moved.first_memory_mib
    added = [block.real_address_mib for block in moved.memory if block.real_address_mib >= boot]
    memory = lay_out(bindings.memory, boot, min(added, default=boot))
    return replace(bindings, memory=memory, boot_memory_mib=moved.boot_memory_mib)


def adjust(verb: str, name: str, now_mib: int, wanted_mib: int, *, active: bool) -> int:
    """What ``--auto-adj`` makes of a wish.

    For an active domain the change becomes a multiple of 256 MiB, more when memory is added, less when it is removed;
    else the result does.

    Raises:
        RequestError: nothing would be left of a removal.
    """
    if not active:
        return align_up(wanted_mib, ACTIVE_ALIGNMENT_MIB)
    if wanted_mib >= now_mib:
        return now_mib + align_up(wanted_mib - now_mib, ACTIVE_ALIGNMENT_MIB)
    removed = (now_mib - wanted_mib) // ACTIVE_ALIGNMENT_MIB * ACTIVE_ALIGNMENT_MIB
    if removed == 0:
        raise RequestError(
            f"A ldm {_SHORT_VERBS[verb]} command would remove {now_mib - wanted_mib}MB from LDom {name}, which is less"
            f" than {ACTIVE_ALIGNMENT_MIB}MB: nothing is left of it when it is rounded down",
            code="bad-alignment",
        )
    return now_mib - removed


def check_step(verb: str, name: str, now_mib: int, wanted_mib: int) -> None:
    """The rule for a domain that runs, and its words, as scripts know them.

    Raises:
        RequestError: the change is not a multiple of 256 MiB.
    """
    difference = abs(wanted_mib - now_mib)
    if difference % ACTIVE_ALIGNMENT_MIB == 0:
        return
    whole = difference // ACTIVE_ALIGNMENT_MIB * ACTIVE_ALIGNMENT_MIB
    aligned = now_mib - whole if wanted_mib < now_mib else now_mib + whole
    asked = wanted_mib if verb == "set-memory" else difference
    direction = "remove" if wanted_mib < now_mib else "add"
    raise RequestError(
        f"A ldm {_SHORT_VERBS[verb]} {format_size(asked * MIB)} command would {direction} {difference}MB, which is not"
        f" a\nmultiple of {ACTIVE_ALIGNMENT_MIB}MB. Instead, run ldm set-mem {aligned}M {name}\n"
        f"to ensure a {ACTIVE_ALIGNMENT_MIB}MB alignment.",
        code="bad-alignment",
        aligned_mib=aligned,
    )
