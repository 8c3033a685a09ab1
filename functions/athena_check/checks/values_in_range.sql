-- What the run added lies within the limits of the policy. Older rows may have been judged by older limits.
-- expectation: equals 0
SELECT count(*) AS value
FROM ${table}
WHERE (${touched_days})
  AND strpos("$path", '/${job_run_id}-') > 0
  AND (
    temperature < ${temperature_min} OR temperature > ${temperature_max} OR is_nan(temperature)
    OR length(device_id) < 1 OR length(device_id) > 256
  )
