"""The host's own certificate, and those that it trusts."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

import pytest

from ldoms.auth.certificates import Certificates, fingerprint_of_pem
from ldoms.model.errors import AlreadyExists, HostError, NotFound, RequestError


def pem_of(directory: Path) -> str:
    return (directory / "host.crt").read_text()


@pytest.fixture
def ours(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "ours", "t4-1")


@pytest.fixture
def theirs(tmp_path: Path) -> str:
    Certificates(tmp_path / "theirs", "t4-2")
    return pem_of(tmp_path / "theirs")


def test_key_and_certificate_are_made_once(tmp_path: Path) -> None:
    """Nobody but the manager can read the key; a restart keeps both."""
    first = Certificates(tmp_path, "t4-1")
    assert Certificates(tmp_path, "t4-1").fingerprint == first.fingerprint
    assert stat.S_IMODE(os.stat(tmp_path / "host.key").st_mode) == 0o600
    assert first.fingerprint.startswith("SHA256:")
    assert not list(tmp_path.glob("*.new"))


def test_a_peer_is_trusted_under_the_name_it_is_called_by(ours: Certificates, theirs: str) -> None:
    """Until it is trusted no more."""
    assert not ours.is_trusted("t4-2")
    with pytest.raises(RequestError, match="'ldm add-trust t4-2'") as caught:
        ours.client_context("t4-2", show_certificate=False)
    assert caught.value.code == "host-key-unknown"
    added = ours.add("t4-2", theirs)
    assert added.fingerprint == fingerprint_of_pem(theirs)
    assert ours.add("t4-2", theirs) == added
    assert ours.trusted() == (added,)
    assert ours.client_context("t4-2", show_certificate=True).minimum_version is ssl.TLSVersion.TLSv1_3
    ours.remove("t4-2")
    assert ours.trusted() == ()
    with pytest.raises(NotFound, match="'ldm list-trust'"):
        ours.remove("t4-2")


def test_a_changed_certificate_is_not_taken_silently(ours: Certificates, theirs: str, tmp_path: Path) -> None:
    """Both fingerprints are told, and what to do if it is right."""
    ours.add("t4-2", theirs)
    Certificates(tmp_path / "impostor", "t4-2")
    impostor = pem_of(tmp_path / "impostor")
    with pytest.raises(AlreadyExists, match="'ldm remove-trust t4-2' first") as caught:
        ours.add("t4-2", impostor)
    assert caught.value.code == "host-key-changed"
    assert caught.value.details == {"fingerprint": fingerprint_of_pem(impostor)}
    assert ours.trusted()[0].fingerprint == fingerprint_of_pem(theirs)


@pytest.mark.parametrize("host", ["", "../t4", "a/b", "-x", "a b", "a\n"])
def test_a_name_cannot_leave_the_directory(ours: Certificates, theirs: str, host: str) -> None:
    """It becomes the name of a file."""
    with pytest.raises(RequestError, match="is not the name or address of a host"):
        ours.add(host, theirs)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """At the start of the manager."""
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match=f"cannot keep the host's key in {tmp_path}/file/x"):
        Certificates(tmp_path / "file" / "x", "t4-1")
