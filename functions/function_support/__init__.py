"""What every function here needs: a validated environment, and metrics with exactly the dimensions alarms name."""
