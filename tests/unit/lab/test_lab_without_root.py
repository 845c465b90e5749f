"""What an ordinary user may not read does not keep a lab from being made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ldoms.lab.lab import _closed_to_us


def test_what_cannot_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host's /etc is a copy of the machine's: files and directories that are closed to the user are passed over."""
    (tmp_path / "passwd").touch()
    (tmp_path / "shadow").touch()
    (tmp_path / "private").mkdir()
    (tmp_path / "mtab").symlink_to("/nowhere")
    closed = {tmp_path / "shadow", tmp_path / "private", tmp_path / "mtab"}
    monkeypatch.setattr(os, "access", lambda path, mode: path not in closed)
    left_out = _closed_to_us(str(tmp_path), ["passwd", "shadow", "private", "mtab"])
    assert left_out == ["shadow", "private"], "a link is copied as a link, wherever it leads"
