"""`make eval`: what the proxy gains on judged collections, with a real Elasticsearch and the local models.

A collection is a folder of documents (`*.ndjson.gz`: id, title, text), `queries.tsv` (id, text) and `qrels.tsv` (query,
document, grade). Their vectors are kept, so that a second run begins with the searches.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from demo import engine, services
from demo.__main__ import begun, run_models, run_proxy, stopped_by_signals
from demo.asking import NoAnswer, ask
from demo.engine_files import cache_folder
from demo.engines import EngineError
from demo.services import ServiceError, command, environment

_INTERRUPTED = 130
_WIDTH = 100
"""Of the table, also where it goes into a file."""
_PREFIX = "judged-"
FIELDS = ("title^2", "text")
TEMPLATE = {"query": {"multi_match": {"query": "{{query}}", "type": "most_fields", "fields": list(FIELDS)}}}
_MAPPINGS = {
    "dynamic": False,
    "properties": {name: {"type": "text", "analyzer": "english"} for name in ("title", "text")},
}
_PATIENCE = {"embed_timeout_seconds": 10, "rerank_timeout_seconds": 30}
"""The local models share this machine's cores with everything else."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A collection's files, and the index it is loaded into."""

    name: str
    documents: Path
    queries: Path
    judgments: Path

    @property
    def index(self) -> str:
        return f"{_PREFIX}{self.name.lower()}"


class NoCollections(Exception):
    """Nothing can be measured there; the message says what is expected."""


def collections(data: Path, only: Sequence[str] = ()) -> tuple[Judged, ...]:
    """Find the collections of a folder, all or these; raises NoCollections."""
    folders = sorted(data.iterdir()) if data.is_dir() else []
    found = {folder.name: _collection(folder) for folder in folders if folder.is_dir()}
    named = tuple(each for each in found.values() if each and (not only or each.name in only))
    if not named or set(only) - {each.name for each in named}:
        raise NoCollections(
            f"{data}: {'no collection ' + ' '.join(only) if only else 'no collections there'}. Expected are folders of "
            "queries.tsv, qrels.tsv and one *.ndjson.gz; name where they are: make eval DATA=FOLDER"
        )
    return named


def _collection(folder: Path) -> Judged | None:
    documents = sorted(folder.glob("*.ndjson.gz"))
    queries, judgments = folder / "queries.tsv", folder / "qrels.tsv"
    if len(documents) != 1 or not queries.is_file() or not judgments.is_file():
        return None
    return Judged(folder.name, documents[0], queries, judgments)


def settings(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return the proxy's settings: defaults, and a route for each collection."""
    semantic = {"field": "embedding", "dimensions": 384, "timeout_seconds": 10}
    return {
        "engine": {"resolve_timeout_seconds": 10},
        "models": _PATIENCE,
        "routes": [
            {"index": each.index, "passage": ["title", "text"], "semantic": semantic, "budget_ms": 60_000}
            for each in judged
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.evaluate", description=__doc__)
    parser.add_argument("data", type=Path, help="the folder of the collections")
    parser.add_argument("only", nargs="*", help="the collections to take (default: all)")
    options = parser.parse_args(arguments)
    try:
        judged = collections(options.data, options.only)
        with stopped_by_signals(), ExitStack() as stack:
            return _evaluate(Console(width=max(Console().width, _WIDTH)), stack, judged)
    except (EngineError, ServiceError, NoAnswer, NoCollections) as error:
        sys.stderr.write(f"demo.evaluate: {error}\n")
        return 1
    except engine.Stopped:
        return _INTERRUPTED


def _evaluate(console: Console, stack: ExitStack, judged: Sequence[Judged]) -> int:
    folder = cache_folder() / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    config, template = folder / "config.yaml", folder / "search.json"
    config.write_bytes(msgspec.yaml.encode(settings(judged)))
    template.write_text(json.dumps(TEMPLATE))
    engine_url = begun(
        console,
        "Elasticsearch",
        lambda: stack.enter_context(engine.running(engine.Start(data=cache_folder() / "eval-data"))),
    )
    models_port, proxy_port = engine.free_ports(2)
    models = begun(console, "local models", lambda: stack.enter_context(run_models(models_port, folder)))
    for each in judged:
        _load(each, config, engine_url, models.url)
    proxy = begun(
        console, "proxy", lambda: stack.enter_context(run_proxy(config, proxy_port, engine_url, models.url, folder))
    )
    measured = [(each, _measure(each, template, engine_url, proxy.url)) for each in judged]
    services.check_alive(proxy)
    console.print(table([(each.name, found) for each, found in measured]))
    for each, found in measured:
        if found["no_verdict"]:
            console.print(f"{each.name}: no verdict: {found['no_verdict']}", markup=False, highlight=False)
    return int(any(found["no_verdict"] for _, found in measured))


def _load(judged: Judged, config: Path, engine_url: str, models_url: str) -> None:
    """Load a collection by the users' own command, which embeds what has no current vector; raises ServiceError."""
    try:
        ask(f"{engine_url}/{judged.index}")
    except NoAnswer:
        ask(f"{engine_url}/{judged.index}", {"mappings": _MAPPINGS}, method="PUT")
    words = ("index", str(judged.documents), "--name", judged.index, "-c", str(config))
    _run(*words, "--engine", engine_url, "--models", models_url)


def _measure(judged: Judged, template: Path, engine_url: str, proxy_url: str) -> Any:
    files = ("--queries", str(judged.queries), "--judgments", str(judged.judgments), "--template", str(template))
    addresses = ("--baseline", engine_url, "--proxy", proxy_url)
    return json.loads(_run("eval", *files, "--index", judged.index, *addresses, "--concurrency", "2", "--json"))


def _run(*words: str) -> bytes:
    done = subprocess.run(
        command(*words), env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
    )
    if done.returncode and not done.stdout:
        raise ServiceError(f"rerank-proxy {words[0]} ended with {done.returncode}: correct what is said above")
    return done.stdout


def table(measured: Sequence[tuple[str, Any]]) -> Table:
    """Show nDCG@10 of each collection, over all documents and over the judged ones."""
    shown = Table(
        "collection", "queries", "nDCG@10", "points [95 %]", "judged only", "unjudged", box=None, pad_edge=False
    )
    for name, found in measured:
        over_all, judged = (row for row in found["measures"] if row["measure"] == "nDCG@10")
        shown.add_row(
            name,
            str(found["compared"]),
            f"{over_all['baseline']:.3f} → {over_all['proxy']:.3f}",
            _gain(over_all),
            _gain(judged),
            f"{found['baseline']['unjudged']:.0%} → {found['proxy']['unjudged']:.0%}",
        )
    return shown


def _gain(row: Any) -> str:
    low, high = row["interval_points"]
    return f"{row['gain_points']:+.1f} [{low:+.1f}, {high:+.1f}]"


if __name__ == "__main__":
    sys.exit(main())
