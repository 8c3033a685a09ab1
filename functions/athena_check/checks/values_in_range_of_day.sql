-- The rows of the day lie within the limits of the policy. The day's loads were judged by the limits that held then: this
-- warns of rows that something else wrote, or that limits were narrowed since.
-- when: day
-- severity: warn
-- expectation: equals 0
SELECT count(*) AS value
FROM ${table}
WHERE (${days})
  AND (
    temperature < ${temperature_min} OR temperature > ${temperature_max} OR is_nan(temperature)
    OR length(device_id) < 1 OR length(device_id) > 256
  )
