-- Share of the day's readings, in percent, that were rejected and are still not in the table. Rejects are kept by the
-- day of their arrival, rows by the day of their event: the same for all but the late ones.
-- when: day
-- severity: warn
-- expectation: at_most ${max_open_rejects_percent}
WITH stored AS (
  SELECT DISTINCT device_id, "timestamp", temperature
  FROM ${table}
  WHERE (${days})
),
rejected AS (
  SELECT reject_id, max(device_id) AS device_id, max("timestamp") AS "timestamp", max(temperature) AS temperature
  FROM ${rejects_table}
  WHERE (${days})
  GROUP BY reject_id
),
open_rejects AS (
  SELECT rejected.reject_id
  FROM rejected
  LEFT JOIN stored
    ON stored.device_id = rejected.device_id
    AND stored."timestamp" = rejected."timestamp"
    AND stored.temperature = rejected.temperature
  WHERE stored.device_id IS NULL
)
SELECT coalesce(1e2 * open.number / nullif(open.number + kept.number, 0), 0) AS value
FROM (SELECT count(*) AS number FROM open_rejects) AS open
CROSS JOIN (SELECT count(*) AS number FROM stored) AS kept
