"""Workgroups, as the API shows and changes them.

https://docs.aws.amazon.com/athena/latest/APIReference/API_WorkGroupConfiguration.html
The shape of the answers is as published from Athena's:
https://github.com/aoyagikouhei/athena-local/blob/main/docs/dev/measurements/work-groups.md
"""

import re
import time
from collections.abc import Mapping
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.athena.errors import InvalidRequestError

PRIMARY = "primary"
ENGINE_VERSION = {"SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"}
_NAME = re.compile(r"[a-zA-Z0-9._-]{1,128}")
_MINIMUM_CUTOFF_BYTES = 10_000_000
_MAXIMUM_PAGE = 50
_BOOLEANS = (
    "EnforceWorkGroupConfiguration",
    "PublishCloudWatchMetricsEnabled",
    "RequesterPaysEnabled",
    "EnableMinimumEncryptionConfiguration",
)


class WorkGroups:
    """The workgroups of the account."""

    def __init__(self) -> None:
        from ministack.services import athena

        self._athena = athena

    @property
    def _workgroups(self) -> Any:
        return seams.require(self._athena, "_workgroups")

    def find(self, name: str) -> dict[str, Any]:
        """Return a workgroup with a whole configuration.

        Raises:
            InvalidRequestError: there is none of that name.
        """
        stored: dict[str, Any] | None = self._workgroups.get(name)
        if stored is None:
            raise InvalidRequestError("WorkGroup is not found.")
        return {**stored, "Configuration": whole_configuration(name, stored.get("Configuration") or {})}

    # -- API ----------------------------------------------------------------------------------------------------------

    def create(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """CreateWorkGroup."""
        name = data["Name"]
        if not _NAME.fullmatch(name):
            raise InvalidRequestError(f"Invalid WorkGroup name: {name}")
        if name in self._workgroups:
            raise InvalidRequestError("WorkGroup is already created")
        configuration = data.get("Configuration") or {}
        _check(configuration)
        self._workgroups[name] = {
            "Name": name,
            "State": "ENABLED",
            "Description": data.get("Description", ""),
            "CreationTime": round(time.time(), 3),
            "Configuration": dict(configuration),
        }
        if data.get("Tags"):
            seams.require(self._athena, "_tag_resource")(
                {"ResourceARN": seams.require(self._athena, "_arn_workgroup")(name), "Tags": data["Tags"]}
            )
        return {}

    def get(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """GetWorkGroup."""
        workgroup = self.find(data["WorkGroup"])
        if not workgroup.get("Description"):
            workgroup.pop("Description", None)
        return {"WorkGroup": workgroup}

    def list(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """ListWorkGroups, in the order of their names."""
        names = sorted(self._workgroups.keys())
        page, token = paged(names, data, _MAXIMUM_PAGE)
        summaries = [
            {
                "Name": name,
                "State": self._workgroups[name].get("State", "ENABLED"),
                "Description": self._workgroups[name].get("Description", ""),
                "CreationTime": self._workgroups[name].get("CreationTime", 0),
                "EngineVersion": dict(ENGINE_VERSION),
            }
            for name in page
        ]
        return {"WorkGroups": summaries, **token}

    def update(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """UpdateWorkGroup.

        https://docs.aws.amazon.com/athena/latest/APIReference/API_WorkGroupConfigurationUpdates.html
        """
        self.find(data["WorkGroup"])
        stored = self._workgroups[data["WorkGroup"]]
        configuration = dict(stored.get("Configuration") or {})
        updates = dict(data.get("ConfigurationUpdates") or {})
        if updates.pop("RemoveBytesScannedCutoffPerQuery", False):
            configuration.pop("BytesScannedCutoffPerQuery", None)
        results = updates.pop("ResultConfigurationUpdates", None)
        if results is not None:
            configuration["ResultConfiguration"] = _updated_results(configuration.get("ResultConfiguration"), results)
        configuration.update(updates)
        _check(configuration)
        changed = {name: data[name] for name in ("Description", "State") if name in data}
        self._workgroups[data["WorkGroup"]] = {**stored, **changed, "Configuration": configuration}
        return {}

    def delete(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """DeleteWorkGroup: one that holds something only with RecursiveDeleteOption.

        https://docs.aws.amazon.com/athena/latest/APIReference/API_DeleteWorkGroup.html
        """
        name = data["WorkGroup"]
        if name == PRIMARY:
            raise InvalidRequestError("The primary WorkGroup cannot be deleted")
        self.find(name)
        holdings = {
            store: [key for key, value in seams.require(self._athena, store).items() if _workgroup_of(value) == name]
            for store in ("_named_queries", "_prepared_statements", "_executions")
        }
        if any(holdings.values()) and not data.get("RecursiveDeleteOption"):
            raise InvalidRequestError(f"WorkGroup {name} is not empty")
        for store, keys in holdings.items():
            for key in keys:
                del seams.require(self._athena, store)[key]
        del self._workgroups[name]
        seams.require(self._athena, "_tags").pop(seams.require(self._athena, "_arn_workgroup")(name), None)
        return {}


def whole_configuration(name: str, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with what Athena adds to one that says less; booleans of a template arrive as text."""
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-athena-workgroup-workgroupconfiguration.html
    defaults = {"EnforceWorkGroupConfiguration": name != PRIMARY}
    return {
        **configuration,
        **{key: str(configuration.get(key, defaults.get(key, False))).lower() == "true" for key in _BOOLEANS},
        **(
            {"BytesScannedCutoffPerQuery": int(configuration["BytesScannedCutoffPerQuery"])}
            if configuration.get("BytesScannedCutoffPerQuery") is not None
            else {}
        ),
        "EngineVersion": dict(ENGINE_VERSION),
        "ResultConfiguration": dict(configuration.get("ResultConfiguration") or {}),
    }


def paged(
    names: "list[str]", data: Mapping[str, Any], maximum: int, default: int | None = None
) -> "tuple[list[str], dict[str, str]]":
    """Return a page of names, and the token of the next one.

    Raises:
        InvalidRequestError: the page is too large, or the token is none of ours.
    """
    size = int(data.get("MaxResults") or default or maximum)
    if size > maximum:
        raise InvalidRequestError(
            "1 validation error detected: Value at 'maxResults' failed to satisfy constraint: Member must have value "
            f"less than or equal to {maximum}"
        )
    token = data.get("NextToken", "0")
    if not token.isdigit():
        raise InvalidRequestError(f"The nextPageToken is malformed: {token}")
    start = int(token)
    following = {"NextToken": str(start + size)} if start + size < len(names) else {}
    return names[start : start + size], following


def _check(configuration: Mapping[str, Any]) -> None:
    cutoff = configuration.get("BytesScannedCutoffPerQuery")
    if cutoff is not None and int(cutoff) < _MINIMUM_CUTOFF_BYTES:
        raise InvalidRequestError(f"BytesScannedCutoffPerQuery must be at least {_MINIMUM_CUTOFF_BYTES}")


def _updated_results(current: Mapping[str, Any] | None, updates: Mapping[str, Any]) -> dict[str, Any]:
    removed = {key.removeprefix("Remove") for key, value in updates.items() if key.startswith("Remove") and value}
    given = {key: value for key, value in updates.items() if not key.startswith("Remove")}
    return {key: value for key, value in {**(current or {}), **given}.items() if key not in removed}


def _workgroup_of(stored: Mapping[str, Any]) -> str | None:
    return stored.get("WorkGroup") or stored.get("WorkGroupName")
