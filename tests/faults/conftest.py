"""One stack for all faults: each test sends new readings and looks at everything that was ever sent."""

from collections.abc import Iterator

import pytest

from tests.stack import Lake, deployed_lake


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with deployed_lake(tmp_path_factory.mktemp("faults"), "faults") as lake:
        yield lake
