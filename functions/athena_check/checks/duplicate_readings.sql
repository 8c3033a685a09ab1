-- No reading is stored twice: device, timestamp and temperature together, the numbers as exact doubles, are its identity.
-- when: load, day
-- severity: stop
-- expectation: equals 0
SELECT coalesce(sum(copies - 1), 0) AS value
FROM (
  SELECT count(*) AS copies
  FROM ${table}
  WHERE (${days})
  GROUP BY device_id, "timestamp", temperature
  HAVING count(*) > 1
) AS repeated
