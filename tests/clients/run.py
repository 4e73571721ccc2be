"""`make test-clients`: clients of other languages against real engines, straight and through the proxy.

Each program does its scenarios on both sides, prints `ok NAME` for each, and ends non-zero at the first difference.
Engines are those that REAL_ENGINES names (JSON, name to address), else all are started. Words choose programs:
`python -m tests.clients.run go java`.
"""

import argparse
import json
import os
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

from demo import engine, services
from demo.asking import NoAnswer
from demo.engines import (
    ELASTICSEARCH_8,
    ELASTICSEARCH_9,
    ENGINES,
    OPENSEARCH_2,
    OPENSEARCH_3,
    Engine,
    EngineError,
    named,
)
from demo.services import ServiceError
from tests.clients import shelf

FOLDER = Path(__file__).parent
_ELASTICSEARCH = (ELASTICSEARCH_8, ELASTICSEARCH_9)
_OPENSEARCH = (OPENSEARCH_2, OPENSEARCH_3)
_PROGRAM_S = 300
_GO = ("go", "run")
_MAVEN = ("mvn", "-q", "-B", "compile", "exec:exec")


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
    Program("go-elasticsearch v8", "go", (*_GO, "./elasticsearch8"), _ELASTICSEARCH),
    Program("go-elasticsearch v9", "go", (*_GO, "./elasticsearch9"), (ELASTICSEARCH_9,)),
    Program("opensearch-go", "go", (*_GO, "./opensearch"), _OPENSEARCH),
    Program("elasticsearch-java 8", "java", (*_MAVEN, "-pl", "elasticsearch8"), _ELASTICSEARCH),
    Program("elasticsearch-java 9", "java", (*_MAVEN, "-pl", "elasticsearch9"), (ELASTICSEARCH_9,)),
    Program("opensearch-java", "java", (*_MAVEN, "-pl", "opensearch"), _OPENSEARCH),
)
PREPARED: Mapping[str, tuple[str, ...]] = {"js": ("npm", "ci", "--silent"), "go": ("go", "mod", "download")}
"""What fetches a language's clients, where starting a program does not."""


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
    _prepare({program.language for program in programs})
    count = Count()
    with ExitStack() as stack:
        urls = stack.enter_context(_engines(programs))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="clients-")))
        models = stack.enter_context(_service("models", folder, health="/health"))
        products = shelf.read(models.url)
        for name, url in urls.items():
            which = named(name)
            on_it = [program for program in programs if which in program.engines]
            with _shop(which, url, products) as prefix, _proxies(which, url, models.url, prefix, folder) as told:
                for number, program in enumerate(on_it):
                    count += _run(program, which, {**told, "PREFIX": f"{prefix}-{number}"})
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


@contextmanager
def _engines(programs: Sequence[Program]) -> Iterator[Mapping[str, str]]:
    """Give the addresses of the engines that these programs need, by name."""
    needed = [each for each in ENGINES if any(each in program.engines for program in programs)]
    told: Mapping[str, str] = json.loads(os.environ.get("REAL_ENGINES", "{}"))
    if told:
        yield {each.name: told[each.name].rstrip("/") for each in needed if each.name in told}
        return
    with engine.running_all([engine.Start(each) for each in needed]) as found:
        yield {each.engine.name: each.url for each in found}


@contextmanager
def _shop(which: Engine, url: str, products: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Load the shop as `PREFIX-routed`; everything under the prefix is deleted in the end."""
    prefix = f"clients-{uuid4().hex[:8]}"
    try:
        shelf.load(which, url, f"{prefix}-routed", products)
        yield prefix
    finally:
        shelf.drop(url, prefix)


@contextmanager
def _proxies(which: Engine, url: str, models: str, prefix: str, folder: Path) -> Iterator[Mapping[str, str]]:
    """Run a proxy before the engine, and one whose engine is away; give what a program is told."""
    route: dict[str, Any] = {"index": f"{prefix}-routed*", "profile": "e-commerce", "passage": ["title", "description"]}
    if shelf.has_vectors(which):
        semantic = {"field": shelf.EMBEDDING.field, "dimensions": shelf.EMBEDDING.dimensions, "timeout_seconds": 20}
        route["semantic"] = semantic
    patient = {"embed_timeout_seconds": 20, "rerank_timeout_seconds": 30}
    config = folder / "config.yaml"
    config.write_bytes(msgspec.yaml.encode({"models": {"url": models, **patient}, "routes": [route]}))
    (nobody,) = engine.free_ports(1)
    with (
        _service("serve", folder, "-c", str(config), "--engine", url) as proxy,
        _service("serve", folder, "-c", str(config), "--engine", f"http://127.0.0.1:{nobody}") as away,
    ):
        yield {
            "ENGINE_URL": url,
            "PROXY_URL": proxy.url,
            "AWAY_URL": away.url,
            "ROUTED_INDEX": f"{prefix}-routed",
            "ENGINE_VERSION": which.version,
        }


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
    print(done.stdout, end="", flush=True)
    passed = sum(line.startswith("ok ") for line in done.stdout.splitlines())
    return Count(passed, int(done.returncode != 0 or not passed))


if __name__ == "__main__":
    sys.exit(main())
