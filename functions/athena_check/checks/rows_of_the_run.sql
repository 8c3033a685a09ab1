-- The files of the run hold exactly the rows that its summary says are new in these partitions.
-- when: load
-- severity: stop
-- expectation: equals ${listed_new}
SELECT count(*) AS value
FROM ${table}
WHERE (${days})
  AND ${files}
