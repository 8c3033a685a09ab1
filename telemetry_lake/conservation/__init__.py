"""The independent checker of conservation: what was acknowledged, against the table and the rejects.

P is what the producers' ledgers say that Kinesis acknowledged, C the rows of the table as Athena gives them, R the
rejects: dead letters, Firehose's error prefix and quarantined objects. Every reading of P is in C or in R, every
unreadable record is in R, C holds no reading twice, and neither holds what nobody sent.

Nothing here comes from the code that it judges: no module of the contract, the functions, the job, the producer or its
ledger. Records are taken apart by the standard library's JSON parser, from what ``docs/contract.md`` promises.
"""
