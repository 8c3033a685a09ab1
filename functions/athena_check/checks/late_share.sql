-- Share of the run's rows, in percent, that are late: their event lies more than some hours before the run.
-- when: load
-- severity: warn
-- expectation: at_most ${max_late_percent}
SELECT coalesce(
  1e2 * count_if(event_time < timestamp '${started_at}' - interval '${late_after_hours}' hour) / nullif(count(*), 0), 0
) AS value
FROM ${table}
WHERE (${days})
  AND ${files}
