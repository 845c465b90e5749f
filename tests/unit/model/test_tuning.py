"""What is set by hand is read as it is typed, or refused in a sentence."""

from __future__ import annotations

import pytest

from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import RequestError
from ldoms.model.tuning import Compression, Tuning, ZeroPages, parse_tuning, split_tuning


@pytest.mark.parametrize(
    ("text", "tuning"),
    [
        ("channels=2", Tuning(channels=2)),
        ("compression=zstd", Tuning(compression=Compression.ZSTD)),
        ("zero-pages=legacy", Tuning(zero_pages=ZeroPages.LEGACY)),
        ("xbzrle=64M", Tuning(xbzrle_cache_bytes=64 << 20)),
        ("xbzrle=off", Tuning(xbzrle_cache_bytes=0)),
        ("throttle=50:70:90", Tuning(throttle_percents=(50, 70, 90))),
        ("throttle=30", Tuning(throttle_percents=(30,))),
        ("throttle=off", Tuning(throttle_percents=())),
        ("switchover-bandwidth=100M/s", Tuning(switchover_bandwidth_bytes_s=100 << 20)),
        ("dirty-limit=1G", Tuning(dirty_limit_bytes_s=1 << 30)),
        ("free-page-hints=on", Tuning(free_page_hints=True)),
        ("free-page-hints=off,channels=1", Tuning(free_page_hints=False, channels=1)),
    ],
)
def test_what_is_typed_is_read(text: str, tuning: Tuning) -> None:
    """And comes back from the journal, where an older manager has written nothing of it."""
    assert parse_tuning(split_tuning(text)) == tuning
    assert from_wire(Tuning, to_wire(tuning)) == tuning
    assert from_wire(Tuning, {}) == Tuning()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' sets nothing: write NAME=VALUE, such as channels=2"),
        ("channels", "'channels' sets nothing"),
        ("channels=", "'channels=' sets nothing"),
        ("channels=2,channels=3", "channels is set twice"),
        ("speed=9", "'speed' is nothing that can be tuned; there are channels, compression, zero-pages"),
        ("channels=0", "channels=0 makes no sense: write a number from 1 to 255"),
        ("channels=256", "channels=256 makes no sense"),
        ("channels=two", "channels=two makes no sense"),
        ("compression=lzma", "compression=lzma makes no sense: write none, zlib or zstd"),
        ("zero-pages=all", "zero-pages=all makes no sense: write none, legacy or multifd"),
        ("xbzrle=3M", "xbzrle=3M makes no sense: write off, or the size of its cache, a power of two such as 64M"),
        ("xbzrle=0", "xbzrle=0 makes no sense"),
        ("throttle=", "'throttle=' sets nothing"),
        ("throttle=0:10", "throttle=0:10 makes no sense: write off, or steps in percent from 1 to 99"),
        ("throttle=50:50", "throttle=50:50 makes no sense"),
        ("throttle=50:10:40", "throttle=50:10:40 makes no sense"),
        ("throttle=20:10:100", "throttle=20:10:100 makes no sense"),
        ("switchover-bandwidth=fast", "switchover-bandwidth=fast makes no sense"),
        ("dirty-limit=-1", "dirty-limit=-1 makes no sense"),
        ("free-page-hints=maybe", "free-page-hints=maybe makes no sense: write on or off"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, complaint: str) -> None:
    """One sentence that says what could be written."""
    with pytest.raises(RequestError) as caught:
        parse_tuning(split_tuning(text))
    assert caught.value.message.startswith(complaint)
    assert caught.value.code == "bad-tuning"
