"""The embedded AWS endpoint: MiniStack in one process, and what it lacks, one module per service.

These modules model AWS and never import the functions, the job or the contract. Each opens with its
known deviations from AWS.
"""
