"""TLS on request: the certificates, who trusts them, and an endpoint that serves nothing else."""

import ipaddress
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import SSLError
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from telemetry_lake import deployment
from telemetry_lake.commands.up import bring_up, export_lines
from telemetry_lake.console import OperatorError, Reporter
from telemetry_lake.laptop import Instance, Laptop
from telemetry_lake.local import spark_runtime, tls
from telemetry_lake.local.access import is_secure
from telemetry_lake.target import Target
from telemetry_lake.toolchain import project_directory
from tests.unit.local.endpoint_process import REGION, EndpointProcess

OVER_TLS = Instance(os.getpid(), "0", 4999, "mark", authority="/state/tls/authority.pem")


# --- certificates -----------------------------------------------------------------------------------------------------


def loaded(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


@pytest.mark.source("https://www.rfc-editor.org/rfc/rfc5280")
def test_the_certificate_is_for_this_machine_and_of_an_authority_that_can_sign_no_other(tmp_path: Path) -> None:
    # GIVEN / WHEN
    files = tls.prepare(tmp_path / "state")

    # THEN
    authority, server = loaded(files.authority), loaded(files.certificate)
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert timedelta(days=29) < server.not_valid_after_utc - datetime.now(UTC) <= timedelta(days=30)

    # AND of private keys there is the server's alone, for nobody else to read
    keys = [file for file in files.directory.iterdir() if b"PRIVATE KEY" in file.read_bytes()]
    assert keys == [files.key]
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert list((tmp_path / "state").iterdir()) == [files.directory]


@pytest.mark.source("https://docs.oracle.com/en/java/javase/17/docs/specs/man/keytool.html")
def test_java_gets_the_authority_as_a_trusted_entry(tmp_path: Path) -> None:
    # GIVEN
    files = tls.prepare(tmp_path)

    # WHEN
    store = pkcs12.load_pkcs12(files.trust_store.read_bytes(), tls.TRUST_STORE_PASSWORD.encode())

    # THEN
    assert [entry.certificate for entry in store.additional_certs] == [loaded(files.authority)]
    assert store.key is None


@pytest.mark.own_machinery("the endpoint's own certificates")
def test_certificates_are_kept_while_they_are_good(tmp_path: Path) -> None:
    # GIVEN
    first = loaded(tls.prepare(tmp_path).certificate)

    # WHEN
    second = loaded(tls.prepare(tmp_path).certificate)

    # THEN
    assert second == first


@pytest.mark.own_machinery("the endpoint's own certificates")
def test_certificates_that_end_within_a_week_are_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN
    monkeypatch.setattr(tls, "VALID_DAYS", tls.RENEWED_DAYS_BEFORE)
    first = loaded(tls.prepare(tmp_path).certificate)
    monkeypatch.undo()

    # WHEN
    files = tls.prepare(tmp_path)

    # THEN
    renewed = loaded(files.certificate)
    assert renewed != first
    renewed.verify_directly_issued_by(loaded(files.authority))


@pytest.mark.own_machinery("the endpoint's own certificates")
@pytest.mark.parametrize("name", ["authority.pem", "server.pem", "server.key", "trust.p12"])
def test_certificates_of_which_a_part_is_missing_are_made_anew(tmp_path: Path, name: str) -> None:
    # GIVEN
    first = tls.prepare(tmp_path)
    before = loaded(first.certificate) if name != "server.pem" else None
    (first.directory / name).unlink()

    # WHEN
    files = tls.prepare(tmp_path)

    # THEN
    assert (files.directory / name).exists()
    assert loaded(files.certificate) != before


@pytest.mark.own_machinery("the endpoint's own certificates")
def test_a_damaged_certificate_is_made_anew(tmp_path: Path) -> None:
    # GIVEN
    files = tls.prepare(tmp_path)
    files.certificate.write_text("no certificate")

    # WHEN
    tls.prepare(tmp_path)

    # THEN
    loaded(files.certificate).verify_directly_issued_by(loaded(files.authority))


# --- who is told ------------------------------------------------------------------------------------------------------


@pytest.mark.own_machinery("the endpoint's own certificates")
def test_a_job_over_tls_has_the_trust_store_in_its_java_options() -> None:
    # GIVEN
    runtime = spark_runtime.SparkRuntime("5.1", "3.5.6", Path("/py"), Path("/java"), Path("/spark"), (), ())

    # WHEN
    text = spark_runtime.spark_defaults(
        runtime, "https://127.0.0.1:4566", REGION, Path("/work"), trust_store=Path("/a state/tls/trust.p12")
    )

    # THEN
    assert '-Djavax.net.ssl.trustStore="/a state/tls/trust.p12"' in text
    assert "spark.hadoop.fs.s3a.connection.ssl.enabled=true\n" in text


@pytest.mark.source("https://docs.aws.amazon.com/sdkref/latest/guide/feature-gen-config.html")
def test_the_sam_cli_is_told_of_the_authority(tmp_path: Path) -> None:
    # GIVEN / WHEN
    laptop = Laptop(tmp_path)
    variables = deployment.sam_environment({"AWS_CA_BUNDLE": "/of/an/account"}, tmp_path, laptop, OVER_TLS)
    plain = deployment.sam_environment({"AWS_CA_BUNDLE": "/of/an/account"}, tmp_path, laptop, Instance(1, "0", 1, ""))

    # THEN
    assert variables["AWS_ENDPOINT_URL"] == "https://127.0.0.1:4999"
    assert variables["AWS_CA_BUNDLE"] == "/state/tls/authority.pem"
    assert "AWS_CA_BUNDLE" not in plain


@pytest.mark.own_machinery("the endpoint's own certificates")
def test_up_prints_the_authority_for_other_tools() -> None:
    # GIVEN / WHEN
    lines = export_lines(Target(None, OVER_TLS.endpoint_url, "lake", OVER_TLS.authority))

    # THEN
    assert "export AWS_ENDPOINT_URL=https://127.0.0.1:4999" in lines
    assert "export AWS_CA_BUNDLE=/state/tls/authority.pem" in lines


@pytest.mark.own_machinery("the endpoint's own certificates")
@pytest.mark.parametrize(
    ("instance", "over_tls", "said"),
    [(OVER_TLS, False, "over TLS"), (Instance(os.getpid(), "0", 4999, "mark"), True, "without TLS")],
)
def test_an_endpoint_that_runs_does_not_change_to_or_from_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: Instance, over_tls: bool, said: str
) -> None:
    # GIVEN
    laptop = Laptop(tmp_path)
    monkeypatch.setattr("telemetry_lake.commands.up.prepare_tools", lambda *_: None)
    monkeypatch.setattr(laptop, "instance", lambda: instance)

    # WHEN / THEN
    with pytest.raises(OperatorError, match=said):
        bring_up(project_directory(), laptop, Reporter(quiet=True), over_tls=over_tls)


@pytest.mark.source("https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html")
@pytest.mark.parametrize("over_tls", [True, False])
def test_where_tls_is_served_loopback_alone_is_not_secure(over_tls: bool) -> None:
    assert is_secure("127.0.0.1", over_tls, loopback_counts=False) is over_tls


# --- the endpoint -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    process = EndpointProcess(tmp_path_factory.mktemp("over tls"), over_tls=True)
    yield process
    process.stop()


@pytest.mark.source("https://docs.aws.amazon.com/sdkref/latest/guide/feature-gen-config.html")
def test_boto3_with_the_authority_is_served(endpoint: EndpointProcess) -> None:
    assert endpoint.client("sts").get_caller_identity()["Account"] == "123456789012"


@pytest.mark.source("https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html")
def test_a_bucket_that_denies_what_is_not_tls_is_served(endpoint: EndpointProcess) -> None:
    # GIVEN
    s3 = endpoint.client("s3")
    s3.create_bucket(Bucket="strict", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_policy(
        Bucket="strict",
        Policy="""{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:*",
          "Resource": "arn:aws:s3:::strict/*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]}""",
    )

    # WHEN
    s3.put_object(Bucket="strict", Key="key", Body=b"body")

    # THEN
    assert s3.get_object(Bucket="strict", Key="key")["Body"].read() == b"body"


@pytest.mark.own_machinery("the endpoint's own certificates")
def test_queue_urls_are_https(endpoint: EndpointProcess) -> None:
    assert endpoint.client("sqs").create_queue(QueueName="q")["QueueUrl"].startswith(f"{endpoint.url}/")


@pytest.mark.own_machinery("the endpoint's own certificates")
def test_who_does_not_know_the_authority_does_not_talk_to_the_endpoint(endpoint: EndpointProcess) -> None:
    # GIVEN
    client = boto3.client(
        "sts",
        endpoint_url=endpoint.url,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )

    # WHEN / THEN
    with pytest.raises(SSLError, match="certificate verify failed"):
        client.get_caller_identity()


@pytest.mark.own_machinery("the endpoint's own certificates")
@pytest.mark.parametrize(("name", "fits"), [("localhost", True), ("127.0.0.1", True), ("other.example", False)])
def test_the_certificate_is_for_this_machine_alone(endpoint: EndpointProcess, name: str, fits: bool) -> None:
    # GIVEN
    assert endpoint.files is not None
    context = ssl.create_default_context(cafile=str(endpoint.files.authority))

    # WHEN / THEN
    refused = nullcontext() if fits else pytest.raises(ssl.SSLCertVerificationError, match="not valid for")
    with socket.create_connection(("127.0.0.1", endpoint.port)) as connection, refused:
        context.wrap_socket(connection, server_hostname=name).close()


@pytest.mark.own_machinery("the endpoint's own certificates")
def test_plain_http_is_refused(endpoint: EndpointProcess) -> None:
    with pytest.raises((urllib.error.URLError, OSError)):
        urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/_ministack/health", timeout=5)
    assert not tls.answers(f"http://127.0.0.1:{endpoint.port}/_ministack/health", None)


@pytest.mark.own_machinery("the endpoint's own certificates")
def test_a_second_start_has_the_same_authority_and_a_stop_does_not_wait_for_idle_clients(
    endpoint: EndpointProcess,
) -> None:
    # GIVEN a client that keeps its connection
    client = endpoint.client("sts")
    client.get_caller_identity()

    # WHEN
    started = time.monotonic()
    endpoint.stop()
    stop_seconds = time.monotonic() - started
    endpoint.start()

    # THEN
    assert stop_seconds < 15
    assert "SSL shutdown timed out" not in endpoint.log
    assert client.get_caller_identity()["Account"] == "123456789012"
