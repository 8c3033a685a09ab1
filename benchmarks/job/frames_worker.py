"""The contestants that are no clusters: DuckDB, Polars and gunzip alone, on local files. Runs in ``.tools/benchmarks``.

None of them judges a line, keeps a reject or compares with what is stored. They convert what the job converts: gzip
JSON lines to Parquet with Snappy, a folder a day, with the instant as microseconds.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl

from benchmarks.job import worker

THREADS = 2


def duckdb_sql(raw: str, out: str, *, like_the_job: bool) -> None:
    """Convert with DuckDB; ``like_the_job`` also removes repeats and sorts by device and time, as the job does."""
    distinct, order = ("DISTINCT", "ORDER BY year, month, day, device_id, event_time") if like_the_job else ("", "")
    columns = """{device_id: 'VARCHAR', temperature: 'DOUBLE', "timestamp": 'DOUBLE'}"""
    with duckdb.connect() as connection:
        connection.execute(f"SET threads = {THREADS}")
        connection.execute(
            f"""
            COPY (
                SELECT {distinct} device_id, temperature, "timestamp",
                    make_timestamp(round_even("timestamp" * 1e6, 0)::BIGINT) AS event_time,
                    year(event_time) AS year, month(event_time) AS month, day(event_time) AS day
                FROM read_json('{raw}/*.gz', format = 'newline_delimited', columns = {columns})
                {order}
            ) TO '{out}' (FORMAT parquet, COMPRESSION snappy, PARTITION_BY (year, month, day))
            """  # noqa: S608  the benchmark's own folders
        )


def polars_frames(raw: str, out: str) -> None:
    """Convert with Polars' streaming engine."""
    files = sorted(Path(raw).glob("*.gz"))
    schema = {"device_id": pl.String(), "temperature": pl.Float64(), "timestamp": pl.Float64()}
    micros = (pl.col("timestamp") * 1e6).round().cast(pl.Int64)
    readings = pl.scan_ndjson(files, schema=schema).with_columns(
        pl.from_epoch(micros, time_unit="us").alias("event_time")
    )
    event_time = pl.col("event_time").dt
    days = readings.with_columns(
        event_time.year().alias("year"), event_time.month().alias("month"), event_time.day().alias("day")
    )
    folders = pl.PartitionBy(out, key=["year", "month", "day"], include_key=False)
    days.sink_parquet(folders, compression="snappy", mkdir=True)


def gunzip(raw: str) -> None:
    """Do nothing but decompress, two files at a time."""
    files = "\0".join(map(str, sorted(Path(raw).glob("*.gz"))))
    command = ["xargs", "--null", "-P", str(THREADS), "-n", "5", "gzip", "-dc"]
    subprocess.run(command, input=files.encode(), stdout=subprocess.DEVNULL, check=True)


def count(out: str) -> int:
    """Count the rows that were written."""
    with duckdb.connect() as connection:
        rows = connection.execute("SELECT count(*) FROM read_parquet(?)", [f"{out}/**/*.parquet"]).fetchall()
    return int(rows[0][0])


def clean(out: str) -> None:
    """Remove what was written."""
    shutil.rmtree(out, ignore_errors=True)


OPERATIONS: dict[str, Callable[..., object]] = {
    "duckdb": lambda raw, out: duckdb_sql(raw, out, like_the_job=False),
    "duckdb_like_the_job": lambda raw, out: duckdb_sql(raw, out, like_the_job=True),
    "polars": polars_frames,
    "gunzip": gunzip,
    "count": count,
    "clean": clean,
}

if __name__ == "__main__":
    worker.serve(OPERATIONS)
