"""How far a load is, is shown as a bar on a terminal and as a line now and then elsewhere."""

import io
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from proxy.commands.loading.progress import ShownProgress


def clock(*times: float) -> Callable[[], float]:
    """Return a clock that says these times, and then stands."""
    said: Iterator[float] = iter(times)
    last = [0.0]

    def now() -> float:
        last[0] = next(said, last[0])
        return last[0]

    return now


def lines(shown: Callable[[Console], ShownProgress], *steps: tuple[int, int]) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    with shown(console) as progress:
        for done, count in steps:
            progress.show(done, count)
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue().splitlines()


def test_a_line_has_count_rate_share_and_remaining_time() -> None:
    times = clock(0, 10)
    assert lines(lambda console: ShownProgress("products", 400, console, times), (100, 2000)) == [
        "products: 2,000 documents, 200/s, 25%, 30 s left"
    ]


def test_without_a_total_no_remaining_time_is_shown() -> None:
    times = clock(0, 10)
    assert lines(lambda console: ShownProgress("p", None, console, times), (100, 20)) == ["p: 20 documents, 2/s"]


def test_lines_are_printed_at_intervals() -> None:
    times = clock(0, 1, 4, 6, 7, 12)
    said = lines(lambda console: ShownProgress("p", None, console, times), (1, 1), (2, 2), (3, 12), (4, 4), (5, 24))
    assert said == ["p: 12 documents, 2/s", "p: 24 documents, 2/s"]


@pytest.mark.parametrize(
    ("count", "seconds", "said"),
    [
        (0, 10, "p: 0 documents"),
        (1, 10, "p: 1 document, 0.1/s"),
        (1, 6, "p: 1 document, 0.17/s"),
        (64, 10, "p: 64 documents, 6.4/s"),
        (99, 10, "p: 99 documents, 9.9/s"),
        (105, 10, "p: 105 documents, 10/s"),
        (1_234_567, 10, "p: 1,234,567 documents, 123,457/s"),
    ],
)
def test_rates_are_rounded_by_size(count: int, seconds: int, said: str) -> None:
    assert lines(lambda console: ShownProgress("p", None, console, clock(0, seconds)), (1, count)) == [said]


def test_on_a_terminal_there_is_a_progress_bar() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with ShownProgress("products", 400, console, clock(0, 10)) as shown:
        shown.show(100, 2000)
        shown.say("line 3: [no] JSON")
    assert isinstance(console.file, io.StringIO)
    output = console.file.getvalue()
    assert "2,000 documents, 200/s" in output
    assert "25%" in output
    assert "line 3: [no] JSON\n" in output


def test_messages_are_shortened_to_one_line() -> None:
    console = Console(file=io.StringIO(), width=20)
    with ShownProgress("p", None, console) as shown:
        shown.say("x" * 100)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "x" * 100 + "\n"
