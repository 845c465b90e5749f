"""The host's own certificate, and the certificates of the hosts that it trusts.

There is no certificate authority: each host makes a key and a self-signed certificate at its first start, and keeps
those of its peers, one file for each, under the name by which the administrator calls that peer.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ldoms.model.errors import AlreadyExists, HostError, NotFound, PeerError, RequestError

LIFETIME = datetime.timedelta(days=3650)
CONNECT_S = 10.0
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]*")


@dataclass(frozen=True, slots=True)
class Trusted:
    """A host that is trusted; the fingerprint is that of its certificate."""

    host: str
    fingerprint: str


class Certificates:
    """Keys and certificates in a directory: ``host.key``, ``host.crt``, and ``trust/HOST.pem`` for each peer."""

    def __init__(self, directory: Path, host: str) -> None:
        """Use `directory`; the key and certificate for `host` are made if they are not there.

        Raises:
            HostError: the directory cannot be written.
        """
        self._key = directory / "host.key"
        self._certificate = directory / "host.crt"
        self._trust = directory / "trust"
        try:
            self._trust.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self._key.exists() and self._certificate.exists()):
                self._make(host)
        except OSError as error:
            raise HostError(f"cannot keep the host's key in {directory}: {error}", code="no-key") from error

    @property
    def fingerprint(self) -> str:
        """Of this host's own certificate."""
        return fingerprint_of_pem(self._certificate.read_text())

    def trusted(self) -> tuple[Trusted, ...]:
        """The hosts that are trusted, by name."""
        files = sorted(self._trust.glob("*.pem"))
        return tuple(Trusted(file.stem, fingerprint_of_pem(file.read_text())) for file in files)

    def is_trusted(self, host: str) -> bool:
        """Whether there is a certificate for that name."""
        return self._file(host).exists()

    def add(self, host: str, pem: str) -> Trusted:
        """Trust the certificate `pem` under the name `host`.

        Raises:
            AlreadyExists: another certificate is trusted under that name.
        """
        fingerprint = fingerprint_of_pem(pem)
        if self.is_trusted(host):
            known = fingerprint_of_pem(self._file(host).read_text())
            if known != fingerprint:
                raise AlreadyExists(
                    f"host {host} is trusted already, with another certificate ({known}): if it has really changed,"
                    f" run 'ldm remove-trust {host}' first",
                    code="host-key-changed",
                    fingerprint=fingerprint,
                )
        _write(self._file(host), pem.encode())
        return Trusted(host, fingerprint)

    def remove(self, host: str) -> None:
        """Trust that host no more.

        Raises:
            NotFound: it was not trusted.
        """
        try:
            self._file(host).unlink()
        except FileNotFoundError as error:
            raise NotFound(f"host {host} was not found among the trusted ones: 'ldm list-trust' shows them") from error

    def server_context(self) -> ssl.SSLContext:
        """TLS for the server; a client may show a certificate, and then it must be a trusted one.

        Hosts that are trusted or not any more count from the next connection on.
        """
        context = self._server_context()
        # Called for each connection before certificates are looked at: the place to bring the trust up to date.
        context.sni_callback = lambda connection, name, _: setattr(connection, "context", self._server_context())
        return context

    def client_context(self, host: str, *, show_certificate: bool) -> ssl.SSLContext:
        """TLS towards `host`, which must show exactly the certificate that is trusted under that name.

        Raises:
            RequestError: code ``host-key-unknown``: there is none.
        """
        if not self.is_trusted(host):
            raise RequestError(
                f"the certificate of host {host} is not known: look at it and trust it with 'ldm add-trust {host}'",
                code="host-key-unknown",
                host=host,
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the certificate itself is pinned, which says more than a name in it
        context.load_verify_locations(self._file(host))
        if show_certificate:
            context.load_cert_chain(self._certificate, self._key)
        return context

    def _server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self._certificate, self._key)
        context.verify_mode = ssl.CERT_OPTIONAL
        for file in self._trust.glob("*.pem"):
            context.load_verify_locations(file)
        return context

    def _file(self, host: str) -> Path:
        if not _HOST.fullmatch(host):
            raise RequestError(f"'{host}' is not the name or address of a host", code="bad-host")
        return self._trust / f"{host}.pem"

    def _make(self, host: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))  # clocks of hosts differ
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(
            self._key,
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
        _write(self._certificate, certificate.public_bytes(serialization.Encoding.PEM))


async def fetch_certificate(host: str, port: int) -> str:
    """The certificate that a host shows, in PEM, not verified in any way: for a person to look at.

    Raises:
        PeerError: the host cannot be reached, or does not speak TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError) as error:
        raise PeerError(
            f"cannot connect to ldmd on {host}, port {port}: {error or 'no answer'}; is it running there?",
            code="no-connection",
        ) from error
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return ssl.DER_cert_to_PEM_cert(certificate)


def fingerprint_of_der(certificate: bytes) -> str:
    """SHA-256 of a certificate, as people compare it."""
    return "SHA256:" + hashlib.sha256(certificate).hexdigest()


def fingerprint_of_pem(pem: str) -> str:
    """SHA-256 of a certificate, as people compare it."""
    return fingerprint_of_der(ssl.PEM_cert_to_DER_cert(pem))


def _write(path: Path, content: bytes) -> None:
    """Write a private file in one step: after a crash it is there in full or not at all."""
    temporary = path.with_suffix(".new")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
