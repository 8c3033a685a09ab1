-- Every column has a value.
-- expectation: equals 0
SELECT count(*) AS value
FROM ${table}
WHERE (${touched_days})
  AND (device_id IS NULL OR "timestamp" IS NULL OR temperature IS NULL OR event_time IS NULL)
