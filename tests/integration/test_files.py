"""The files that the job stages: how many, sorted by what, with which types."""

from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.integration.conftest import reading
from tests.integration.test_judge import columns, lines_of

DAY = 1_760_486_400  # 2025-10-15T00:00:00Z


def write(spark: Any, etl: ModuleType, directory: Path, lines: list[str], file_bytes: int) -> list[Path]:
    judged = etl.judge_lines(lines_of(spark, etl, directory, lines), columns(etl), "UTC").where("is_reading")
    in_another_order = judged.orderBy("temperature").localCheckpoint()
    file_rows = etl.rows_per_file(columns(etl), file_bytes)
    chunks = etl.chunks_by_day(etl.measure(judged).rows_by_day, file_rows)
    readings = etl.divide(in_another_order.drop("is_reading", "line", "is_cut"), chunks)
    etl.write_new(etl.find_new(readings, None, True, 2), columns(etl), file_rows, str(directory / "out"))
    return sorted((directory / "out").rglob("*.parquet"))


def footer(spark: Any, file: Path) -> Any:
    java = spark._jvm
    path = java.org.apache.hadoop.fs.Path(str(file))
    reader = java.org.apache.parquet.hadoop.ParquetFileReader
    source = java.org.apache.parquet.hadoop.util.HadoopInputFile.fromPath(path, spark._jsc.hadoopConfiguration())
    opened = reader.open(source)
    try:
        return opened.getFooter()
    finally:
        opened.close()


def test_a_day_becomes_one_sorted_file_with_the_columns_of_the_table(
    spark: Any, etl: ModuleType, tmp_path: Path
) -> None:
    # GIVEN readings of two days in no order
    etl.configure(spark)
    lines = [reading(f"device-{n * 7 % 10}", n, DAY + n * 7919 % 172_800) for n in range(500)]

    # WHEN they are written
    files = write(spark, etl, tmp_path, lines, file_bytes=2**28)

    # THEN each day is one file, sorted by device and time
    assert [file.parent.relative_to(tmp_path / "out").as_posix() for file in files] == [
        "staged-date=2025-10-15/staged-chunk=0",
        "staged-date=2025-10-16/staged-chunk=0",
    ]
    total = 0
    for file in files:
        rows = [(row["device_id"], row["event_time"]) for row in spark.read.parquet(str(file)).collect()]
        assert rows == sorted(rows)
        total += len(rows)
    assert total == len(set(lines))
    # THEN the columns are those of the table alone, and times have statistics to skip rows by
    metadata = footer(spark, files[0])
    schema = metadata.getFileMetaData().getSchema()
    assert [field.getName() for field in schema.getFields()] == list(etl.REQUIRED_COLUMNS)
    assert schema.getFields().get(3).toString() == "optional int64 event_time (TIMESTAMP(MICROS,true))"
    block = metadata.getBlocks().get(0)
    assert all(not column.getStatistics().isEmpty() for column in block.getColumns())
    assert {column.getCodec().toString() for column in block.getColumns()} == {"SNAPPY"}


def test_a_day_beyond_the_size_target_becomes_several_files_and_loses_nothing(
    spark: Any, etl: ModuleType, tmp_path: Path
) -> None:
    # GIVEN a day of many devices with rows for five files, beside a small day
    etl.configure(spark)
    lines = [reading(f"device-{n % 50}", n, DAY + n) for n in range(500)] + [reading("a", 1, DAY + 86_400)]

    # WHEN they are written
    files = write(spark, etl, tmp_path, lines, file_bytes=100 * etl.BYTES_PER_ROW)

    # THEN the large day is divided, each device in one file of it
    large = [file for file in files if "/staged-date=2025-10-15/" in str(file)]
    devices = [{row["device_id"] for row in spark.read.parquet(str(f)).collect()} for f in large]
    assert 3 <= len(large) <= 6
    assert sum(len(one) for one in devices) == len(set().union(*devices)) == 50
    assert len(files) == len(large) + 1
    assert spark.read.parquet(str(tmp_path / "out")).count() == len(lines)


def test_one_device_alone_is_divided_too(spark: Any, etl: ModuleType, tmp_path: Path) -> None:
    # GIVEN a day of one device, far beyond the size target
    etl.configure(spark)
    lines = [reading("a", n, DAY + n) for n in range(500)]

    # WHEN it is written
    files = write(spark, etl, tmp_path, lines, file_bytes=50 * etl.BYTES_PER_ROW)

    # THEN no file has more than twice the rows that were asked for
    counts = [spark.read.parquet(str(file)).count() for file in files]
    assert sum(counts) == 500
    assert max(counts) <= 100


def test_final_names_have_the_run_and_a_number_of_their_own(etl: ModuleType) -> None:
    # GIVEN what Spark has left in the staging folder
    staging, target = etl.S3Location("lake", "staging/jr_1/"), etl.S3Location("lake", "curated/device_telemetry/")
    staged = [
        ("staging/jr_1/readings/_SUCCESS", 0),
        ("staging/jr_1/readings/staged-date=2025-10-16/staged-chunk=0/part-1-x.c000.snappy.parquet", 7),
        ("staging/jr_1/readings/staged-date=2025-10-15/staged-chunk=0/part-1-x.c000.snappy.parquet", 5),
        ("staging/jr_1/readings/staged-date=2025-10-15/staged-chunk=0/part-1-x.c001.snappy.parquet", 6),
        ("staging/jr_1/rejects/_SUCCESS", 0),
        ("staging/jr_1/rejects/part-00000-y-c000.txt.gz", 8),
    ]

    # WHEN the files get their names
    readings = etl.name_readings(staged, staging, target, "jr_1")
    rejects = etl.name_dead_letters(staged, staging, etl.S3Location("lake", "dlq/raw_json/"), "jr_1", date(2026, 1, 2))

    # THEN markers are left out, and no two files have one name
    assert [(file.target_key, file.size_bytes) for file in readings] == [
        ("curated/device_telemetry/year=2025/month=10/day=15/jr_1-00000.snappy.parquet", 5),
        ("curated/device_telemetry/year=2025/month=10/day=15/jr_1-00001.snappy.parquet", 6),
        ("curated/device_telemetry/year=2025/month=10/day=16/jr_1-00002.snappy.parquet", 7),
    ]
    assert [file.target_key for file in rejects] == ["dlq/raw_json/year=2026/month=1/day=2/jr_1-00000.json.gz"]
