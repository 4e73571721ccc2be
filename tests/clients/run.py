"""`make test-clients`: clients of other languages against real engines, straight and through the proxy.

Each program does its scenarios on both sides, prints `ok NAME` for each, and ends non-zero at the first difference.
Engines are those that REAL_ENGINES names, see demo.engine. Words choose programs: `python -m tests.clients.run go`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import msgspec

from demo import engine, services, shop
from demo.asking import NoAnswer, ask
from demo.engines import (
    ELASTICSEARCH_8,
    ELASTICSEARCH_9,
    OPENSEARCH_2,
    OPENSEARCH_3,
    Engine,
    EngineError,
    Family,
    named,
)
from demo.services import ServiceError

FOLDER = Path(__file__).parent
_ELASTICSEARCH = (ELASTICSEARCH_8, ELASTICSEARCH_9)
_OPENSEARCH = (OPENSEARCH_2, OPENSEARCH_3)
_PROGRAM_S = 300
_EVERY = 4
"""Each fourth product is enough for clients, and soon embedded."""
_MAVEN = ("mvn", "-q", "-B", "compile", "exec:java")


@dataclass(frozen=True, slots=True)
class Program:
    """A client's scenarios: where they are, how they are started, and on which engines."""

    name: str
    language: str
    words: tuple[str, ...]
    engines: tuple[Engine, ...]


# An 8.x engine refuses a 9.x client's media type, so those meet 9.x alone.
PROGRAMS = (
    Program("@elastic/elasticsearch 8", "js", ("node", "elasticsearch.mjs", "elasticsearch8"), _ELASTICSEARCH),
    Program("@elastic/elasticsearch 9", "js", ("node", "elasticsearch.mjs", "elasticsearch9"), (ELASTICSEARCH_9,)),
    Program("@opensearch-project/opensearch", "js", ("node", "opensearch.mjs"), _OPENSEARCH),
    Program("searchkit", "js", ("node", "searchkit.mjs"), (*_ELASTICSEARCH, *_OPENSEARCH)),
    Program("Search UI's connector", "js", ("node", "search-ui.mjs"), (*_ELASTICSEARCH, *_OPENSEARCH)),
    Program("go-elasticsearch v8", "go", ("bin/elasticsearch8",), _ELASTICSEARCH),
    Program("go-elasticsearch v9", "go", ("bin/elasticsearch9",), (ELASTICSEARCH_9,)),
    Program("opensearch-go", "go", ("bin/opensearch",), _OPENSEARCH),
    Program("elasticsearch-java 8", "java", (*_MAVEN, "-pl", "elasticsearch8"), _ELASTICSEARCH),
    Program("elasticsearch-java 9", "java", (*_MAVEN, "-pl", "elasticsearch9"), (ELASTICSEARCH_9,)),
    Program("opensearch-java", "java", (*_MAVEN, "-pl", "opensearch"), _OPENSEARCH),
)
PREPARED: Mapping[str, tuple[str, ...]] = {
    "js": ("npm", "ci", "--silent"),
    "go": ("go", "build", "-o", "bin/", "./..."),
}
"""What fetches and builds a language's clients; Go's are so large that a new machine takes minutes over them."""


@dataclass(frozen=True, slots=True)
class Count:
    passed: int = 0
    failed: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.passed + other.passed, self.failed + other.failed)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.clients.run", description=__doc__)
    parser.add_argument("words", nargs="*", help="part of a program's name, or its language; default: all of them")
    words = parser.parse_args(arguments).words
    chosen = [program for program in PROGRAMS if not words or _is_meant(program, words)]
    engine.stop_on_signals()
    try:
        count = _run_all(chosen)
    except (EngineError, ServiceError, NoAnswer) as error:
        sys.stderr.write(f"tests.clients: {error}\n")
        return 1
    except (engine.Stopped, KeyboardInterrupt):
        return 130
    print(f"{count.passed} passed, {count.failed} failed", flush=True)
    return int(count.failed > 0 or not count.passed)


def _is_meant(program: Program, words: Sequence[str]) -> bool:
    return any(word == program.language or word in program.name for word in words)


def _run_all(programs: Sequence[Program]) -> Count:
    urls = _engines(programs)
    _prepare({program.language for program in programs})
    count = Count()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="clients-")))
        models = stack.enter_context(_service("models", folder, health="/health"))
        for name, url in urls.items():
            which = named(name)
            with _shop(which, url, models.url, folder) as told:
                for number, program in enumerate(each for each in programs if which in each.engines):
                    count += _run(program, which, {**told, "PREFIX": f"{told['PREFIX']}-{number}"})
    return count


def _service(
    name: str, folder: Path, *options: str, health: str | None = None
) -> AbstractContextManager[services.Service]:
    """Run a command of the project on a port of its own; it is there once it takes connections."""
    (port,) = engine.free_ports(1)
    arguments = (name, "--listen", f"127.0.0.1:{port}", *options)
    return services.running(f"rerank-proxy {name}", arguments, port, health, folder / f"{name}-{port}.log")


def _prepare(languages: set[str]) -> None:
    for language in sorted(languages & PREPARED.keys()):
        words = PREPARED[language]
        done = subprocess.run(words, cwd=FOLDER / language, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise ServiceError(f"`{' '.join(words)}` failed in {FOLDER / language}: see above")


def _engines(programs: Sequence[Program]) -> Mapping[str, str]:
    """Read the addresses of the running engines that these programs are for, by name."""
    told: Mapping[str, str] = json.loads(os.environ.get("REAL_ENGINES", "{}"))
    meant = {each.name for program in programs for each in program.engines}
    found = {name: url.rstrip("/") for name, url in told.items() if name in meant}
    if not found:
        raise ServiceError(f"REAL_ENGINES names none of {', '.join(sorted(meant))}: run `make test-clients`")
    return found


@contextmanager
def _shop(which: Engine, url: str, models: str, folder: Path) -> Iterator[Mapping[str, str]]:
    """Load the shop, run a proxy before the engine and one whose engine is away, and give what programs are told.

    Everything under the prefix is deleted in the end.
    """
    prefix = f"clients-{uuid4().hex[:8]}"
    index, config = f"{prefix}-routed", _config(which, prefix, models, folder)
    (nobody,) = engine.free_ports(1)
    try:
        _load(which, url, index, config)
        with (
            _service("serve", folder, "-c", str(config), "--engine", url) as proxy,
            _service("serve", folder, "-c", str(config), "--engine", f"http://127.0.0.1:{nobody}") as away,
        ):
            told = {"ENGINE_URL": url, "PROXY_URL": proxy.url, "AWAY_URL": away.url}
            yield {**told, "PREFIX": prefix, "ROUTED_INDEX": index}
    finally:
        for made in ask(f"{url}/_resolve/index/{prefix}*").body["indices"]:
            ask(f"{url}/{made['name']}", method="DELETE")


def _config(which: Engine, prefix: str, models: str, folder: Path) -> Path:
    route: dict[str, Any] = {"index": f"{prefix}-routed*", "profile": "e-commerce", "passage": ["title", "description"]}
    route["budget_ms"] = 60_000
    if _has_vectors(which):
        route["semantic"] = {"field": "embedding", "dimensions": 384, "timeout_seconds": 20}
    patient = {"embed_timeout_seconds": 20, "rerank_timeout_seconds": 30}
    file = folder / "config.yaml"
    settings = {"engine": {"resolve_timeout_seconds": 20}, "models": {"url": models, **patient}, "routes": [route]}
    file.write_bytes(msgspec.yaml.encode(settings))
    return file


def _has_vectors(which: Engine) -> bool:
    """Whether it can hold vectors: the OpenSearch that has no k-NN plugin cannot."""
    return which.family is Family.ELASTICSEARCH or any("knn" in each.artifact.name for each in which.archives)


def _load(which: Engine, url: str, index: str, config: Path) -> None:
    """Load some of the demo's products, as a user does."""
    products = list(shop.products().values())[::_EVERY]
    file = config.with_name("products.ndjson")
    # `sku` is a keyword in this profile's mapping, by which programs break ties.
    file.write_text("".join(f"{json.dumps({**product, 'sku': product['id']})}\n" for product in products))
    options = () if _has_vectors(which) else ("--no-vectors",)
    words = ("index", str(file), "--name", index, "-c", str(config), "--engine", url, *options)
    done = subprocess.run(
        services.command(*words), env=services.environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        raise ServiceError(f"the shop was not loaded into {which.name}: {done.stderr.decode(errors='replace')}")
    ask(f"{url}/{index}/_refresh", method="POST")


def _run(program: Program, which: Engine, told: Mapping[str, str]) -> Count:
    """Run a program to its end, repeating what it says."""
    print(f"\n{program.name} on {which.name}", flush=True)
    done = subprocess.run(
        program.words,
        cwd=FOLDER / program.language,
        env={**os.environ, **told},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PROGRAM_S,
        check=False,
    )
    said = re.sub(r"\x1b\[\d*m", "", done.stdout)  # Maven colours a pipe, too
    print(said, end="" if said.endswith("\n") else "\n", flush=True)
    passed = sum(line.startswith("ok ") for line in said.splitlines())
    return Count(passed, int(done.returncode != 0 or not passed))


if __name__ == "__main__":
    sys.exit(main())
