"""`rerank-proxy warm`: sends searches through a running proxy, so that its caches have their vectors and scores.

The searches take the usual way, so that it works with caches in memory and in Redis, and what is cached already costs
nothing: after an interruption, the same command resumes where it stopped.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from proxy.bounds import JUDGMENTS_BYTES
from proxy.commands.console import failed
from proxy.commands.evaluation.client import Address, Sending, search
from proxy.commands.evaluation.command import address_of, concurrency_of
from proxy.commands.evaluation.errors import CannotEvaluate
from proxy.commands.evaluation.template import Template, read_template
from proxy.commands.loading.backfill import Pace
from proxy.commands.loading.progress import ShownProgress
from proxy.errors import Unreachable, UpstreamError

UNREACHABLE, AT_CAP = 2, 3
_PATIENT_MS = 60_000
"""The budget of each search: nobody waits for it."""


@dataclass(slots=True)
class Warmed:
    """The results so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    first_error: str = ""
    at_cap: bool = False

    @property
    def sent(self) -> int:
        return self.outcomes.total()

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {outcome}" for outcome, count in self.outcomes.most_common())
        return f"{self.sent:,} searches: {counts or 'none'}"


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    try:
        with options.file.open("rb") as file:
            content = file.read(JUDGMENTS_BYTES + 1)
        template = read_template(options.template.read_bytes(), str(options.template)) if options.template else None
        bodies = bodies_of(content, template)[: options.top]
    except CannotEvaluate as error:
        return failed(str(error))
    address = address_of("proxy", options, environment)
    sending = Sending(f"/{options.index}/_search", None, concurrency_of(options), options.timeout)
    warmed = Warmed()
    try:
        asyncio.run(_warm(address, sending, bodies, options, warmed))
    except Unreachable as error:
        failed(f"{options.proxy} cannot be reached: {error.detail}. Start the proxy, or correct --proxy")
        return UNREACHABLE
    finally:
        sys.stderr.write(f"{warmed}\n")
    return _concluded(warmed)


def _concluded(warmed: Warmed) -> int:
    if warmed.at_cap:
        failed("a cap on spend is reached. What was cached is kept: run the same command again later to continue")
        return AT_CAP
    if warmed.first_error:
        advice = "check --index, and that --proxy is the proxy and not the engine"
        return failed(f"some searches failed, the first one with: {warmed.first_error}. {advice}")
    return 0


async def _warm(
    address: Address, sending: Sending, bodies: Sequence[bytes], options: argparse.Namespace, warmed: Warmed
) -> None:
    """Send searches until all were sent or a cap is reached; raises Unreachable."""
    pace, remaining = Pace(options.rate), iter(bodies)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session:
        with ShownProgress(options.index, len(bodies), counted=lambda count: f"{count:,} searches") as shown:

            async def work() -> None:
                for body in remaining:
                    await pace.spend(1)
                    await _send(session, address, sending, body, warmed)
                    shown.show(warmed.sent, warmed.sent)
                    if warmed.at_cap:
                        return

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(sending.concurrency):
                        group.create_task(work())
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None


async def _send(
    session: aiohttp.ClientSession, address: Address, sending: Sending, body: bytes, warmed: Warmed
) -> None:
    try:
        outcome = (await search(session, address, sending, body)).outcome
    except Unreachable:
        raise
    except UpstreamError as error:
        warmed.outcomes["failed"] += 1
        warmed.first_error = warmed.first_error or f"{error.detail}"
        return
    warmed.outcomes[str(outcome or "not a search of a route")] += 1
    warmed.at_cap |= outcome is not None and outcome.reason == "spend_cap"


# -- what is sent


def bodies_of(content: bytes, template: Template | None) -> Sequence[bytes]:
    """Return the bodies of the searches, the most frequent ones first; raises CannotEvaluate.

    Each line is a search body, a line of the proxy's JSON log, or a query text.
    """
    if len(content) > JUDGMENTS_BYTES:
        raise CannotEvaluate(f"the file has more than {JUDGMENTS_BYTES:,} bytes: split it")
    found = Counter(_bodies(content, template))
    if not found:
        raise CannotEvaluate(
            "the file has no search: write query texts or search bodies, one per line, or use a log that was written "
            "with `log.query_text: true`"
        )
    return [body for body, _ in found.most_common()]


def _bodies(content: bytes, template: Template | None) -> Iterator[bytes]:
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        parsed = _parsed(line, number)
        if isinstance(parsed, dict) and not _is_log(parsed):
            yield _patient(parsed)
            continue
        text = parsed.get("query") if isinstance(parsed, dict) else parsed
        if not isinstance(text, str) or not text:
            continue
        if template is None:
            raise CannotEvaluate(f"line {number} is a query text: name the search body for it with --template")
        yield _patient(msgspec.json.decode(template.fill(text)))


def _parsed(line: bytes, number: int) -> dict[str, Any] | str:
    """Return the JSON object of a line, or its text; raises CannotEvaluate."""
    try:
        text = line.decode().strip()
    except UnicodeDecodeError:
        raise CannotEvaluate(f"line {number} is not UTF-8: correct it, or remove it") from None
    if not text.startswith("{"):
        return text
    try:
        return dict(msgspec.json.decode(line, type=dict[str, Any]))
    except (msgspec.DecodeError, RecursionError) as error:
        raise CannotEvaluate(
            f"line {number} begins like JSON, but is malformed: {error}. Correct it, or remove it"
        ) from None


def _is_log(line: Mapping[str, Any]) -> bool:
    return "event.action" in line or "log.level" in line


def _patient(body: dict[str, Any]) -> bytes:
    """Give a search a long budget: nobody waits for its response."""
    ext = body.get("ext")
    own = {"rerank_proxy": {"budget_ms": _PATIENT_MS}}
    return msgspec.json.encode(body | {"ext": (ext if isinstance(ext, dict) else {}) | own})
