"""What every scenario stands on: the same done straight and through the proxy, and what was seen compared.

It runs in the environments of the clients and needs nothing but Python. A scenario raises Different, or is fulfilled.
"""

import asyncio
import hashlib
import json
import os
import re
import sys
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_VOLATILE = frozenset({"took", "_scroll_id", "pit_id", "creation_date", "creation_date_string", "uuid", "index_uuid"})
_INDEX_UUID = re.compile(r"/[\w-]{22}\]")
# What HTTP gives to each hop, and what the proxy adds; a length goes with how long the engine took.
_OWN_HEADERS = frozenset({"connection", "content-length", "transfer-encoding", "x-rerank", "server-timing"})


class Different(Exception):
    """What a client sees through the proxy is not what it sees straight, or not what was promised."""


@dataclass(frozen=True, slots=True)
class Side:
    """Where a client connects, and the names of its indices there."""

    url: str
    index: str
    """One that holds the shop."""
    fresh: str
    """One that does not exist yet."""
    through: bool


@dataclass(frozen=True, slots=True)
class Bench:
    """The engine, the proxy before it, and proxies before engines that fail."""

    engine_url: str
    proxy_url: str
    names: str
    """How the names of all its indices begin."""
    away_url: str
    """A proxy whose engine is not there."""
    flaky_url: str
    """A proxy whose engine breaks the first two connections."""
    silent_url: str
    """A proxy whose engine never answers."""
    silent_engine_url: str
    documents: Mapping[str, Any]
    """The shop as its owner wrote it; a reranked search does not show the vectors beside it."""
    vectors: Mapping[str, Sequence[float]]
    """Of each passage and query."""
    has_knn: bool

    @classmethod
    def from_environment(cls) -> "Bench":
        told = json.loads(os.environ["SCENARIO"])
        return cls(os.environ["ENGINE_URL"].rstrip("/"), os.environ["PROXY_URL"].rstrip("/"), **told)

    def sides(self, *, routed: bool) -> tuple[Side, Side]:
        """Both ways to an index that lies in the proxy's route, or to one that does not."""
        index = f"{self.names}-{'routed' if routed else 'plain'}"
        return (
            Side(self.engine_url, index, f"{index}-fresh", through=False),
            Side(self.proxy_url, index, f"{index}-fresh", through=True),
        )


See = Callable[[Side], Any]
SeeLater = Callable[[Side], Coroutine[Any, Any, Any]]
Scenario = Callable[[Bench], None]


def passage(source: Mapping[str, Any]) -> str:
    """Join what the model is shown of a product."""
    return f"{source['title']}\n{source['description']}"


def score(text: str) -> float:
    """Score a document by nothing it says, as the model of these tests does."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def later(see: SeeLater) -> See:
    """Make an asynchronous client's scenario one that can be called."""
    return lambda side: asyncio.run(see(side))


def same(see: See, *, routed: bool = False) -> Scenario:
    """Promise that both sides see the same."""

    def scenario(bench: Bench) -> None:
        seen = [_seen(see, side) for side in bench.sides(routed=routed)]
        equal(*seen)

    return scenario


def reranked(see: See) -> Scenario:
    """Promise that through the proxy the documents are what they are straight, each once, in the model's order.

    What is seen is a list of pairs, a document's id and its whole source, of a search for which the window is enough.
    """

    def scenario(bench: Bench) -> None:
        straight, through = (_seen(see, side) for side in bench.sides(routed=True))
        ids = [name for name, _ in through]
        demand(len(ids) == len(set(ids)), f"doubles: {ids}")
        demand({name for name, _ in straight} <= set(ids), f"lost: {straight} became {through}")
        equal([bench.documents[name] for name in ids], [source for _, source in through])
        texts = [passage(source) for _, source in through]
        in_order(texts)
        demand(len(texts) > 1, "one document has no order")

    return scenario


def in_order(texts: Sequence[str]) -> None:
    """Demand the order of the model, which has seen these texts."""
    equal(sorted(texts, key=score, reverse=True), list(texts))


def _seen(see: See, side: Side) -> Any:
    """Look from one side, with the fresh index gone before and after."""
    _delete(side)
    try:
        return plain(see(side))
    finally:
        _delete(side)


def _delete(side: Side) -> None:
    request = urllib.request.Request(  # noqa: S310  this machine's own
        f"{side.url}/{side.fresh}?ignore_unavailable=true", method="DELETE"
    )
    urllib.request.urlopen(request).close()  # noqa: S310


def plain(value: Any) -> Any:
    """Turn what a client saw into JSON's own values, without what no two answers have in common."""
    match value:
        case Mapping():
            return {str(key): plain(one) for key, one in value.items() if key not in _VOLATILE}
        case list() | tuple():
            return [plain(one) for one in value]
        case str():
            return _INDEX_UUID.sub("]", value)
        case None | int() | float():
            return value
        case _ if hasattr(value, "to_dict"):
            return plain(value.to_dict())
        case _:
            raise TypeError(f"{type(value)} is no JSON")


def headers(of: Mapping[str, str]) -> dict[str, str]:
    """Return what both sides must agree on."""
    return {name.lower(): value for name, value in of.items() if name.lower() not in _OWN_HEADERS}


def demand(fulfilled: bool, otherwise: str) -> None:  # noqa: FBT001  it reads like assert
    if not fulfilled:
        raise Different(otherwise)


def equal(expected: Any, actual: Any, path: str = "") -> None:
    """Name the first place where two values differ."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        demand(expected.keys() == actual.keys(), f"{path or 'keys'}: {sorted(expected)} became {sorted(actual)}")
        for key in expected:
            equal(expected[key], actual[key], f"{path}.{key}")
    elif isinstance(expected, list) and isinstance(actual, list):
        demand(len(expected) == len(actual), f"{path or 'list'}: {expected} became {actual}")
        for number, (one, other) in enumerate(zip(expected, actual, strict=True)):
            equal(one, other, f"{path}[{number}]")
    else:
        demand(expected == actual, f"{path or 'value'}: {expected!r} became {actual!r}")


def main(scenarios: Mapping[str, Scenario]) -> None:
    """Run every scenario, say which are not fulfilled and why, and end with 1 if there is one."""
    bench, failed = Bench.from_environment(), 0
    for name, scenario in scenarios.items():
        try:
            scenario(bench)
        except Exception as error:  # noqa: BLE001  whatever a client raises is a scenario not fulfilled
            failed += 1
            where = (
                ""
                if isinstance(error, Different)
                else "".join(traceback.format_exc(chain=False).splitlines(keepends=True)[-9:-1])
            )
            sys.stdout.write(f"FAILED {name}: {type(error).__name__}: {error}\n{where}")
        else:
            sys.stdout.write(f"ok {name}\n")
    sys.exit(min(failed, 1))
