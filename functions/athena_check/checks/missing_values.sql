-- Every column has a value.
-- when: load, day
-- severity: stop
-- expectation: equals 0
SELECT count(*) AS value
FROM ${table}
WHERE (${days})
  AND (device_id IS NULL OR "timestamp" IS NULL OR temperature IS NULL OR event_time IS NULL)
