"""`make demo`: the same searches with and without the proxy, on a real Elasticsearch, side by side.

Everything that the demo starts is stopped when it ends, however it ends.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

from rich.console import Console

from demo import engine, services, shop
from demo.asking import NoAnswer
from demo.comparing import Comparison, Shop, compare
from demo.engine_files import cache_folder
from demo.engines import EngineError
from demo.services import Service, ServiceError
from demo.showing import example_search, show, show_gain

_INTERRUPTED = 130
_LOOK_EVERY_S = 1.0
ENGINE_PORTS, MODELS_PORT, PROXY_PORT = (9200, 9300), 8080, 9201
"""Each is used if it is free, and another one otherwise."""

A = TypeVar("A")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the comparison; fail if one was not reranked")
    options = parser.parse_args(arguments)
    try:
        with stopped_by_signals():
            return _demo(Console(), once=options.once)
    except (EngineError, ServiceError, NoAnswer) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader is gone: no error at exit either
        return 1
    except engine.Stopped:
        return _INTERRUPTED


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Turn the first signal into Stopped, and ignore further ones while everything is being stopped."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise engine.Stopped(number)

    for each in numbers:
        signal.signal(each, stop)
    yield


def _demo(console: Console, *, once: bool) -> int:
    with ExitStack() as stack:
        way, running = _set_up(console, stack)
        comparisons = [compare(way, query) for query in shop.queries()]
        for comparison in comparisons:
            if comparison.query.id in shop.SHOWN:
                show(console, comparison)
        show_gain(console, comparisons)
        if once:
            return _verdict(comparisons)
        _show_next_steps(console, way)
        while True:
            time.sleep(_LOOK_EVERY_S)
            for service in running:
                services.check_alive(service)


def _set_up(console: Console, stack: ExitStack) -> tuple[Shop, Sequence[Service]]:
    """Start everything and load the catalogue; `stack` stops everything."""
    folder = cache_folder() / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    start = engine.Start(data=cache_folder() / "demo-data", ports=ENGINE_PORTS)
    engine_url = begun(console, "Elasticsearch", lambda: stack.enter_context(engine.running(start)))
    models_port, proxy_port = engine.free_ports(2, (MODELS_PORT, PROXY_PORT))
    models = begun(console, "local models", lambda: stack.enter_context(run_models(models_port, folder)))
    if shop.is_loaded(engine_url):
        console.print("the catalogue is loaded already", style="dim")
    else:
        begun(console, "catalogue", lambda: shop.load(engine_url, models.url))
    proxy = begun(
        console,
        "proxy",
        lambda: stack.enter_context(run_proxy(shop.CONFIG, proxy_port, engine_url, models.url, folder)),
    )
    return Shop(engine_url, proxy.url, shop.INDEX, shop.FIELDS), (models, proxy)


def begun(console: Console, what: str, begin: Callable[[], A]) -> A:
    """Start something, and say how long it took."""
    console.print(f"{what} …", style="dim")
    start = time.monotonic()
    done = begin()
    console.print(f"{what}: ready after {time.monotonic() - start:.1f} s", style="dim", highlight=False)
    return done


def run_models(port: int, folder: Path) -> AbstractContextManager[Service]:
    return services.running(
        "rerank-proxy models", ("models", "--listen", f"127.0.0.1:{port}"), port, "/health", folder / "models.log"
    )


def run_proxy(
    config: Path, port: int, engine_url: str, models_url: str, folder: Path
) -> AbstractContextManager[Service]:
    addresses = ("--listen", f"127.0.0.1:{port}", "--engine", engine_url, "--models", models_url)
    return services.running(
        "rerank-proxy serve", ("serve", "-c", str(config), *addresses), port, "/", folder / "proxy.log"
    )


def _verdict(comparisons: Sequence[Comparison]) -> int:
    missed = [comparison for comparison in comparisons if not comparison.reranked]
    for comparison in missed:
        sys.stderr.write(
            f"demo: not reranked: {comparison.query.text!r}: {comparison.through.outcome or 'untouched'}\n"
        )
    return int(bool(missed))


def _show_next_steps(console: Console, way: Shop) -> None:
    console.print(f"\nElasticsearch:      {way.engine}\nthrough the proxy:  {way.proxy}\n")
    console.print("Search yourself; the other address returns Elasticsearch's own order:\n")
    console.out(example_search(way.proxy), highlight=False)
    console.print(f"\n{LACKS}\n\nPress Ctrl-C to stop.")


LACKS = (
    "This Elasticsearch is the reduced build that Maven's repository has: without Kibana, asynchronous search, search "
    "templates, SQL and machine learning."
)


if __name__ == "__main__":
    sys.exit(main())
