"""The demo's small parts: what it measures, what it prints, and that what it starts is stopped again."""

import io
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from demo.__main__ import ENGINE_PORTS, MODELS_PORT, PROXY_PORT
from demo.comparing import Answer, Comparison, mean_gain, shop_search, stage_times
from demo.engine import free_ports
from demo.evaluate import unjudged
from demo.evaluation import Query, ndcg, read_queries
from demo.services import ServiceError, check_alive, environment, running
from demo.showing import example_search, movement, show, show_gain
from proxy.cli import build_parser
from proxy.config import Config

GRADES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3), max_size=8)
RANKING = st.permutations("abcdefgh")


def answer(ids: str, outcome: str = "reranked") -> Answer:
    hits = [
        {"_id": name, "_score": 9.0 - place, "_source": {"title": f"Product {name} of a long name", "price": 1999.0}}
        for place, name in enumerate(ids)
    ]
    return Answer(hits, outcome, {"lexical": 3.25, "rerank": 210.0})


def comparison(straight: str, through: str, outcome: str = "reranked") -> Comparison:
    return Comparison(Query("q", "red shoes", {"a": 3, "b": 0}), answer(straight, ""), answer(through, outcome))


def test_ndcg_is_what_the_formula_says() -> None:
    found = ndcg(["x", "a", "b"], {"a": 3, "b": 1, "c": 2})
    best = 7 + 3 / math.log2(3) + 1 / 2
    assert found == pytest.approx((7 / math.log2(3) + 1 / 2) / best)


def test_where_nothing_is_good_no_order_is() -> None:
    assert ndcg(["a"], {"a": 0}) == 0.0


@given(ranking=RANKING, grades=GRADES)
def test_ndcg_lies_between_0_and_1_and_the_best_order_has_the_most(ranking: list[str], grades: dict[str, int]) -> None:
    best = sorted(ranking, key=lambda name: -grades.get(name, 0))
    assert 0 <= ndcg(ranking, grades) <= ndcg(best, grades) <= 1 + 1e-9


def test_only_the_first_ten_count() -> None:
    assert ndcg(["x"] * 10 + ["a"], {"a": 3}) == 0.0


def test_queries_are_read_from_tab_separated_columns_as_from_ndjson(tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text("q1\tred shoes\n")
    (tmp_path / "j.tsv").write_text("q1\ta\t3\n")
    (tmp_path / "q.ndjson").write_text('{"id": "q1", "text": "red shoes"}\n')
    (tmp_path / "j.ndjson").write_text('{"query": "q1", "product": "a", "grade": 3}\n')
    expected = (Query("q1", "red shoes", {"a": 3}),)
    assert read_queries(tmp_path / "q.tsv", tmp_path / "j.tsv") == expected
    assert read_queries(tmp_path / "q.ndjson", tmp_path / "j.ndjson") == expected


def test_stage_times_are_read_from_the_header() -> None:
    assert stage_times("lexical;dur=3.2, rerank;dur=210.0") == {"lexical": 3.2, "rerank": 210.0}
    assert stage_times("") == {}


def test_the_gain_is_the_mean_of_both_ways() -> None:
    assert mean_gain([comparison("ba", "ab"), comparison("ab", "ab")]) == pytest.approx(
        ((1 / math.log2(3) + 1) / 2, 1.0)
    )


def test_what_nobody_judged_can_be_left_out_and_is_counted() -> None:
    both = comparison("xa", "xyab")
    assert (both.judged_only.straight.ids, both.judged_only.through.ids) == (["a"], ["a", "b"])
    assert unjudged([both]) == (0.5, 0.5)


def test_a_shops_search_names_its_fields_and_shows_no_vectors() -> None:
    assert shop_search("red shoes", ("title^2", "text"), 5) == {
        "query": {"multi_match": {"query": "red shoes", "type": "most_fields", "fields": ["title^2", "text"]}},
        "size": 5,
        "_source": {"excludes": ["embedding*"]},
    }


@pytest.mark.parametrize(("places", "spelt"), [(None, "new"), (0, "="), (3, "▲3"), (-12, "▼12")])
def test_a_movement_is_spelt(places: int | None, spelt: str) -> None:
    assert movement(places).plain == spelt


def printed(width: int, print_it: Callable[[Console], None]) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_it(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_both_orders_stand_side_by_side_in_the_terminals_width(width: int) -> None:
    said = printed(width, lambda console: show(console, comparison("abc", "cad")))
    assert max(map(len, said)) <= width
    (first,) = [line for line in said if line.startswith("1 ")]
    assert [word in first for word in ("Product a", "Product c", "▲2", "1,999", "9.00")] == [True] * 5
    assert any(line.startswith("X-Rerank: reranked    nDCG@10 1.000 → 0.631") for line in said)
    assert "ms: lexical 3, rerank 210" in said


def test_a_page_shorter_than_the_other_leaves_its_rows_empty() -> None:
    said = printed(80, lambda console: show(console, comparison("", "a", "degraded;stages=semantic")))
    assert any("new" in line and "Product a" in line for line in said)


def test_the_gain_says_how_many_searches_are_better_and_worse() -> None:
    said = printed(120, lambda console: show_gain(console, [comparison("ba", "ab"), comparison("ab", "ba")]))
    assert said[-2:] == [
        "nDCG@10 over 2 searches: straight 0.815, through the proxy 0.815",
        "better: 1, worse: 1",
    ]


def test_a_command_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    arguments = ("serve", "-c", str(tmp_path / "missing.yaml"))
    with pytest.raises(ServiceError) as failed, running("rerank-proxy serve", arguments, 1, "/", log):
        pytest.fail("it does not run")
    assert str(failed.value).startswith(f"rerank-proxy serve ended with code 1. The end of {log}:\n  rerank-proxy: ")
    assert "missing.yaml" in str(failed.value)
    assert "run `make demo` again" in str(failed.value)


@pytest.mark.local_models
def test_a_command_runs_until_it_is_left_and_not_longer(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    arguments = ("models", "--listen", f"127.0.0.1:{port}")
    with running("rerank-proxy models", arguments, port, "/health", tmp_path / "models.log") as service:
        check_alive(service)
    assert service.process.returncode == 0
    with pytest.raises(ServiceError, match="rerank-proxy models ended with code 0"):
        check_alive(service)


def test_the_demo_takes_the_default_ports() -> None:
    """So that what the documentation shows works while it runs."""
    assert Config().listen.port == PROXY_PORT
    assert f"http://127.0.0.1:{ENGINE_PORTS[0]}" == Config().engine.url
    assert build_parser().parse_args(["models"]).listen == f"127.0.0.1:{MODELS_PORT}"


def test_commands_know_nothing_of_the_users_own_settings_and_token() -> None:
    assert not [name for name in environment() if name.startswith(("RERANK_PROXY_", "DEEPINFRA_"))]
    assert environment()["PATH"] == os.environ["PATH"]


def test_the_search_that_is_shown_at_the_end_is_the_one_in_the_readme() -> None:
    shown = example_search(f"http://127.0.0.1:{PROXY_PORT}")
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert f"```sh\n{shown}\n```" in readme


LEAVES = """
import signal, sys
from demo.__main__ import stopped_by_signals
from demo.engine import Stopped
try:
    with stopped_by_signals():
        print("running", flush=True)
        signal.pause()
except Stopped:
    print("stopping", flush=True)
    sys.stdin.read()
    print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_ends_it_and_a_second_one_does_not_break_the_tidying_up(number: signal.Signals) -> None:
    with subprocess.Popen(  # noqa: S603  our own
        [sys.executable, "-c", LEAVES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(number)
        said, _ = process.communicate()
    assert (said, process.returncode) == ("stopped\n", 0)
