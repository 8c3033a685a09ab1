"""dbt with its adapter for Athena (https://github.com/dbt-labs/dbt-adapters): models, tests, a second run."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awswrangler
import pytest

PROJECT = {
    "dbt_project.yml": "name: lake\nversion: '1.0'\nprofile: lake\nflags: {send_anonymous_usage_stats: false}\n",
    "profiles.yml": """
lake:
  target: laptop
  outputs:
    laptop:
      type: athena
      region_name: "{{ env_var('AWS_DEFAULT_REGION') }}"
      s3_staging_dir: s3://%(bucket)s/dbt-results/
      s3_data_dir: s3://%(bucket)s/dbt/
      database: awsdatacatalog
      schema: modelled
      threads: 1
""",
    "models/schema.yml": """
version: 2
sources:
  - {name: clients, schema: clients, tables: [{name: readings}]}
models:
  - name: by_device
    columns: [{name: device_id, data_tests: [not_null, unique]}]
  - name: known
    columns: [{name: mean, data_tests: [not_null]}]
""",
    "models/by_device.sql": """
{{ config(materialized='table') }}
select device_id, avg(temperature) as mean from {{ source('clients', 'readings') }} group by device_id
""",
    "models/known.sql": """
{{ config(materialized='view') }}
select device_id, mean from {{ ref('by_device') }} where mean is not null
""",
    "models/recent.sql": """
{{ config(materialized='incremental', incremental_strategy='insert_overwrite', partitioned_by=['day']) }}
select device_id, day from {{ source('clients', 'readings') }}
{% if is_incremental() %} where day > 14 {% endif %}
""",
}
# Name of a model or the beginning of a test's, and how it ends.
BUILT = {
    "by_device": "success",
    "known": "success",
    "recent": "success",
    "not_null_by_device_device_id": "pass",
    "unique_by_device_device_id": "pass",
    "not_null_known_mean": "pass",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, bucket: str, database: str) -> Path:
    directory = tmp_path_factory.mktemp("dbt project")
    for name, text in PROJECT.items():
        file = directory / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text % {"bucket": bucket} if name == "profiles.yml" else text)
    return directory


def build(project: Path, *arguments: str) -> Mapping[str, str]:
    """Run ``dbt build`` and return how each model and test ended."""
    dbt = Path(sys.executable).with_name("dbt")
    command = [str(dbt), "--no-use-colors", "build", "--profiles-dir", ".", *arguments]
    completed = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=600, check=False)
    results: list[dict[str, Any]] = json.loads((project / "target" / "run_results.json").read_text())["results"]
    ends = {each["unique_id"].split(".")[2]: each["status"] for each in results}
    assert completed.returncode == int("fail" in ends.values()), completed.stdout
    return ends


def rows(bucket: str, sql: str) -> list[tuple[Any, ...]]:
    frame = awswrangler.athena.read_sql_query(
        sql, database="modelled", ctas_approach=False, s3_output=f"s3://{bucket}/results/"
    )
    return list(frame.itertuples(index=False, name=None))


def test_models_are_built_and_tested(project: Path, bucket: str) -> None:
    # WHEN
    built = build(project)
    # THEN
    assert built == BUILT
    assert rows(bucket, "SELECT device_id, mean FROM known ORDER BY 1") == [("a", 20.5), ("b", -1.0)]
    assert rows(bucket, "SELECT day, count(*) FROM recent GROUP BY day ORDER BY day") == [(14, 1), (15, 2)]


def test_a_second_run_replaces_partitions_and_tables_and_a_test_can_fail(project: Path, bucket: str) -> None:
    # GIVEN a test of the data that they do not pass
    (project / "tests").mkdir()
    (project / "tests" / "none_is_called_a.sql").write_text(
        "select * from {{ ref('by_device') }} where device_id = 'a'"
    )
    # WHEN
    built = build(project, "--select", "recent", "by_device")
    # THEN
    expected = {name: status for name, status in BUILT.items() if "known" not in name}
    assert built == {**expected, "none_is_called_a": "fail"}
    assert rows(bucket, "SELECT day, count(*) FROM recent GROUP BY day ORDER BY day") == [(14, 1), (15, 2)]
    assert rows(bucket, "SELECT count(*) FROM by_device") == [(3,)]
