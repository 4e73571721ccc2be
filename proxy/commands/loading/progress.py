"""Progress of a long task: a bar with rate and remaining time on a terminal, otherwise a line every few seconds."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_LINE_EVERY_S = 5.0


def documents(count: int) -> str:
    return f"{count:,} document{'' if count == 1 else 's'}"


class ShownProgress:
    """The progress of one task: `done` of `total` units; the number of documents is shown."""

    def __init__(
        self,
        title: str,
        total: int | None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        counted: Callable[[int], str] = documents,
    ) -> None:
        self._counted = counted
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._begun = self._said = clock()
        self._title = title
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, said="")
        self._total = total

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def of(self, total: int) -> None:
        """Set the total, once it is known."""
        self._total = total
        self._bar.update(self._task, total=total)

    def show(self, done: int, count: int) -> None:
        """Update the progress."""
        now = self._clock()
        seconds = now - self._begun
        said = self._counted(count) + (f", {_rate(count / seconds)}/s" if count and seconds > 0 else "")
        self._bar.update(self._task, completed=done, said=said)
        if not self._console.is_terminal and now - self._said > _LINE_EVERY_S:
            self._said = now
            self._console.print(f"{self._title}: {said}{self._left(done, seconds)}", highlight=False)

    def say(self, line: str) -> None:
        """Write a line, above the bar if there is one."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _left(self, done: int, seconds: float) -> str:
        if not self._total or not done:
            return ""
        return f", {done / self._total:.0%}, {max(self._total - done, 0) * seconds / done:.0f} s left"


_ROUND_FROM = 10


def _rate(rate: float) -> str:
    """Format a rate; a slow one with two digits, so that it is not shown as 0."""
    return f"{rate:,.0f}" if rate >= _ROUND_FROM else f"{rate:.2g}"
