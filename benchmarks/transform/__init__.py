"""The transform beside other handlers for Firehose."""
