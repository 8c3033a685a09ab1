-- Seconds from the table's newest reading to the start of the run; no reading on two days counts as two days.
-- The alarm table-freshness follows it: an old reading is no fault of the load.
-- when: load
-- severity: record
-- expectation: at_most ${max_reading_age_seconds}
SELECT coalesce(date_diff('second', max(event_time), timestamp '${started_at}'), 172800) AS value
FROM ${table}
WHERE (${recent_days})
