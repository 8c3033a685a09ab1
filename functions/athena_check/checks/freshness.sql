-- Seconds from the table's newest reading to the start of the run; no reading on two days counts as two days. Also
-- after a load without readings: where nobody sends, there is no other.
-- The alarm table-freshness follows it: an old reading is no fault of the load.
-- when: load, empty_load
-- severity: record
-- expectation: at_most ${max_reading_age_seconds}
SELECT coalesce(date_diff('second', max(event_time), timestamp '${started_at}'), 172800) AS value
FROM ${table}
WHERE (${recent_days})
