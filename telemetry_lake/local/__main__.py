"""Run the embedded AWS endpoint in the foreground: ``python -m telemetry_lake.local --help``."""

import argparse
import logging
from pathlib import Path

from telemetry_lake.local import tls
from telemetry_lake.local.endpoint import EndpointSettings, run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m telemetry_lake.local", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument(
        "--listener", type=int, metavar="FD", help="descriptor of a socket that listens on the port already"
    )
    parser.add_argument("--state-directory", type=Path, required=True, help="where objects and service state are kept")
    parser.add_argument(
        "--tools-directory",
        type=Path,
        default=Path(__file__).resolve().parents[2] / ".tools",
        help="where the environments of Spark and of the Lambda runtime are (default: .tools of this checkout)",
    )
    parser.add_argument("--region", default="ap-northeast-1")
    parser.add_argument(
        "--tls",
        action="store_true",
        help="serve over TLS, with a certificate of its own authority: tls/authority.pem in the state directory",
    )
    parser.add_argument(
        "--exit-with-parent", action="store_true", help="stop when standard input ends, that is, with the parent"
    )
    return parser.parse_args()


def main() -> None:
    """Parse the command line and serve."""
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s [%(name)s] %(message)s")
    state_directory = arguments.state_directory.resolve()
    run(
        EndpointSettings(
            port=arguments.port,
            listener=arguments.listener,
            state_directory=state_directory,
            tools_directory=arguments.tools_directory.resolve(),
            region=arguments.region,
            tls_files=tls.prepare(state_directory) if arguments.tls else None,
        ),
        exit_with_parent=arguments.exit_with_parent,
    )


if __name__ == "__main__":
    main()
