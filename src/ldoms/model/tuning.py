"""What may be set by hand of how memory is copied, how it is written, and what excludes what.

What is not set is chosen from the facts of both hosts, see `ldoms.migration.plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ldoms.model.errors import RequestError
from ldoms.model.sizes import MIB, parse_size_mib

MAX_CHANNELS = 255
"""QEMU counts them in a byte."""
MAX_THROTTLE_PERCENT = 99
OFF = "off"


class Compression(StrEnum):
    """Of memory on its way, by the threads of multifd."""

    NONE = "none"
    ZLIB = "zlib"
    ZSTD = "zstd"


class ZeroPages(StrEnum):
    """Who looks for pages that are empty, which are not sent: nobody, QEMU's one migration thread, or each sender."""

    NONE = "none"
    LEGACY = "legacy"
    MULTIFD = "multifd"


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was set by hand; None = chosen from the facts.

    Attributes:
        channels: connections that carry memory.
        xbzrle_cache_bytes: of the pages that were sent last, to send differences only; 0 = no differences.
        throttle_percents: by how much of its CPU time the guest is held back at a stall, step by step; empty = never.
        switchover_bandwidth_bytes_s: what QEMU takes for the speed of the last part; 0 = what it measures itself.
        dirty_limit_bytes_s: how fast each virtual CPU may change memory; 0 = no limit.
        free_page_hints: the guest is asked which pages are free when the copy begins.
    """

    channels: int | None = None
    compression: Compression | None = None
    zero_pages: ZeroPages | None = None
    xbzrle_cache_bytes: int | None = None
    throttle_percents: tuple[int, ...] | None = None
    switchover_bandwidth_bytes_s: int | None = None
    dirty_limit_bytes_s: int | None = None
    free_page_hints: bool | None = None

    @property
    def needs_multifd(self) -> bool:
        """Whether something was set that only QEMU's multifd can do."""
        return (self.channels or 1) > 1 or self.compression not in (None, Compression.NONE)

    @property
    def multifd_words(self) -> str:
        """What that is, as it is typed."""
        if self.compression not in (None, Compression.NONE):
            return f"compression={self.compression}"
        return f"channels={self.channels}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two things that exclude each other, whatever the hosts, and what to do about it."""

    message: str
    remedy: str


# Writing


def split_tuning(text: str) -> dict[str, str]:
    """Read ``NAME=VALUE,NAME=VALUE``.

    Raises:
        RequestError: it is not of that form, or has a name twice.
    """
    values: dict[str, str] = {}
    for word in text.split(","):
        name, separator, value = word.partition("=")
        if not separator or not value:
            raise _bad(f"'{word}' sets nothing: write NAME=VALUE, such as channels=2")
        if name in values:
            raise _bad(f"{name} is set twice")
        values[name] = value
    return values


def parse_tuning(values: Mapping[str, str]) -> Tuning:
    """Read what was set by hand, as it is typed.

    Raises:
        RequestError: a name is not known, or a value makes no sense.
    """
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name not in TUNABLE:
            raise _bad(f"'{name}' is nothing that can be tuned; there are {', '.join(TUNABLE)}")
        field, read, form = TUNABLE[name]
        try:
            fields[field] = read(value)
        except (ValueError, RequestError) as error:
            raise _bad(f"{name}={value} makes no sense: write {form}") from error
    return Tuning(**fields)


def _bad(message: str) -> RequestError:
    return RequestError(message, code="bad-tuning")


def _channels(text: str) -> int:
    return _between(int(text), 1, MAX_CHANNELS)


def _between(number: int, least: int, most: int) -> int:
    if not least <= number <= most:
        raise ValueError(number)
    return number


def _cache(text: str) -> int:
    size = 0 if text == OFF else parse_size_mib(text) * MIB
    if size & (size - 1) or (text != OFF and not size):
        raise ValueError(text)
    return size


def _rate(text: str) -> int:
    return 0 if text == OFF else parse_size_mib(text.removesuffix("/s")) * MIB


def _throttle(text: str) -> tuple[int, ...]:
    steps = () if text == OFF else tuple(_between(int(step), 1, MAX_THROTTLE_PERCENT) for step in text.split(":"))
    if steps != tuple(sorted(set(steps))):
        raise ValueError(text)
    return steps


def _switch(text: str) -> bool:
    if text not in ("on", OFF):
        raise ValueError(text)
    return text == "on"


TUNABLE: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    "channels": ("channels", _channels, f"a number from 1 to {MAX_CHANNELS}"),
    "compression": ("compression", Compression, "none, zlib or zstd"),
    "zero-pages": ("zero_pages", ZeroPages, "none, legacy or multifd"),
    "xbzrle": ("xbzrle_cache_bytes", _cache, "off, or the size of its cache, a power of two such as 64M"),
    "throttle": ("throttle_percents", _throttle, "off, or steps in percent from 1 to 99, such as 50:70:90"),
    "switchover-bandwidth": ("switchover_bandwidth_bytes_s", _rate, "off, or a size per second, such as 100M"),
    "dirty-limit": ("dirty_limit_bytes_s", _rate, "off, or a size per second, such as 100M"),
    "free-page-hints": ("free_page_hints", _switch, "on or off"),
}
"""By the name that is typed: the field of `Tuning`, what reads it, and what may be written."""


# What excludes what


def conflicts(tuning: Tuning) -> Iterator[Conflict]:
    """What was set by hand and cannot be together, on whatever hosts: QEMU would refuse it, or pass over it."""
    if tuning.needs_multifd and tuning.xbzrle_cache_bytes:
        yield Conflict(
            f"xbzrle and {tuning.multifd_words} exclude each other: QEMU sends differences over one connection, and"
            " uncompressed",
            "set one of them",
        )
    if tuning.zero_pages is ZeroPages.MULTIFD and not tuning.needs_multifd:
        yield Conflict(
            "zero-pages=multifd is for several connections or compression, and neither is set",
            "set zero-pages=legacy, or channels= or compression= too",
        )
    if tuning.throttle_percents and tuning.dirty_limit_bytes_s:
        yield Conflict(
            "throttle and dirty-limit exclude each other: both hold back a guest that changes too much memory",
            "set one of them",
        )
    if tuning.free_page_hints:
        yield Conflict(
            "free-page-hints=on cannot be had: guests report free pages all the time instead, because asking for them"
            " when the copy begins stopped them for seconds",
            "leave it out",
        )
