"""Real engines for demo and tests: `python -m demo.engine [--engine NAME] fetch | run | exec -- COMMAND...`.

`exec` starts them, tells COMMAND their addresses in REAL_ENGINE_URL (the first) and REAL_ENGINES (JSON, name to
address), and stops them again. With --security also REAL_ENGINE_SECURE_URL, REAL_ENGINE_PASSWORD and, with --tls,
REAL_ENGINE_CA: another node of the first, whose user is `elastic`.
"""

import argparse
import base64
import json
import os
import secrets
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from demo.engine_files import cache_folder, engine_home, only_one, scratch_folder
from demo.engine_layout import USER, Access, Layout, demand_entry, lay_out
from demo.engines import DEFAULT, ENGINES, Engine, EngineError, named
from demo.java import java_for

_START_S = 180
_STOP_S = 30
_HEAP = "512m"
_HEALTH = "/_cluster/health?wait_for_status=yellow&timeout=30s"


@dataclass(frozen=True, slots=True)
class Start:
    """An engine to start; its data is kept if `data` names a folder, and `tls` includes security."""

    engine: Engine = DEFAULT
    data: Path | None = None
    heap: str = _HEAP
    security: bool = False
    tls: bool = False
    ports: tuple[int, int] = (0, 0)
    """For HTTP and for other nodes; another one is used if one is not free, and for 0."""

    def access(self) -> Access:
        return Access(secrets.token_urlsafe(16) if self.security or self.tls else None, tls=self.tls)


@dataclass(frozen=True, slots=True)
class Running:
    """A running engine; with security, the password of the user `elastic`; with TLS, the authority to trust."""

    engine: Engine
    url: str
    password: str | None = None
    ca: Path | None = None


def free_ports(count: int, preferred: Sequence[int] = ()) -> tuple[int, ...]:
    """Find ports of 127.0.0.1 that are not in use; the preferred ones first, if they are free."""
    with ExitStack() as stack:
        wanted = [*preferred, *[0] * count][:count]
        sockets = [stack.enter_context(_bound(port)) for port in wanted]
        return tuple(each.getsockname()[1] for each in sockets)


def _bound(port: int) -> socket.socket:
    """Bind a socket to a port, or to any free one if it is in use."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have just ended do not count
    try:
        found.bind(("127.0.0.1", port))
    except OSError:
        found.bind(("127.0.0.1", 0))
    return found


@contextmanager
def running(start: Start) -> Iterator[str]:
    """Run one engine and yield its URL; see running_all."""
    with running_all([start]) as (one,):
        yield one.url


@contextmanager
def running_all(starts: Sequence[Start]) -> Iterator[tuple[Running, ...]]:
    """Run several engines at the same time, and yield them when all respond.

    Raises EngineError if one cannot be fetched or does not start. All processes are stopped at the end.
    """
    ports = free_ports(2 * len(starts), [port for start in starts for port in start.ports])
    with ExitStack() as stack:
        pairs = zip(ports[::2], ports[1::2], strict=True)
        started = [stack.enter_context(_started(start, pair)) for start, pair in zip(starts, pairs, strict=True)]
        try:
            yield tuple(_when_ready(layout, process) for layout, process in started)
        finally:
            for _, process in started:
                process.terminate()


@contextmanager
def _started(start: Start, ports: tuple[int, int]) -> Iterator[tuple[Layout, subprocess.Popen[bytes]]]:
    if os.geteuid() == 0:
        for folder in filter(None, (cache_folder(), start.data)):
            demand_entry(folder)
    java, fetched = java_for(start.engine), engine_home(start.engine)
    with ExitStack() as stack:
        if start.data is not None:
            lock = start.data.parent / f"{start.data.name}.lock"
            stack.enter_context(only_one(lock, f"another engine uses {start.data}, waiting for it to stop"))
        home = stack.enter_context(scratch_folder())
        layout = Layout(start.engine, java, home, start.data or home / "data", ports, start.access(), start.heap)
        lay_out(layout, fetched)
        process = _launch(layout)
        try:
            yield layout, process
        finally:
            _stop(process)


def _launch(layout: Layout) -> subprocess.Popen[bytes]:
    with layout.log.open("wb") as output:
        return subprocess.Popen(
            layout.command(),
            cwd=layout.home,
            env=layout.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _when_ready(layout: Layout, process: subprocess.Popen[bytes]) -> Running:
    ca = layout.certificate if layout.access.tls else None
    found = Running(layout.engine, layout.url, layout.access.password, ca)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EngineError(f"{layout.engine.name} ended while starting:\n{_said(layout)}")
        if _answers(found):
            return found
        time.sleep(0.2)
    raise EngineError(f"{layout.engine.name} did not answer within {_START_S} s:\n{_said(layout)}")


def _said(layout: Layout) -> str:
    return layout.log.read_text(errors="replace")[-2000:]


def _answers(running: Running) -> bool:
    request = urllib.request.Request(f"{running.url}{_HEALTH}")  # noqa: S310  # this machine's own
    if running.password is not None:
        credentials = base64.b64encode(f"{USER}:{running.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {credentials}")
    trusted = ssl.create_default_context(cafile=running.ca)
    # Ignore HTTP proxies in the environment.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=trusted),
    )
    try:
        with opener.open(request, timeout=35) as health:
            return bool(health.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the launcher, which stops the server; then kill what is left of the process group."""
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        sys.stderr.write("an engine does not stop, it is killed\n")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Stopped(BaseException):
    """A signal asked this process to end; like KeyboardInterrupt it passes every `except Exception`."""


def stop_on_signals() -> None:
    """Turn the first SIGTERM or SIGHUP into an exception, so that started processes are stopped."""
    both = (signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _: FrameType | None) -> None:
        for each in both:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    for each in both:
        signal.signal(each, stop)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    stop_on_signals()
    try:
        engines = _engines(options.engine)
        if options.do == "fetch":
            print(*(engine_home(engine) for engine in engines), sep="\n")
            return 0
        starts = _starts(engines, options)
        if options.data and len(starts) > 1:
            parser.error("--data keeps the data of one engine: name one, without --security and --tls")
        with running_all(starts) as found:
            if options.do == "exec":
                return _run(options.command, variables(found))
            print(_addresses(found), flush=True)
            signal.pause()
    except EngineError as error:
        sys.stderr.write(f"demo.engine: {error}\n")
        return 1
    except (Stopped, KeyboardInterrupt):
        return 130
    return 0


def _engines(names: Sequence[str] | None) -> tuple[Engine, ...]:
    """The engines of these names, each once, in the table's order."""
    if not names:
        return (DEFAULT,)
    if "possible" in names:
        return tuple(_possible())
    wanted = ENGINES if "all" in names else tuple(named(name) for name in names)
    return tuple(engine for engine in ENGINES if engine in wanted)


def _possible() -> Iterator[Engine]:
    """The engines that an installed Java can run; the others are reported."""
    for engine in ENGINES:
        try:
            java_for(engine)
        except EngineError as error:
            sys.stderr.write(f"demo.engine: left out: {error}\n")
        else:
            yield engine


def _starts(engines: Sequence[Engine], options: argparse.Namespace) -> list[Start]:
    starts = [Start(engine, options.data, options.heap) for engine in engines]
    if options.security or options.tls:
        secure = next((engine for engine in engines if engine.keystore), None)
        if secure is None:
            raise EngineError("--security and --tls are Elasticsearch's here: name one by --engine")
        starts.append(Start(secure, None, options.heap, security=True, tls=options.tls))
    return starts


def variables(found: Sequence[Running]) -> dict[str, str]:
    """Environment variables that tell a command which engines run: by name, and the one with security."""
    everybodys = {each.engine.name: each.url for each in found if each.password is None}
    told = {"REAL_ENGINE_URL": next(iter(everybodys.values())), "REAL_ENGINES": json.dumps(everybodys)}
    for each in found:
        if each.password is not None:
            told |= {"REAL_ENGINE_SECURE_URL": each.url, "REAL_ENGINE_PASSWORD": each.password}
        if each.ca is not None:
            told["REAL_ENGINE_CA"] = str(each.ca)
    return told


def _addresses(found: Sequence[Running]) -> str:
    """One engine's address, or of several the lines that a shell reads."""
    if len(found) == 1:
        return found[0].url
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables(found).items())


def _run(words: Sequence[str], told: Mapping[str, str]) -> int:
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        sys.stderr.write("demo.engine exec: say which command, as in `python -m demo.engine exec -- pytest`\n")
        return 2
    with subprocess.Popen(words, env={**os.environ, **told}) as child:
        try:
            return child.wait()
        except (Stopped, KeyboardInterrupt):
            child.terminate()
            raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.engine", description=__doc__)
    names = ", ".join(engine.name for engine in ENGINES)
    parser.add_argument(
        "--engine",
        action="append",
        metavar="NAME",
        help=f"one of {names}, all, or what is possible here; may be repeated (default: {DEFAULT.name})",
    )
    parser.add_argument("--heap", default=_HEAP, help="each engine's heap (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="a folder to keep the engine's data in (default: thrown away)")
    parser.add_argument("--security", action="store_true", help="run one more Elasticsearch, with x-pack security")
    parser.add_argument("--tls", action="store_true", help="the same, and by https")
    do = parser.add_subparsers(dest="do", required=True)
    do.add_parser("fetch", help="fetch and verify the engines, print their folders")
    do.add_parser("run", help="run them and print their addresses, until Ctrl-C")
    execute = do.add_parser("exec", help="run them while a command runs, addresses in REAL_ENGINE_URL, REAL_ENGINES")
    execute.add_argument("command", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
