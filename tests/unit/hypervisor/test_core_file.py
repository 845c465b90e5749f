"""The flattened format, taken apart."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.hypervisor.core_file import HEADER_BYTES, SIGNATURE, Unflattened, write

HEADER = SIGNATURE.ljust(HEADER_BYTES, b"\0")
END = struct.pack(">qq", -1, -1)
PIECES = st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=300)), max_size=8)


def flat(pieces: list[tuple[int, bytes]]) -> bytes:
    """A flattened file of some pieces."""
    return HEADER + b"".join(struct.pack(">qq", at, len(data)) + data for at, data in pieces) + END


@given(PIECES, st.integers(1, 5000))
def test_a_file_is_taken_apart_however_it_is_cut(pieces: list[tuple[int, bytes]], cut: int) -> None:
    """Later pieces may lie over earlier ones, as in a file."""
    whole, made, wanted, content = flat(pieces), bytearray(6000), bytearray(6000), Unflattened()
    for start in range(0, len(whole), cut):
        assert not content.is_complete
        for at, data in content.take(whole[start : start + cut]):
            made[at : at + len(data)] = data
    for at, data in pieces:
        wanted[at : at + len(data)] = data
    assert (made, content.is_complete) == (wanted, True)


def test_another_format_is_refused() -> None:
    """Nothing of it is written."""
    with pytest.raises(ValueError, match="not in makedumpfile's flattened format"):
        list(Unflattened().take(b"\x7fELF".ljust(HEADER_BYTES, b"\0")))


@pytest.mark.parametrize(
    ("sent", "stopped", "complete"),
    [(flat([(3, b"core")]), False, True), (flat([(3, b"core")])[:-20], False, False), (b"", True, False)],
)
def test_what_is_not_whole_is_known(tmp_path: Path, sent: bytes, stopped: bool, complete: bool) -> None:
    """The pipe was closed too early, or somebody wants an end; its reading end is closed in any case."""
    source, sink = os.pipe()
    os.write(sink, sent)
    stop = threading.Event()
    if stopped:
        stop.set()
    else:
        os.close(sink)
    with (tmp_path / "core").open("wb") as file:
        assert write(source, file.fileno(), stop) is complete
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(source)
    if stopped:
        os.close(sink)
    elif complete:
        assert (tmp_path / "core").read_bytes() == b"\0\0\0core"
