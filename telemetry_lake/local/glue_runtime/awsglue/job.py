"""``awsglue.job``: begin and end of a run, as far as bookmarks go.

https://docs.aws.amazon.com/glue/latest/dg/monitor-continuations.html
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from .bookmark import Bookmark
from .context import GlueContext

BOOKMARK_FILE_VARIABLE = "GLUE_BOOKMARK_FILE"
WINDOW_VARIABLES = ("GLUE_BOOKMARK_FROM_FILE", "GLUE_BOOKMARK_TO_FILE")


class Job:
    """One run of a job; as in AWS's library, its state belongs to the class."""

    _bookmark: ClassVar[Bookmark | None] = None

    def __init__(self, glue_context: GlueContext) -> None:
        self._glue_context = glue_context

    def init(self, job_name: str, args: Mapping[str, Any] = {}) -> None:
        """Begin the run: from now on, sources with a ``transformation_ctx`` go by the committed bookmark.

        Args:
            job_name: the job's name.
            args: what ``getResolvedOptions`` returned; its ``job_bookmark_option`` decides.

        Raises:
            RuntimeError: bookmarks are on and ``GLUE_BOOKMARK_FILE`` does not say where they are.
        """
        option = args.get("job_bookmark_option") or "job-bookmark-disable"
        file = os.environ.get(BOOKMARK_FILE_VARIABLE)
        if file is None:
            if option != "job-bookmark-disable":
                raise RuntimeError(f"{BOOKMARK_FILE_VARIABLE} must name the job's bookmark file")
            file = os.devnull
        start, end = (os.environ.get(name) for name in WINDOW_VARIABLES)
        window = None
        if option == "job-bookmark-pause" and start is not None and end is not None:
            window = (Path(start), Path(end))
        Job._bookmark = Bookmark(option, Path(file), window)
        self._glue_context.bookmark = Job._bookmark

    def isInitialized(self) -> bool:  # noqa: N802  AWS's name
        """Tell whether ``init`` was called."""
        return Job._bookmark is not None

    def commit(self) -> None:
        """End the run: what it read counts as read.

        Raises:
            RuntimeError: ``init`` was not called.
        """
        if Job._bookmark is None:
            raise RuntimeError("Job.commit() before Job.init()")
        Job._bookmark.commit()
