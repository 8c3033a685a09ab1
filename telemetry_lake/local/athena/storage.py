"""Objects of S3 as files that DuckDB can read, listed and opened with the caller's permissions."""

import bisect
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.athena.access import Caller
from telemetry_lake.local.athena.errors import QueryFailedError
from telemetry_lake.local.encryption import CustomerKeys

_LOCATION = re.compile(r"s3[an]?://([^/]+)/?(.*)", re.DOTALL)
# Athena passes over objects that are not immediately readable
# (https://docs.aws.amazon.com/athena/latest/ug/creating-tables.html); Instant Retrieval is readable.
_UNREADABLE_STORAGE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})


@dataclass(frozen=True)
class StoredObject:
    """An object of a table: where it is and its size in bytes."""

    bucket: str
    key: str
    size_bytes: int

    @property
    def path(self) -> str:
        """The value of the pseudo column ``"$path"``."""
        return f"s3://{self.bucket}/{self.key}"


def split_location(location: str) -> tuple[str, str]:
    """Return bucket and key (or prefix) of an ``s3://`` URL.

    Raises:
        QueryFailedError: it is not one.
    """
    match = _LOCATION.fullmatch(location)
    if match is None:
        raise QueryFailedError("HIVE_METASTORE_ERROR", f"Location is not an S3 URL: {location!r}")
    return match[1], match[2]


def is_hidden(relative_key: str) -> bool:
    """Return whether Athena passes over the object: a name of its path starts with ``_`` or ``.``.

    https://docs.aws.amazon.com/athena/latest/ug/other-notable-limitations.html
    """
    return any(part.startswith(("_", ".")) for part in relative_key.split("/"))


class ObjectStore:
    """The objects, for one query: listings are remembered, and objects that are not on disk are put there."""

    def __init__(self, caller: Caller, scratch_directory: Path) -> None:
        from ministack.services import s3

        self._caller = caller
        self._keys = CustomerKeys()
        self._scratch_directory = scratch_directory
        self._buckets = seams.require(s3, "_buckets")
        self._disk_path = seams.require(s3, "_object_disk_path")
        self._data = seams.require(s3, "_get_object_data")
        self._sorted_keys: dict[str, list[str]] = {}

    def objects_under(self, location: str) -> list[StoredObject]:
        """Return the readable objects under a table's or partition's location, in the order of their keys.

        Raises:
            QueryFailedError: the bucket does not exist, or the caller may not list it.
        """
        bucket, prefix = split_location(location)
        if prefix and not prefix.endswith("/"):
            prefix += "/"
        denial = self._caller.denial("s3:ListBucket", f"arn:aws:s3:::{bucket}", **{"s3:prefix": prefix})
        if denial:
            raise QueryFailedError("PERMISSION_DENIED", f"Permission denied on S3 path: s3://{bucket}/{prefix}")
        objects = self._objects(bucket)
        return [
            StoredObject(bucket, key, int(objects[key].get("size", 0)))
            for key in self._keys_under(bucket, prefix)
            if key in objects
            and not key.endswith("/")
            and not is_hidden(key[len(prefix) :])
            and objects[key].get("storage_class") not in _UNREADABLE_STORAGE_CLASSES
            and int(objects[key].get("size", 0)) > 0
        ]

    def open(self, stored: StoredObject) -> str:
        """Return the path of a file with the object's bytes.

        Raises:
            QueryFailedError: the caller may not read the object, or not use its key
                (https://docs.aws.amazon.com/athena/latest/ug/encryption.html).
        """
        denial = self._caller.denial("s3:GetObject", f"arn:aws:s3:::{stored.bucket}/{stored.key}")
        if not denial and (use := self._keys.read_of_object(stored.bucket, stored.key)) is not None:
            settings = self._caller.endpoint.settings
            keys = use.condition_keys(settings.region, settings.account_id)
            denial = self._caller.denial(use.action, use.key_arn, **keys)
        if denial:
            raise QueryFailedError("PERMISSION_DENIED", f"Permission denied on S3 path: {stored.path}")
        path = self._disk_path(stored.bucket, stored.key)
        if path is not None and Path(path).is_file():
            return str(path)
        data = self._data(stored.bucket, stored.key)
        if data is None:
            raise QueryFailedError("HIVE_CANNOT_OPEN_SPLIT", f"Error opening Hive split {stored.path}: Not Found")
        with tempfile.NamedTemporaryFile(dir=self._scratch_directory, delete=False) as file:
            file.write(data)
        return file.name

    def _objects(self, bucket: str) -> Mapping[str, Mapping[str, Any]]:
        known = self._buckets.get(bucket)
        if known is None:
            raise QueryFailedError(
                "HIVE_FILESYSTEM_ERROR", f"The specified bucket does not exist (Bucket: {bucket}; NoSuchBucket)"
            )
        objects: Mapping[str, Mapping[str, Any]] = known["objects"]
        return objects

    def _keys_under(self, bucket: str, prefix: str) -> list[str]:
        if bucket not in self._sorted_keys:
            self._sorted_keys[bucket] = sorted(self._objects(bucket).keys())
        keys = self._sorted_keys[bucket]
        start = bisect.bisect_left(keys, prefix)
        end = bisect.bisect_left(keys, prefix + "\U0010ffff")
        return keys[start:end]
