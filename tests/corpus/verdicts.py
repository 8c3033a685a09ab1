"""Judge the whole corpus and print how often each verdict was given: ``python -m tests.corpus.verdicts``."""

import sys
from collections import Counter
from collections.abc import Mapping

from tests.corpus.cases import cases
from tests.corpus.checking import ACCEPTED, check

Counted = tuple[int, Counter[str]]


def count() -> dict[str, Counted]:
    """Judge every case and return, by family, the number of records and the verdicts on their elements.

    Raises:
        AssertionError: a case breaks a rule of `tests.corpus.checking`; the message names it.
    """
    counted: dict[str, Counted] = {}
    for case in cases():
        records, verdicts = counted.get(case.family, (0, Counter()))
        try:
            counted[case.family] = (records + 1, verdicts + check(case.record))
        except Exception as error:
            raise AssertionError(f"{case.name}: {type(error).__name__}: {error}") from error
    return counted


def print_counts(counted: Mapping[str, Counted]) -> None:
    """Print a table: a row for each verdict, a column for each family."""
    total = sum((verdicts for _, verdicts in counted.values()), Counter[str]())
    names = sorted(total, key=lambda name: (name != ACCEPTED, -total[name]))
    rows = [("records", *(records for records, _ in counted.values()), sum(records for records, _ in counted.values()))]
    rows += [(name, *(verdicts[name] for _, verdicts in counted.values()), total[name]) for name in names]
    rows.append(("verdicts", *(verdicts.total() for _, verdicts in counted.values()), total.total()))
    titles = ("", *counted, "all")
    texts = [titles, *((str(row[0]), *(f"{number:,}" for number in row[1:])) for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(titles))]
    for row in texts:
        print(
            "  ".join(
                [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
            )
        )


if __name__ == "__main__":
    print_counts(count())
    sys.exit(0)
