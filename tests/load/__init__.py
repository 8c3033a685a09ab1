"""``make load``: ten times what a shard takes, and gigabytes through S3, on a real endpoint whose memory is watched."""
