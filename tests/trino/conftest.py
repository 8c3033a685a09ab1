"""A real Trino beside the embedded Athena: ``make trino``."""

from tests.trino import installation

# Without it there is nothing here to collect: 800 MB are not fetched by the way.
collect_ignore_glob = [] if installation.home().exists() else ["test_*.py"]
