-- What the run added lies within the limits of the policy. Older rows may have been judged by older limits.
-- when: load
-- severity: stop
-- expectation: equals 0
SELECT count(*) AS value
FROM ${table}
WHERE (${days})
  AND ${files}
  AND (
    temperature < ${temperature_min} OR temperature > ${temperature_max} OR is_nan(temperature)
    OR length(device_id) < 1 OR length(device_id) > 256
  )
