"""The demo's small parts: what it measures, what it prints, and that what it starts is stopped again."""

import io
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from demo import shop
from demo.__main__ import ENGINE_PORTS, MODELS_PORT, PROXY_PORT
from demo.comparing import Answer, Comparison, mean_gain, shop_search, stage_times
from demo.engine import free_ports
from demo.evaluate import Judged, NoCollections, collections, settings, table
from demo.services import ServiceError, check_alive, environment, running
from demo.showing import example_search, movement, show, show_gain
from proxy.cli import build_parser
from proxy.commands.evaluation.collection import Query
from proxy.commands.evaluation.template import read_template
from proxy.settings.config import Config
from proxy.settings.config_file import read


def answer(ids: str, outcome: str = "reranked") -> Answer:
    hits = [
        {"_id": name, "_score": 9.0 - place, "_source": {"title": f"Product {name} of a long name", "price": 1999.0}}
        for place, name in enumerate(ids)
    ]
    return Answer(hits, outcome, {"lexical": 3.25, "rerank": 210.0})


def comparison(straight: str, through: str, outcome: str = "reranked") -> Comparison:
    return Comparison(Query("q", "red shoes", {"a": 3, "b": 0}), answer(straight, ""), answer(through, outcome))


def test_stage_times_are_read_from_the_header() -> None:
    assert stage_times("lexical;dur=3.2, rerank;dur=210.0") == {"lexical": 3.2, "rerank": 210.0}
    assert stage_times("") == {}


def test_the_gain_compares_the_means_of_both_orders() -> None:
    assert mean_gain([comparison("ba", "ab"), comparison("ab", "ab")]) == pytest.approx(
        ((1 / math.log2(3) + 1) / 2, 1.0)
    )


def test_the_demo_search_names_its_fields_and_hides_vectors() -> None:
    assert shop_search("red shoes", ("title^2", "text"), 5) == {
        "query": {"multi_match": {"query": "red shoes", "type": "most_fields", "fields": ["title^2", "text"]}},
        "size": 5,
        "_source": {"excludes": ["embedding*"]},
    }


def test_the_template_of_the_catalogue_is_the_demo_search() -> None:
    template = read_template(shop.PRODUCTS.with_name("search.json").read_bytes(), "search.json")
    assert shop_search("red shoes", shop.FIELDS, 100) == json.loads(template.fill("red shoes"))


@pytest.mark.parametrize(("places", "spelt"), [(None, "new"), (0, "="), (3, "▲3"), (-12, "▼12")])
def test_a_change_of_rank_is_formatted(places: int | None, spelt: str) -> None:
    assert movement(places).plain == spelt


def printed(width: int, print_it: Callable[[Console], None]) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_it(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_both_orders_are_printed_side_by_side_within_the_width(width: int) -> None:
    said = printed(width, lambda console: show(console, comparison("abc", "cad")))
    assert max(map(len, said)) <= width
    (first,) = [line for line in said if line.startswith("1 ")]
    assert [word in first for word in ("Product a", "Product c", "▲2", "1,999", "9.00")] == [True] * 5
    assert any(line.startswith("X-Rerank: reranked    nDCG@10 1.000 → 0.631") for line in said)
    assert "ms: lexical 3, rerank 210" in said


def test_a_page_shorter_than_the_other_leaves_its_rows_empty() -> None:
    said = printed(80, lambda console: show(console, comparison("", "a", "degraded;stages=semantic")))
    assert any("new" in line and "Product a" in line for line in said)


def test_the_summary_counts_better_and_worse_queries() -> None:
    said = printed(120, lambda console: show_gain(console, [comparison("ba", "ab"), comparison("ab", "ba")]))
    assert said[-2:] == [
        "nDCG@10 over 2 searches: straight 0.815, through the proxy 0.815",
        "better: 1, worse: 1",
    ]


def test_a_failed_command_is_reported_with_its_last_output(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    arguments = ("serve", "-c", str(tmp_path / "missing.yaml"))
    with pytest.raises(ServiceError) as failed, running("rerank-proxy serve", arguments, 1, "/", log):
        pytest.fail("it does not run")
    assert str(failed.value).startswith(f"rerank-proxy serve ended with code 1. The end of {log}:\n  rerank-proxy: ")
    assert "missing.yaml" in str(failed.value)
    assert "run `make demo` again" in str(failed.value)


@pytest.mark.local_models
def test_a_command_is_stopped_on_leaving_its_context(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    arguments = ("models", "--listen", f"127.0.0.1:{port}")
    with running("rerank-proxy models", arguments, port, "/health", tmp_path / "models.log") as service:
        check_alive(service)
    assert service.process.returncode == 0
    with pytest.raises(ServiceError, match="rerank-proxy models ended with code 0"):
        check_alive(service)


def test_the_demo_takes_the_default_ports() -> None:
    """So that the commands in the documentation work while it runs."""
    assert Config().listen.port == PROXY_PORT
    assert f"http://127.0.0.1:{ENGINE_PORTS[0]}" == Config().engine.url
    assert build_parser().parse_args(["models"]).listen == f"127.0.0.1:{MODELS_PORT}"


def test_commands_do_not_inherit_the_users_settings_and_token() -> None:
    assert not [name for name in environment() if name.startswith(("RERANK_PROXY_", "DEEPINFRA_"))]
    assert environment()["PATH"] == os.environ["PATH"]


def test_the_example_search_is_the_one_in_the_readme() -> None:
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
def test_a_second_signal_does_not_interrupt_the_cleanup(number: signal.Signals) -> None:
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


def collection(data: Path, name: str, *without: str) -> None:
    folder = data / name
    folder.mkdir()
    for file in {"documents.ndjson.gz", "queries.tsv", "qrels.tsv"} - {*without}:
        (folder / file).write_text("")


def test_the_collections_of_a_folder_are_found(tmp_path: Path) -> None:
    collection(tmp_path, "Films")
    collection(tmp_path, "cars")
    collection(tmp_path, "half", "qrels.tsv")
    (tmp_path / "README.md").write_text("")
    assert [("Films", "judged-films"), ("cars", "judged-cars")] == [
        (each.name, each.index) for each in collections(tmp_path)
    ]
    (cars,) = collections(tmp_path, ["cars"])
    assert tmp_path / "cars/documents.ndjson.gz" == cars.documents


@pytest.mark.parametrize("only", [(), ("boats",)])
def test_without_collections_the_expected_files_are_named(tmp_path: Path, only: tuple[str, ...]) -> None:
    if only:
        collection(tmp_path, "cars")
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(
            NoCollections, match=r"queries.tsv, qrels.tsv and one \*.ndjson.gz; .*make eval DATA=FOLDER"
        ):
            collections(folder, only)


def test_each_collection_has_a_route_with_the_defaults() -> None:
    judged = Judged("films", *[Path()] * 3)
    (route,) = read(msgspec.yaml.encode(settings([judged])).decode(), "config.yaml", {}).routes
    assert ("judged-films", ["title", "text"], None) == (route.index, route.passage, route.rank_window_size)


def test_the_table_of_collections() -> None:
    row = {"measure": "nDCG@10", "baseline": 0.5, "proxy": 0.541, "gain_points": 4.1, "interval_points": [1.6, 6.5]}
    found = {
        "compared": 261,
        "measures": [{**row, "judged_only": False}, {**row, "judged_only": True, "gain_points": -0.2}],
        "baseline": {"unjudged": 0.1},
        "proxy": {"unjudged": 0.25},
    }
    said = [" ".join(line.split()) for line in printed(100, lambda to: to.print(table([("films", found)])))]
    assert "films 261 0.500 → 0.541 +4.1 [+1.6, +6.5] -0.2 [+1.6, +6.5] 10% → 25%" in said
