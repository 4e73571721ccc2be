"""`rerank-proxy eval`: from the options to the report and the exit code."""

import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import msgspec

from proxy.bounds import EVALUATED_HITS
from proxy.commands.evaluation.addresses import address_of, concurrency_of
from proxy.commands.evaluation.client import (
    Address,
    EvaluationStopped,
    OutOfReach,
    Search,
    Sending,
    ask_both,
)
from proxy.commands.evaluation.collection import Collection, read_collection
from proxy.commands.evaluation.comparison import compare
from proxy.commands.evaluation.errors import CannotEvaluate
from proxy.commands.evaluation.outcomes import Pair
from proxy.commands.evaluation.report import Demand, Result, json_report, text_report
from proxy.commands.evaluation.runs import run_lines
from proxy.commands.evaluation.template import Template, read_template
from proxy.commands.loading.patience import say_what_is_waited_for
from proxy.commands.loading.progress import ShownProgress
from proxy.commands.loading.stopping import Stopped as Signalled
from proxy.commands.loading.stopping import Stopping

FAILED, UNREACHABLE, NO_VERDICT = 1, 2, 3
"""Exit codes: an error or a missed `--min-gain`, an address that cannot be reached, too little data for a verdict."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line."""

    queries: Path | None
    judgments: Path
    template: Path
    addresses: tuple[Address, Address]
    sending: Sending
    demand: Demand
    shown: int = 10
    as_json: bool = False
    runs: Path | None = None


def options_of(said: Namespace, target: str, environment: Mapping[str, str]) -> Options:
    """Read the arguments; raises ConfigError for an invalid address or missing credentials."""
    concurrency = concurrency_of(said)
    addresses = (address_of("baseline", said, environment), address_of("proxy", said, environment))
    return Options(
        queries=said.queries,
        judgments=said.judgments,
        template=said.template,
        addresses=addresses,
        sending=Sending(target, said.id_field, concurrency, said.timeout),
        demand=Demand(said.judged_only, said.min_gain),
        shown=max(said.show, 0),
        as_json=said.json,
        runs=said.runs,
    )


@dataclass(frozen=True, slots=True)
class _Stop:
    """Why not all queries were sent."""

    said: str
    code: int


async def evaluate(options: Options, out: TextIO) -> int:
    """Measure and report, even if the run was stopped early; raises CannotEvaluate."""
    collection = read_collection(options.queries, options.judgments)
    template = read_template(_read(options.template), options.template.name)
    _demand_room(len(collection.queries), template.depth)
    if options.runs:
        _demand_folder(options.runs)
    pairs: dict[str, Pair] = {}
    stop = await _ask(options, collection, template, pairs)
    if stop and not pairs:
        sys.stderr.write(f"rerank-proxy: {stop.said}\n")
        return stop.code
    asked = [query for query in collection.queries if query.id in pairs]
    result = Result(
        collection,
        compare(asked, pairs, template.depth),
        options.demand,
        f"{stop.said} ({len(asked):,} of {len(collection.queries):,} queries were asked)" if stop else None,
    )
    if options.runs:
        _write_runs(options.runs, options.addresses, [(each.id, pairs[each.id]) for each in asked])
    out.write(_printed(result, options))
    if stop:
        return stop.code
    return NO_VERDICT if result.no_verdict else FAILED if result.misses_gain else 0


def _printed(result: Result, options: Options) -> str:
    if options.as_json:
        return f"{msgspec.json.format(msgspec.json.encode(json_report(result))).decode()}\n"
    return text_report(result, options.shown)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CannotEvaluate(
            f"{path}: {error.strerror}. Name a file with a search body that contains {{{{query}}}}"
        ) from None


async def _ask(
    options: Options, collection: Collection, template: Template, pairs: MutableMapping[str, Pair]
) -> _Stop | None:
    searches = ((query.id, template.fill(query.text)) for query in collection.queries)
    try:
        await _shown(options, searches, len(collection.queries), pairs)
    except Signalled as stopped:
        return _Stop("interrupted", stopped.exit_code)
    except EvaluationStopped as stopped:
        return _Stop(str(stopped), UNREACHABLE if isinstance(stopped, OutOfReach) else FAILED)
    return None


async def _shown(options: Options, searches: Iterator[Search], count: int, pairs: MutableMapping[str, Pair]) -> None:
    """Send the searches with a progress bar on standard error, until a signal comes; raises Signalled."""
    say_what_is_waited_for()
    with Stopping().heeded(), ShownProgress("evaluating", count, counted=_queries) as shown:

        def keep(query: str, pair: Pair) -> None:
            pairs[query] = pair
            shown.show(len(pairs), len(pairs))

        await ask_both(options.addresses, options.sending, searches, count, keep)


def _queries(count: int) -> str:
    return f"{count:,} quer{'y' if count == 1 else 'ies'}"


def _demand_room(queries: int, depth: int) -> None:
    if queries * depth > EVALUATED_HITS:
        raise CannotEvaluate(
            f"{queries:,} queries with {depth:,} hits each are more than {EVALUATED_HITS:,} hits: take a sample of the "
            "queries, or write a smaller size into the template"
        )


def _demand_folder(folder: Path) -> None:
    """Create the folder before any search is sent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotEvaluate(f"--runs {folder}: {error.strerror}. Name a folder that can be written to") from None


def _write_runs(folder: Path, addresses: Sequence[Address], pairs: Sequence[tuple[str, Pair]]) -> None:
    for address in addresses:
        replies = ((query, getattr(pair, address.name)) for query, pair in pairs)
        with (folder / f"{address.name}.run").open("w", encoding="utf-8") as file:
            file.writelines(run_lines(replies, address.name))
