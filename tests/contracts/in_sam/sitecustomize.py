"""Python imports this at its start: in the SAM CLI it judges what the endpoint answers, see ``tests.contracts.sam``."""

import sys

if "samcli" in sys.orig_argv:
    from tests.contracts.sam import record_in_this_process

    record_in_this_process()
