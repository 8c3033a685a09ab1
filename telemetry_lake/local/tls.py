"""TLS on request: an authority and a server certificate of the endpoint's own, and what its clients need to trust them.

Some clients insist on TLS: Hadoop's S3A refuses to copy an object that is encrypted with a KMS key over plain HTTP
(the AWS SDK for Java counts such a copy among the requests that carry keys). The authority signs one certificate, for
127.0.0.1 and localhost, and its private key is never written anywhere, so that nobody can sign another one with it.

Known deviations from AWS:

* Clients have to be told of the authority; those of AWS's services are told here, others by ``AWS_CA_BUNDLE``
  (https://docs.aws.amazon.com/sdkref/latest/guide/feature-gen-config.html).
* With it, AWS SDKs inside of functions and jobs trust this authority alone, and so does all of a job's Java. What they
  ask of other hosts over TLS fails.
* Certificates are renewed when the endpoint starts, not while it runs: it serves for three weeks at least.
"""

import asyncio
import http.client
import ipaddress
import shutil
import ssl
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

VALID_DAYS = 30
RENEWED_DAYS_BEFORE = 7
CLOCK_SKEW = timedelta(hours=1)
GOODBYE_SECONDS = 0.5
TRUST_STORE_PASSWORD = "changeit"  # noqa: S105  Java's customary one: a trust store holds nothing secret


@dataclass(frozen=True)
class TlsFiles:
    """Where the files of one state directory are, whether they exist or not."""

    directory: Path

    @classmethod
    def of_state(cls, state_directory: Path) -> "TlsFiles":
        """Name the files of an endpoint that keeps its state in ``state_directory``."""
        return cls(state_directory / "tls")

    @property
    def authority(self) -> Path:
        """The authority's certificate (PEM): the bundle for ``AWS_CA_BUNDLE``."""
        return self.directory / "authority.pem"

    @property
    def certificate(self) -> Path:
        """The server's certificate (PEM)."""
        return self.directory / "server.pem"

    @property
    def key(self) -> Path:
        """The server's private key (PEM), readable by its owner alone."""
        return self.directory / "server.key"

    @property
    def trust_store(self) -> Path:
        """The authority's certificate as Java reads it (PKCS #12, ``TRUST_STORE_PASSWORD``)."""
        return self.directory / "trust.p12"


def prepare(state_directory: Path) -> TlsFiles:
    """Return the files of a state directory, made anew when there are none or when they end within a week."""
    files = TlsFiles.of_state(state_directory)
    if not _is_usable(files):
        state_directory.mkdir(parents=True, exist_ok=True)
        # The directory appears with all of its files in it, or not at all.
        with tempfile.TemporaryDirectory(dir=state_directory, prefix=".tls-") as name:
            made = TlsFiles(Path(name) / "tls")
            made.directory.mkdir(mode=0o755)
            _make(made)
            shutil.rmtree(files.directory, ignore_errors=True)
            made.directory.rename(files.directory)
    return files


def answers(url: str, authority: Path | None) -> bool:
    """Tell whether there is an HTTP answer of 200 at ``url``; over TLS only from who is of ``authority``."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if authority is not None:
        try:
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(authority))))
        except (FileNotFoundError, ssl.SSLError):
            return False  # an endpoint that has just been started makes it first
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=2) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004  HTTP's OK
    except (OSError, http.client.HTTPException):
        return False


class EventLoop(asyncio.SelectorEventLoop):
    """An event loop whose servers close TLS connections soon.

    asyncio waits 30 seconds for the client to say goodbye too and then reports an error. But a client that keeps its
    connections for later, as AWS SDKs do, does not look at them meanwhile, so that every stop would take that long.
    """

    async def create_server(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], *arguments: Any, **options: Any
    ) -> asyncio.Server:
        """Create a server as ``asyncio.loop.create_server`` does."""
        if options.get("ssl") is None:
            return await super().create_server(protocol_factory, *arguments, **options)

        def without_timeouts() -> asyncio.BaseProtocol:
            protocol = protocol_factory()
            lost = protocol.connection_lost

            def connection_lost(problem: Exception | None) -> None:
                lost(None if isinstance(problem, TimeoutError) else problem)

            protocol.connection_lost = connection_lost  # type: ignore[assignment, method-assign]
            return protocol

        options["ssl_shutdown_timeout"] = GOODBYE_SECONDS
        return await super().create_server(without_timeouts, *arguments, **options)


def _is_usable(files: TlsFiles) -> bool:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    if not all(file.is_file() for file in (files.authority, files.certificate, files.key, files.trust_store)):
        return False
    try:
        authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
        server = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        server.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    needed_until = datetime.now(UTC) + timedelta(days=RENEWED_DAYS_BEFORE)
    return min(authority.not_valid_after_utc, server.not_valid_after_utc) > needed_until


def _make(files: TlsFiles) -> None:
    """Write an authority and a server certificate by the profile of https://www.rfc-editor.org/rfc/rfc5280."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import pkcs12
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    now = datetime.now(UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    server_key = ec.generate_private_key(ec.SECP256R1())
    # Two authorities of the same name would be mistaken for one another by a client that was told of both.
    issuer = named(f"Telemetry Lake laptop endpoint {x509.random_serial_number():x}"[:64])

    def unsigned(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .issuer_name(issuer)
            .subject_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + timedelta(days=VALID_DAYS))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )

    def usage(*, signs_certificates: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not signs_certificates,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=signs_certificates,
            crl_sign=signs_certificates,
            encipher_only=False,
            decipher_only=False,
        )

    authority = (
        unsigned(issuer, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    server = (
        unsigned(named("localhost"), server_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    files.key.touch(mode=0o600)
    files.key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    files.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    files.certificate.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    files.trust_store.write_bytes(
        pkcs12.serialize_java_truststore(
            [pkcs12.PKCS12Certificate(authority, b"endpoint")],
            serialization.BestAvailableEncryption(TRUST_STORE_PASSWORD.encode()),
        )
    )
