"""The Glue job beside other ways from gzip JSON lines to Parquet."""
