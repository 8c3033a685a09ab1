"""The transform that Firehose calls with each batch: validates and canonicalises readings, keeps every reject."""
