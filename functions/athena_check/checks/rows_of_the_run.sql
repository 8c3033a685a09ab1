-- The files of the run hold exactly the rows that its summary says are new in these partitions.
-- expectation: equals ${listed_new}
SELECT count(*) AS value
FROM ${table}
WHERE (${touched_days})
  AND strpos("$path", '/${job_run_id}-') > 0
