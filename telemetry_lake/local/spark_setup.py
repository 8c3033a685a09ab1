"""What prepares Spark's libraries, run once as a script by the Python of a Glue environment.

It is started by ``spark_runtime.prepare`` and imports nothing of this project: a Glue environment holds Spark and Java,
not the embedded endpoint. ``trust`` and ``resolve`` fetch the jars, ``warm-up`` runs a small job whose Java classes
go into the class archive.
"""

import argparse
import hashlib
import http.server
import os
import shlex
import sys
import threading
import urllib.parse
from pathlib import Path
from typing import Any

from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812  the name that Spark's documentation gives it

LAST_MODIFIED = "2026-01-01T00:00:00.000Z"
WARM_UP_LINES = [
    f'{{"device_id":"device-{n % 7}","temperature":{n / 4},"timestamp":{1_760_000_000 + n}}}' for n in range(500)
]
WARM_UP_SCHEMA = "array<struct<device_id:string,temperature:double,timestamp:double>>"


def _with_java(arguments: list[str]) -> Any:
    """Start Spark's Java process the way PySpark does and return PySpark's gateway to it."""
    os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join([*arguments, "pyspark-shell"])
    return launch_gateway()


def _end_java(gateway: Any) -> None:
    """Let the Java process exit on its own and wait for it: it may write its class archive while it exits."""
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()


def make_trust_store(certificates: Path, trust_store: Path, password: str) -> None:
    """Write the certificates of a PEM bundle as a trust store that Java reads.

    A Java runtime from a package trusts its own list alone, not what the machine's administrator added, for example
    the certificate of a company's proxy.
    """
    gateway = _with_java([])
    java = gateway.jvm
    store = java.java.security.KeyStore.getInstance("PKCS12")
    store.load(None, None)
    bundle = java.java.io.FileInputStream(str(certificates))
    factory = java.java.security.cert.CertificateFactory.getInstance("X.509")
    for number, certificate in enumerate(factory.generateCertificates(bundle)):
        store.setCertificateEntry(f"certificate-{number}", certificate)
    bundle.close()
    characters = gateway.new_array(java.char, len(password))
    for position, character in enumerate(password):
        characters[position] = character
    output = java.java.io.FileOutputStream(str(trust_store))
    store.store(output, characters)
    output.close()
    _end_java(gateway)


def resolve(properties_file: Path) -> None:
    """Let Spark's own Ivy fetch ``spark.jars.packages`` into the ``jars`` folder of ``spark.jars.ivy``."""
    _end_java(_with_java(["--properties-file", str(properties_file)]))


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


class _ObjectStore(http.server.BaseHTTPRequestHandler):
    """As much of S3 as one warm-up run asks for, kept in memory."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes] = {}  # noqa: RUF012  shared by the requests on purpose

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        answer = {"Content-Length": str(len(body)), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", **(headers or {})}
        for name, value in answer.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _key(self) -> str:
        return urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).removeprefix("/warm-up/")

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" not in self.headers.get("Content-Encoding", "") and not self.headers.get(
            "x-amz-content-sha256", ""
        ).startswith("STREAMING"):
            return data
        plain = b""
        while data:
            head, _, data = data.partition(b"\r\n")
            size = int(head.split(b";")[0], 16)
            plain, data = plain + data[:size], data[size + 2 :]
        return plain

    def do_PUT(self) -> None:
        """Store an object, or a copy of one."""
        source = self.headers.get("x-amz-copy-source")
        body = self._body()
        if source is None:
            self.objects[self._key()] = body
            self._answer(200, headers={"ETag": _etag(body)})
            return
        self.objects[self._key()] = self.objects[urllib.parse.unquote(source).lstrip("/").removeprefix("warm-up/")]
        modified = f"<LastModified>{LAST_MODIFIED}</LastModified>"
        result = f"<CopyObjectResult><ETag>{_etag(self.objects[self._key()])}</ETag>{modified}</CopyObjectResult>"
        self._answer(200, result.encode(), {"Content-Type": "application/xml"})

    def do_HEAD(self) -> None:
        """Tell an object's length."""
        self.do_GET()

    def do_GET(self) -> None:
        """Return a listing or an object, or the part of it that is asked for."""
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query, keep_blank_values=True))
        if "list-type" in query:
            self._answer(200, self._listing(query.get("prefix", ""), query.get("delimiter", "")))
            return
        data = self.objects.get(self._key())
        if data is None:
            self._answer(404)
            return
        wanted = self.headers.get("Range", "")
        if not wanted.startswith("bytes="):
            self._answer(200, data, {"ETag": _etag(data)})
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else len(data)]
        spread = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        self._answer(206, part, {"ETag": _etag(data), "Content-Range": spread})

    def _listing(self, prefix: str, delimiter: str) -> bytes:
        files, folders = [], set()
        for key in sorted(self.objects):
            if key.startswith(prefix):
                rest = key[len(prefix) :]
                if delimiter and delimiter in rest:
                    folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                else:
                    files.append(key)
        contents = "".join(
            f"<Contents><Key>{key}</Key><LastModified>{LAST_MODIFIED}</LastModified>"
            f"<ETag>{_etag(self.objects[key])}</ETag><Size>{len(self.objects[key])}</Size></Contents>"
            for key in files
        )
        common = "".join(f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in sorted(folders))
        return (
            f"<ListBucketResult><Name>warm-up</Name><Prefix>{prefix}</Prefix><KeyCount>{len(files) + len(folders)}"
            f"</KeyCount><IsTruncated>false</IsTruncated>{contents}{common}</ListBucketResult>"
        ).encode()

    def do_POST(self) -> None:
        """Delete several objects: Spark does so with what it wrote on the way."""
        body = self._body().decode()
        for part in body.split("<Key>")[1:]:
            self.objects.pop(urllib.parse.unquote(part.partition("</Key>")[0]), None)
        self._answer(200, b"<DeleteResult/>", {"Content-Type": "application/xml"})

    def do_DELETE(self) -> None:
        """Delete one object."""
        self.objects.pop(self._key(), None)
        self._answer(204)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the requests off the terminal."""


def warm_up(properties_file: Path) -> None:
    """Run a job of the common kind (lines of JSON to Parquet, a join, an aggregate), so that its classes are loaded."""
    store = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _ObjectStore)
    threading.Thread(target=store.serve_forever, daemon=True).start()
    endpoint_url = f"http://127.0.0.1:{store.server_address[1]}"
    gateway = _with_java(
        ["--properties-file", str(properties_file), "--conf", f"spark.hadoop.fs.s3a.endpoint={endpoint_url}"]
    )
    from pyspark import SparkContext

    spark = SparkSession(SparkContext(gateway=gateway))
    _ObjectStore.objects["raw/part-0.json"] = "\n".join(WARM_UP_LINES).encode()
    lines = spark.read.text("s3://warm-up/raw/")
    readings = (
        lines.select(F.explode(F.from_json(F.concat(F.lit("["), "value", F.lit("]")), WARM_UP_SCHEMA)).alias("reading"))
        .select("reading.*")
        .withColumn("event_time", F.expr("timestamp_micros(CAST(timestamp * 1000000 AS BIGINT))"))
        .withColumn("day", F.dayofmonth("event_time"))
        .withColumn("identity", F.sha2(F.concat_ws("|", "device_id", "temperature"), 256))
        .dropDuplicates(["identity"])
        .localCheckpoint()
    )
    readings.repartition(2, "day").sortWithinPartitions("device_id", "event_time").write.partitionBy("day").parquet(
        "s3://warm-up/table/"
    )
    stored = spark.read.parquet("s3://warm-up/table/")
    new = readings.join(stored, ["device_id", "timestamp", "temperature"], "left_anti")
    counts = stored.groupBy("day").agg(F.count("*"), F.min("event_time"), F.avg("temperature")).collect()
    new.select(F.to_json(F.struct("*")).alias("value")).write.option("compression", "gzip").text("s3://warm-up/rest/")
    if not counts:
        sys.exit("The warm-up run stored nothing")
    spark.stop()
    _end_java(gateway)
    store.shutdown()


def main() -> None:
    """Do the step that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    trust = steps.add_parser("trust")
    trust.add_argument("--certificates", type=Path, required=True)
    trust.add_argument("--trust-store", type=Path, required=True)
    trust.add_argument("--password", required=True)
    for name in ("resolve", "warm-up"):
        steps.add_parser(name).add_argument("--properties-file", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.step == "trust":
        make_trust_store(arguments.certificates, arguments.trust_store, arguments.password)
    elif arguments.step == "resolve":
        resolve(arguments.properties_file)
    else:
        warm_up(arguments.properties_file)


if __name__ == "__main__":
    main()
