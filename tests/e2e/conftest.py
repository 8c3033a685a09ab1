"""One stack for the end-to-end tests, in a folder with a space in its name; the tests of a module come in order."""

from collections.abc import Iterator

import pytest

from tests.stack import Lake, deployed_lake


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with deployed_lake(tmp_path_factory.mktemp("telemetry lake"), "e2e") as lake:
        yield lake
