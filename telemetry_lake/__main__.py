"""Run the operator's command line without an installed script: ``python -m telemetry_lake --help``."""

from telemetry_lake.cli import main

if __name__ == "__main__":
    main()
