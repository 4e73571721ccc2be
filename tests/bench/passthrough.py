"""What a request costs that passes through, beside other proxies in front of the same origin."""

import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.baselines.servers import (
    AIOHTTP,
    NGINX,
    OURS,
    PROXIES,
    SIZES_KB,
    Server,
    Tls,
    origin,
    program,
    proxies,
    target,
)
from tests.bench.measuring import Figure
from tests.bench.processes import used_by

CONNECTIONS = 16
IDLE_CONNECTIONS = 2000
_TLS_KB = 11
_WARM_UP_S = 1


@dataclass(frozen=True, slots=True)
class Case:
    """Which requests are sent."""

    size_kb: int
    tls: Tls = Tls.NONE
    keep_alive: bool = True

    @property
    def name(self) -> str:
        tls = {Tls.NONE: "", Tls.CLIENTS: ", TLS to clients", Tls.ENGINE: ", TLS to the engine"}[self.tls]
        return f"{self.size_kb} KB{tls}{'' if self.keep_alive else ', a connection each'}"


CASES = (
    *(Case(size) for size in SIZES_KB),
    *(Case(size, keep_alive=False) for size in SIZES_KB),
    Case(_TLS_KB, Tls.CLIENTS),
    Case(_TLS_KB, Tls.CLIENTS, keep_alive=False),
    Case(_TLS_KB, Tls.ENGINE),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one proxy used and gave."""

    cpu_us: float
    """CPU time of a request."""
    rate: float
    """Requests per second."""
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """One case: the medians of its rounds, of each proxy."""

    name: str
    costs: Mapping[str, Cost]

    def ratio(self, baseline: str) -> float:
        return self.costs[OURS].cpu_us / self.costs[baseline].cpu_us

    def figure(self) -> Figure:
        meaning = f"CPU of a request, beside {AIOHTTP}'s; {NGINX} {self.costs[NGINX].cpu_us:.3g} µs"
        return Figure(self.name, meaning, "µs", self.costs[AIOHTTP].cpu_us, self.costs[OURS].cpu_us, 1)


@dataclass(frozen=True, slots=True)
class Measured:
    """All cases, and how much an idle client connection takes, in KB of each proxy's memory."""

    rows: Sequence[Row]
    idle_kb: Mapping[str, float]

    def plain(self) -> Any:
        """Return it as JSON has it."""
        rows = [
            asdict(row) | {"ratios": {name: round(row.ratio(name), 3) for name in (NGINX, AIOHTTP)}}
            for row in self.rows
        ]
        return _rounded({"rows": rows, "idle_kb": self.idle_kb})


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return round(value, 3)
        case dict():
            return {name: _rounded(each) for name, each in value.items()}
        case list():
            return [_rounded(each) for each in value]
        case _:
            return value


def measure(rounds: int, seconds: int) -> Measured:
    """Run the origin and the proxies, and measure case by case; raises Missing where a program is not installed."""
    wrk = program("wrk")
    rows: list[Row] = []
    idle: Mapping[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, origin(Path(folder)) as before:
        for tls in Tls:
            with proxies(before, tls) as servers:
                for case in (case for case in CASES if case.tls is tls):
                    rows.append(_row(case, servers, rounds, seconds, wrk))
                    _say(rows[-1])
                if tls is Tls.NONE:
                    idle = {name: _idle_kb(server) for name, server in servers.items()}
                    _write(f"{'idle connection':<36}" + "".join(f"{idle[name]:9.1f} KB" for name in PROXIES))
    return Measured(rows, idle)


def _row(case: Case, servers: Mapping[str, Server], rounds: int, seconds: int, wrk: str) -> Row:
    found: dict[str, list[Cost]] = {name: [] for name in servers}
    for server in servers.values():
        _cost(case, server, _WARM_UP_S, wrk)
    for name, server in _alternating(servers, rounds):
        found[name].append(_cost(case, server, seconds, wrk))
    return Row(case.name, {name: _median(costs) for name, costs in found.items()})


def _alternating(servers: Mapping[str, Server], rounds: int) -> Iterator[tuple[str, Server]]:
    """Yield each server once in a round, beginning with another one each time."""
    pairs = list(servers.items())
    for number in range(rounds):
        first = number % len(pairs)
        yield from pairs[first:] + pairs[:first]


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.cpu_us for cost in costs),
        statistics.median(cost.rate for cost in costs),
        statistics.median(cost.p99_ms for cost in costs),
    )


def _cost(case: Case, server: Server, seconds: int, wrk: str) -> Cost:
    closing = () if case.keep_alive else ("-H", "Connection: close")
    url = server.url + target(case.size_kb)
    before = used_by(server.pid).cpu_seconds
    output = subprocess.run(
        [wrk, "-t", "1", "-c", str(CONNECTIONS), "-d", str(seconds), "--latency", *closing, url],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return read_wrk(output, used_by(server.pid).cpu_seconds - before)


_REQUESTS = re.compile(r"(\d+) requests in ")
_RATE = re.compile(r"Requests/sec: +([\d.]+)")
_P99 = re.compile(r"99% +([\d.]+)(us|ms|s)\b")
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
_FAILED = re.compile(r"(Non-2xx or 3xx responses: .*|Socket errors: .*)")


def read_wrk(output: str, cpu_seconds: float) -> Cost:
    """Read what wrk found; raises ValueError where requests failed."""
    requests, rate, p99 = _REQUESTS.search(output), _RATE.search(output), _P99.search(output)
    if failed := _FAILED.search(output):
        raise ValueError(f"requests failed: {failed[0]}")
    if not (requests and rate and p99 and int(requests[1])):
        raise ValueError(f"wrk says nothing of requests: {output}")
    return Cost(1e6 * cpu_seconds / int(requests[1]), float(rate[1]), float(p99[1]) * _MILLISECONDS[p99[2]])


def _idle_kb(server: Server) -> float:
    """Open connections that each had one response and are idle now, and return what each takes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asked = f"GET {target(1)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    before = used_by(server.pid).resident_bytes
    with ExitStack() as stack:
        for _ in range(IDLE_CONNECTIONS):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            connection.sendall(asked)
            received = b""
            while not received.endswith(b'"}'):
                piece = connection.recv(65536)
                if not piece:
                    raise ValueError(f"{server.url} closed a connection")
                received += piece
        return (used_by(server.pid).resident_bytes - before) / 1024 / IDLE_CONNECTIONS


def _say(row: Row) -> None:
    costs = "".join(f"{row.costs[name].cpu_us:9.1f} µs" for name in PROXIES)
    rates = "".join(f"{row.costs[name].rate:8.0f}/s" for name in PROXIES)
    p99 = "".join(f"{row.costs[name].p99_ms:7.2f} ms" for name in PROXIES)
    ratios = f"{row.ratio(NGINX):6.2f} {row.ratio(AIOHTTP):6.2f}"
    _write(f"{row.name:<36}{costs}  {ratios} {rates} {p99}")


def heading() -> str:
    """Return what stands above the lines that are printed."""
    names = "".join(f"{name:>12}" for name in PROXIES)
    return f"{'CPU of a request':<36}{names}  /nginx /aioh   requests/s{' ' * 20}p99"


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
