"""What is watched while a soak runs, and what must hold at its end."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from tests.bench.processes import used_by
from tests.soak.load import Tally

_GROWTH_BYTES = 12 * 2**20
"""Memory may differ by this between the second and the last third: an allocator keeps what was free."""
_DESCRIPTORS = 16
"""So many may be open at the end beyond those before the first request: kept connections to engine and models."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The proxy at one moment."""

    second: float
    resident_bytes: int
    descriptors: int


def sampled(pid: int, second: float) -> Sample:
    return Sample(second, used_by(pid).resident_bytes, len(list(Path(f"/proc/{pid}/fd").iterdir())))


def requests_counted(admin: str) -> Mapping[str, int]:
    """Read the proxy's counter of requests, by ending."""
    counted: dict[str, int] = {}
    for family in text_string_to_metric_families(_read(admin, "/metrics")):
        for sample in family.samples:
            if sample.name == "rerank_proxy_requests_total":
                ended = sample.labels["ended"]
                counted[ended] = counted.get(ended, 0) + int(sample.value)
    return counted


def _read(url: str, path: str) -> str:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def errors_logged(log: Path) -> Iterator[str]:
    """Yield the lines of the log at error level, and those that are not JSON."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                level = json.loads(line).get("log.level")
            except ValueError:
                level = "error"
            if level in {"error", "critical"}:
                yield line


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was observed."""

    tally: Tally
    samples: Sequence[Sample]
    """While it ran, in order."""
    before: Sample
    after: Sample
    """Without load."""
    counted: Mapping[str, int]
    errors: Sequence[str]
    exit_code: int

    def problems(self) -> Iterator[str]:
        """Yield what should not have been, each in one line."""
        yield from (f"{count} times {what}" for what, count in self.tally.wrong.items())
        if (counted := sum(self.counted.values())) != self.tally.sent:
            yield f"{self.tally.sent} requests were sent, and {counted} counted: {dict(self.counted)}"
        yield from (f"in the log: {line.strip()[:300]}" for line in self.errors[:5])
        third = len(self.samples) // 3
        middle, last = (_median_bytes(part) for part in (self.samples[third : 2 * third], self.samples[2 * third :]))
        if last > middle + _GROWTH_BYTES:
            yield f"memory grew from {_mb(middle)} to {_mb(last)}"
        if self.after.descriptors > self.before.descriptors + _DESCRIPTORS:
            yield f"descriptors: {self.before.descriptors} before, {self.after.descriptors} after"
        if self.exit_code != 0:
            yield f"the proxy ended with {self.exit_code}"

    def lines(self) -> Iterator[str]:
        """Yield the numbers."""
        tally = self.tally
        yield f"requests: {tally.sent} sent, counted {dict(self.counted)}"
        yield f"statuses: { {f'{kind} {status}': count for (kind, status), count in sorted(tally.statuses.items())} }"
        yield f"outcomes: {dict(tally.outcomes.most_common(20))}"
        every = max(1, len(self.samples) // 12)
        shown = (self.before, *self.samples[::every], self.after)
        yield "memory: " + ", ".join(f"{each.second:.0f} s {_mb(each.resident_bytes)}" for each in shown)
        yield "descriptors: " + ", ".join(f"{each.second:.0f} s {each.descriptors}" for each in shown)


def _median_bytes(samples: Sequence[Sample]) -> float:
    return statistics.median([sample.resident_bytes for sample in samples] or [0])


def _mb(size: float) -> str:
    return f"{size / 2**20:.1f} MB"
