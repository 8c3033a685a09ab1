"""What the commands show while they work: progress on standard error, results on standard output.

On a terminal a step has a spinner or a bar; anywhere else (a pipe, a log of a build server) it has plain lines.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table

PLAIN_REPORT_SECONDS = 10.0


class OperatorError(click.ClickException):
    """An expected failure: its message says what happened and what to do next. The exit code is 1."""

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(f"{message}\n{next_step}" if next_step else message)
        self.happened = message
        self.next_step = next_step


@dataclass
class Step:
    """One thing that takes time; its owner tells how far it is."""

    description: str
    total: float | None = None
    completed: float = 0
    note: str = ""
    started: float = field(default_factory=time.monotonic)

    def advance(self, amount: float = 1) -> None:
        """Add ``amount`` to what is done."""
        self.update(completed=self.completed + amount)

    def update(self, completed: float | None = None, total: float | None = None, note: str | None = None) -> None:
        """Set what is known: how much is done, out of how much, and a few words on what happens now."""
        if completed is not None:
            self.completed = completed
        if total is not None:
            self.total = total
        if note is not None:
            self.note = note
        self._changed()

    @property
    def seconds(self) -> float:
        """How long the step has taken so far."""
        return time.monotonic() - self.started

    def _changed(self) -> None:
        """Show the new state; a step that nobody looks at shows nothing."""


class _TerminalStep(Step):
    progress: Progress
    task: TaskID

    def _changed(self) -> None:
        self.progress.update(self.task, completed=self.completed, total=self.total, note=escape(_first_line(self.note)))


class _PlainStep(Step):
    reporter: "Reporter"
    last_report: float = 0

    def _changed(self) -> None:
        has_news = self.note or self.total is not None
        if has_news and time.monotonic() - max(self.last_report, self.started) >= PLAIN_REPORT_SECONDS:
            self.last_report = time.monotonic()
            share = "" if self.total is None else f"{self.completed:,.0f} of {self.total:,.0f} "
            self.reporter.line(f"  {self.description}: {share}{_first_line(self.note)}".rstrip())


class _KnownShareColumn(BarColumn):
    """A bar where the whole is known; elsewhere the spinner is enough."""

    def render(self, task: Task) -> ProgressBar:
        bar = super().render(task)
        if task.total is None:
            bar.width = 0
        return bar


class Reporter:
    """Shows steps, lines and tables; one for each run of a command."""

    def __init__(self, quiet: bool = False) -> None:
        """Write progress to standard error, unless ``quiet``."""
        self.quiet = quiet
        self._progress = Console(stderr=True, highlight=False, soft_wrap=True)
        self._results = Console(highlight=False, soft_wrap=True)

    def line(self, text: str = "", style: str = "") -> None:
        """Show one line of progress or advice."""
        if not self.quiet:
            self._progress.print(escape(text), style=style or None)

    def heading(self, text: str) -> None:
        """Show the title of a part."""
        self.line()
        self.line(text, style="bold")

    def fact(self, label: str, value: str) -> None:
        """Show one piece of evidence, labels in one column."""
        self.line(f"  {label:<22} {value}")

    def result(self, text: str) -> None:
        """Print the command's result to standard output, as it is."""
        click.echo(text)

    def json(self, value: Any) -> None:
        """Print ``value`` as JSON to standard output."""
        click.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows as a table to standard output: drawn on a terminal, separated by tabs elsewhere."""
        if not self._results.is_terminal:
            for row in (columns, *rows):
                click.echo("\t".join(row))
            return
        table = Table(*map(escape, columns))
        for row in rows:
            table.add_row(*map(escape, row))
        self._results.print(table)

    @contextmanager
    def step(self, description: str, total: float | None = None) -> Iterator[Step]:
        """Show ``description`` as being at work until the block ends, then how long it took, or that it failed."""
        if self.quiet:
            yield Step(description, total)
            return
        if self._progress.is_terminal:
            with self._terminal_step(description, total) as step:
                yield step
            return
        step = _PlainStep(description, total)
        step.reporter = self
        self.line(f"{description} ...")
        with self._closing(step):
            yield step

    @contextmanager
    def _terminal_step(self, description: str, total: float | None) -> Iterator[Step]:
        step = _TerminalStep(description, total)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            _KnownShareColumn(bar_width=20),
            TextColumn("{task.fields[note]}", style="dim"),
            TimeElapsedColumn(),
        )
        with self._closing(step), Progress(*columns, console=self._progress, transient=True) as progress:
            step.progress = progress
            step.task = progress.add_task(escape(description), total=total, note="")
            yield step

    @contextmanager
    def _closing(self, step: Step) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.line(f"{self._mark('✗', 'FAILED')} {step.description} ({step.seconds:.1f} s)", style="red")
            raise
        note = f": {_first_line(step.note)}" if step.note else ""
        self.line(f"{self._mark('✓', 'ok')} {step.description}{note} ({step.seconds:.1f} s)")

    def _mark(self, sign: str, word: str) -> str:
        return sign if self._progress.encoding.lower().startswith("utf") else word


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]


def size_text(size_bytes: float) -> str:
    """Return a number of bytes as people read it: ``812 B``, ``4.1 KB`` (of 1,000 bytes), ``3.2 MB``."""
    for unit in ("B", "KB", "MB", "GB"):
        if size_bytes < 1000:  # noqa: PLR2004  the step between the units
            return f"{size_bytes:,.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} TB"


def age_text(seconds: float) -> str:
    """Return a time span as people say it: ``40 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86_400:.1f} days"


def counts_text(counts: Mapping[str, int]) -> str:
    """Return counts by name, the largest first: ``wrong_type 3, missing_field 2``."""
    return ", ".join(
        f"{name} {number:,}" for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def is_interactive() -> bool:
    """Tell whether a person may be asked on this terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()
