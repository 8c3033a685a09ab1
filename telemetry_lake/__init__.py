"""Telemetry Lake: the operator's command line and the embedded AWS endpoint."""
