-- There are readings at all: 1 if there is none.
-- when: day
-- severity: warn
-- expectation: equals 0
SELECT CASE WHEN count(*) = 0 THEN 1 ELSE 0 END AS value
FROM ${table}
WHERE (${days})
