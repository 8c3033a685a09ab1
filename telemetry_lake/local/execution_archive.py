"""Ended executions of Step Functions, in a file each, so that saving the running ones stays cheap over months.

Known deviations from AWS:

* The last 500 executions that have ended are kept; AWS keeps them for 90 days
  (https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html).
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint

MOST_EXECUTIONS = 500

Execution = dict[str, Any]
# What MiniStack saves beside executions: the name in the file, which is that of its store with an underscore.
OTHER_STORES = (
    "state_machines",
    "tags",
    "activities",
    "state_machine_versions",
    "state_machine_aliases",
    "map_runs",
)


def is_newer(archived: Mapping[str, Any], saved: Mapping[str, Any] | None) -> bool:
    """Tell whether an archived end came after what was saved of the running ones: a redrive counts up."""
    return saved is None or archived.get("redriveCount", 0) >= saved.get("redriveCount", 0)


def snapshot(execution: Mapping[str, Any]) -> Execution:
    """Return a copy of an execution that may go on meanwhile.

    Events never change once they are in the history, so that they need no copies of their own. They are read first: the
    place where a redrive goes on is then never behind what they tell.
    """
    events = list(execution["events"])
    return {**copy.deepcopy({name: value for name, value in execution.items() if name != "events"}), "events": events}


class ExecutionArchive:
    """Writes executions when they have ended, and reads them when the endpoint starts."""

    def __init__(self, endpoint: Endpoint, service: Any) -> None:
        self._service = service
        self._directory: Path = endpoint.settings.state_directory / "stepfunctions"
        self._executions = seams.require(service, "_executions")
        self._stores = {name: seams.require(service, f"_{name}") for name in OTHER_STORES}
        self._archived: dict[tuple[str, ...], tuple[Any, ...]] = {}
        self._load = seams.require(service, "load_persisted_state")

    def state(self) -> dict[str, Any]:
        """Archive what has ended since the last call, and return the rest of the state."""
        running = type(self._executions)()
        ended = []
        for key, execution in list(self._executions._data.items()):
            if execution["status"] == "RUNNING":
                running._data[key] = snapshot(execution)
            else:
                ended.append(key)
                self._archive(key, execution)
        ended.sort(key=lambda key: str(self._executions._data[key].get("stopDate")))
        for key in ended[: max(0, len(ended) - MOST_EXECUTIONS)]:
            del self._executions._data[key]
            del self._archived[key]
            self._file(key).unlink(missing_ok=True)
        return {"executions": running, **{name: copy.deepcopy(store) for name, store in self._stores.items()}}

    def load(self, data: dict[str, Any]) -> None:
        """Restore the state, with the archived executions in it."""
        executions = data["executions"]
        for file in self._directory.glob("*.json"):
            archived = json.loads(file.read_text())
            key = tuple(archived["key"])
            if is_newer(archived["execution"], executions._data.get(key)):
                executions._data[key] = archived["execution"]
                self._archived[key] = _stamp(archived["execution"])
        self._load(data)

    def _archive(self, key: tuple[str, ...], execution: Execution) -> None:
        if self._archived.get(key) == _stamp(execution):
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        written = self._file(key).with_suffix(".new")
        written.write_text(json.dumps({"key": key, "execution": execution}))
        written.replace(self._file(key))
        self._archived[key] = _stamp(execution)

    def _file(self, key: tuple[str, ...]) -> Path:
        return self._directory / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.json"


def _stamp(execution: Mapping[str, Any]) -> tuple[Any, ...]:
    return execution["status"], execution.get("redriveCount", 0), len(execution["events"])


def install(endpoint: Endpoint) -> None:
    """Keep ended executions out of the state that is saved again and again."""
    from ministack.services import stepfunctions as service

    archive = ExecutionArchive(endpoint, service)
    seams.replace(service, "get_state", archive.state)
    seams.replace(service, "load_persisted_state", archive.load)
