"""The stand-in for Glue's library: what its bookmarks remember and what its reader hands over."""

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Lake

BAND = 900_000


def listed(*pairs: tuple[str, int]) -> list[Any]:
    from awsglue.bookmark import SourceObject

    return [SourceObject("raw", key, modified, 1) for key, modified in pairs]


def advance(state: Any, objects: list[Any], at: int, **options: Any) -> tuple[list[str], Any]:
    from awsglue.bookmark import advance as advance_bookmark

    selected, following = advance_bookmark(state, objects, at, **options)
    return sorted(one.key for one in selected), following


def empty_state() -> Any:
    from awsglue.bookmark import SourceState

    return SourceState()


def test_a_second_listing_selects_only_what_is_new() -> None:
    # GIVEN a source that was read at 2,000,000 ms
    first, state = advance(empty_state(), listed(("old", 1), ("recent", 1_999_000)), 2_000_000)

    # WHEN one more object is there, of the same millisecond as another
    second, _ = advance(state, listed(("old", 1), ("recent", 1_999_000), ("new", 1_999_000)), 2_060_000)

    # THEN it alone is selected
    assert first == ["old", "recent"]
    assert second == ["new"]


def test_an_object_that_comes_to_light_within_the_band_is_not_missed() -> None:
    # GIVEN a listing that did not yet show an object modified shortly before
    _, state = advance(empty_state(), listed(("seen", 1_999_000)), 2_000_000)

    # WHEN it shows up later, its modification within the band, and another one from before the band
    selected, _ = advance(
        state, listed(("seen", 1_999_000), ("late", 2_000_000 - BAND + 1), ("too late", 2_000_000 - BAND)), 2_100_000
    )

    # THEN the first is read and the second is not, as AWS documents
    assert selected == ["late"]


def test_an_object_that_was_modified_is_read_again() -> None:
    # GIVEN an object that was read
    _, state = advance(empty_state(), listed(("a", 1_999_000)), 2_000_000)

    # WHEN it has been written again
    selected, state = advance(state, listed(("a", 2_001_000)), 2_002_000)

    # THEN it is read again, and then known
    assert selected == ["a"]
    assert advance(state, listed(("a", 2_001_000)), 2_003_000)[0] == []


def test_a_listing_in_the_past_does_not_move_a_bookmark_back() -> None:
    # GIVEN a bookmark, and a clock that was set back by an hour
    _, state = advance(empty_state(), listed(("a", 9_000_000)), 10_000_000)

    # WHEN the source is listed
    selected, following = advance(state, listed(("a", 9_000_000)), 6_400_000)

    # THEN nothing is read again
    assert selected == []
    assert following.covered_until == state.covered_until


def test_more_files_than_the_band_may_hold_wait_for_the_next_run() -> None:
    # GIVEN five recent objects and an old one, and room for two in the band
    objects = listed(("old", 5), *((f"n{number}", 1_999_000 + number) for number in range(5)))

    # WHEN the source is read again and again
    batches, state = [], empty_state()
    for round_number in range(4):
        selected, state = advance(state, objects, 2_000_000 + round_number * BAND, max_files_in_band=2)
        batches.append(selected)

    # THEN nothing is lost, and no object is read twice
    assert batches[0] == ["n0", "n1", "old"]
    assert sorted(key for batch in batches for key in batch) == ["n0", "n1", "n2", "n3", "n4", "old"]


Read = Callable[..., list[list[str | None]]]


@pytest.fixture
def read(lake: Lake, spark: Any, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Read the raw bucket in a run of its own, and commit; returns the rows."""
    from awsglue.context import GlueContext
    from awsglue.job import Job

    monkeypatch.setenv("GLUE_BOOKMARK_FILE", str(lake.bookmark))

    def read_once(
        option: str = "job-bookmark-enable", context: str = "source", commit: bool = True, recurse: bool = True
    ) -> list[list[str | None]]:
        glue_context = GlueContext(spark.sparkContext)
        job = Job(glue_context)
        job.init("job", {"job_bookmark_option": option})
        frame = glue_context.create_dynamic_frame.from_options(
            "s3",
            {"paths": [f"s3://{lake.raw}/in/"], "recurse": recurse},
            "csv",
            {"separator": "\u0001", "quoteChar": -1, "withHeader": False},
            context,
        )
        rows = frame.toDF().collect()
        if commit:
            job.commit()
        return sorted((list(row) for row in rows), key=repr)

    return read_once


def test_lines_arrive_as_text_whatever_they_hold(lake: Lake, read: Read) -> None:
    # GIVEN a gzip object with everything that a CSV reader may stumble over
    lines = [
        b'"quoted, text"',
        b"back\\slash",
        b"# comment",
        b"  blanks  ",
        b"\xe6\xb8\xa9",
        b"a\x01b\x01",
        b"",
        b"tail",
    ]
    lake.put("in/a.gz", gzip.compress(b"\r\n".join(lines)))

    # WHEN it is read
    rows = read()

    # THEN lines are whole, except where the separator is
    whole = ['"quoted, text"', "back\\slash", "# comment", "  blanks  ", "温", "", "tail"]
    assert rows == sorted([*([text, None, None] for text in whole), ["a", "b", ""]], key=repr)


def test_keys_with_odd_characters_are_read(lake: Lake, read: Read) -> None:
    # GIVEN objects whose names mean something to shells, URLs and Hadoop
    names = [
        "blank name",
        "per%20cent",
        "a+b",
        "co:lon",
        "star*",
        "quest?ion",
        "curly{a,b}",
        "square[1]",
        "back\\slash",
    ]
    names += ["équal=温", "hash#x", "amp&x", "tilde~", "quote'x", "comma,x"]
    for name in names:
        lake.put(f"in/{name}/{name}.gz", gzip.compress(name.encode()))

    # WHEN the source is read
    # THEN each has been read once
    assert read() == sorted(([name] for name in names), key=repr)


def test_hidden_and_empty_objects_are_passed_over(lake: Lake, read: Read) -> None:
    # GIVEN objects that Spark would not read either
    for key in ("in/_SUCCESS", "in/_temporary/part", "in/.hidden", "in/x/.part.crc"):
        lake.put(key, b"hidden")
    lake.put("in/folder/", b"")
    lake.put("in/below/seen", b"seen")

    # WHEN the source is read, with and without the folders below
    # THEN only the visible object is read
    assert read(context="") == [["seen"]]
    assert read(context="", recurse=False) == []


def test_a_frame_of_no_objects_has_no_columns(lake: Lake, spark: Any) -> None:
    # GIVEN an empty source
    from awsglue.context import GlueContext

    options = {"separator": "\u0001", "quoteChar": -1, "withHeader": False}
    source = {"paths": [f"s3://{lake.raw}/in/"], "recurse": True}

    # WHEN it becomes a data frame
    frame = GlueContext(spark.sparkContext).create_dynamic_frame.from_options("s3", source, "csv", options).toDF()

    # THEN that has neither rows nor columns
    assert frame.columns == []
    assert frame.count() == 0


@pytest.mark.parametrize(("key", "pack"), [("a", bytes), ("a.gz", gzip.compress), ("a.bz2", bz2.compress)])
def test_lines_are_cut_at_separators_however_they_are_packed(
    lake: Lake, read: Read, key: str, pack: Callable[[bytes], bytes]
) -> None:
    # GIVEN an object with one separator, far behind its beginning, beside one without
    packed = pack(b"x\n" * 600_000 + b"before\x01right")
    assert not key.endswith(".bz2") or b"\x01" not in packed, "it would be found unpacked, too"
    lake.put("in/plain", b"whole")
    lake.put(f"in/{key}", packed)

    # WHEN the source is read
    rows = read()

    # THEN all rows are as wide as the widest line
    assert rows.count(["x", None]) == 600_000
    assert sorted(map(str, rows))[:2] == ["['before', 'right']", "['whole', None]"]


def test_an_object_that_is_cut_off_is_named(lake: Lake, read: Read) -> None:
    # GIVEN a gzip stream without its end, beside a whole one
    lake.put("in/whole.gz", gzip.compress(b"whole"))
    lake.put("in/cut.gz", gzip.compress(b"x" * 1000 + bytes(range(256)))[:-20])

    # WHEN the source is read
    # THEN the run fails, and says which object it was
    with pytest.raises(RuntimeError, match=rf"Unable to parse file: s3://{lake.raw}/in/cut\.gz"):
        read()


def test_only_a_commit_moves_the_bookmark(lake: Lake, read: Read) -> None:
    # GIVEN an object, read by a run that ends without a commit
    lake.put("in/a", b"a")
    assert read(commit=False) == [["a"]]
    assert not lake.bookmark.exists()

    # WHEN later runs commit
    # THEN it is read once more, and then no more
    assert read() == [["a"]]
    assert read() == []
    lake.put("in/b", b"b")
    assert read() == [["b"]]
    assert [file.name for file in lake.bookmark.parent.iterdir()] == [lake.bookmark.name]


def test_the_bookmark_option_decides_what_is_read_and_remembered(lake: Lake, read: Read) -> None:
    # GIVEN a source of which one object is behind the bookmark and one is not
    lake.put("in/a", b"a")
    read()
    lake.put("in/b", b"b")
    before = lake.bookmark.read_text()

    # WHEN it is read with the bookmark paused, disabled, and by a source without a name
    # THEN paused reads what is new, the others read all, and none of them remembers
    assert read("job-bookmark-pause") == [["b"]]
    assert read("job-bookmark-disable") == [["a"], ["b"]]
    assert read(context="") == [["a"], ["b"]]
    assert json.loads(lake.bookmark.read_text()) == json.loads(before)


def test_a_paused_bookmark_reads_what_lies_between_two_runs(
    lake: Lake, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As https://docs.aws.amazon.com/glue/latest/dg/monitor-continuations.html says of job-bookmark-from and -to."""
    # GIVEN three runs, and the bookmark as the first two left it
    for name in ("a", "b", "c"):
        lake.put(f"in/{name}", name.encode())
        assert read() == [[name]]
        kept = lake.bookmark.with_name(f"after-{name}")
        kept.write_bytes(lake.bookmark.read_bytes())
    lake.put("in/d", b"d")
    monkeypatch.setenv("GLUE_BOOKMARK_FROM_FILE", str(lake.bookmark.with_name("after-a")))
    monkeypatch.setenv("GLUE_BOOKMARK_TO_FILE", str(lake.bookmark.with_name("after-c")))

    # WHEN / THEN it is read with the bookmark paused, again and again
    assert read("job-bookmark-pause") == [["b"], ["c"]]
    assert read("job-bookmark-pause") == [["b"], ["c"]]

    # AND with the bookmark enabled nothing of this counts
    assert read() == [["d"]]


def test_an_option_that_is_not_modelled_is_refused(spark: Any) -> None:
    # GIVEN the reader
    from awsglue.context import GlueContext

    reader = GlueContext(spark.sparkContext).create_dynamic_frame

    # WHEN something is asked of it that only AWS can do
    # THEN it says so, instead of reading something else
    for source, options in (
        ({"paths": ["s3://x/"], "boundedFiles": "1"}, {"quoteChar": -1}),
        ({"paths": ["s3://x/"]}, {"quoteChar": -1, "multiLine": True}),
        ({"paths": ["s3://x/"]}, {}),
    ):
        with pytest.raises(NotImplementedError):
            reader.from_options("s3", source, "csv", options)
    with pytest.raises(NotImplementedError):
        reader.from_options("s3", {"paths": ["s3://x/"]}, "json", {})


def test_arguments_are_required_and_some_names_are_reserved(tmp_path: Path) -> None:
    # GIVEN a command line
    from awsglue.utils import GlueArgumentError, getResolvedOptions

    argv = [str(tmp_path / "script"), "--JOB_NAME", "job", "--DAYS=[]", "--OTHER", "x", "--JOB_RUN_ID", "jr_1"]

    # WHEN names are asked for
    # THEN given ones have their values; missing, abbreviated and reserved ones are errors
    assert getResolvedOptions(argv, ["JOB_NAME", "DAYS"]) == {
        "JOB_NAME": "job",
        "DAYS": "[]",
        "job_bookmark_option": "job-bookmark-disable",
    }
    for missing in ("MISSING", "OTH"):
        with pytest.raises(GlueArgumentError):
            getResolvedOptions(argv, [missing])
    for reserved in ("JOB_RUN_ID", "job_bookmark_option", "SECURITY_CONFIGURATION"):
        with pytest.raises(RuntimeError):
            getResolvedOptions(argv, [reserved])
    with pytest.raises(GlueArgumentError):
        getResolvedOptions([*argv, "--job-bookmark-option", "on"], ["JOB_NAME"])
