"""`rerank-proxy warm`, from its options to its exit code.

The searches take the usual way, so that it works with caches in memory and in Redis, and what is cached already costs
nothing: after an interruption, the same command resumes where it stopped.
"""

import argparse
import asyncio
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from proxy.bounds import BACKGROUND_BUDGET_S
from proxy.commands.console import overrides, report_failure
from proxy.commands.costs import usd
from proxy.commands.evaluation.addresses import address_of, concurrency_of
from proxy.commands.evaluation.client import Address, Sending, search
from proxy.commands.evaluation.errors import CannotEvaluate
from proxy.commands.evaluation.outcomes import Found
from proxy.commands.evaluation.template import read_template
from proxy.commands.loading.backfill import Pace
from proxy.commands.loading.progress import ShownProgress
from proxy.commands.loading.target import engine_advice
from proxy.commands.warming.dry_run import SAMPLED, DrySettings, forecast_of
from proxy.commands.warming.searches import FrequentSearches, read_searches
from proxy.errors import Refused, Unreachable, UpstreamError
from proxy.settings.config_file import load
from proxy.settings.credentials import authorization_in, authorization_of, cache_secrets_of
from proxy.settings.request_options import MEMBER, OPTIONS
from proxy.upstream.spending.meter import prices_of

UNREACHABLE, AT_CAP = 2, 3
FAILURES_IN_A_ROW = 10
"""It stops after so many failures in a row: the rest would fail likewise, each after its timeout."""


_USUAL_TIMEOUT_S = 60.0


class CannotWarm(CannotEvaluate):
    """Every other search would fail likewise, or would be paid without being counted."""


@dataclass(slots=True)
class CostCap:
    """What all searches together may cost, and what they cost so far."""

    max_usd: float | None = None
    spent_usd: float = 0.0
    largest_usd: float = 0.0
    """The cost of the most expensive search so far, which is expected of each search in flight."""
    in_flight: int = 0

    @property
    def is_unknown(self) -> bool:
        """Whether there is a maximum, and no search has cost anything yet."""
        return self.max_usd is not None and not self.largest_usd

    def allows(self) -> bool:
        """Whether another search fits, even if it costs as much as the most expensive one."""
        if self.max_usd is None:
            return True
        return self.spent_usd + (self.in_flight + 1) * self.largest_usd <= self.max_usd > self.spent_usd

    def note(self, found: Found) -> None:
        """Count what a search cost; raises CannotWarm."""
        if self.max_usd is None or found.outcome is None:
            return
        if found.outcome.reason == "shadow":
            raise CannotWarm(
                "--max-cost: the route has `mode: shadow`, and nothing reports what its searches cost. Use `mode: "
                "opt_in`, or a cap in `spend`"
            )
        if found.cost_usd is None and found.outcome.kind != "bypassed":
            raise CannotWarm(
                "--max-cost: the proxy does not report what a search cost. Use a proxy of this version, and no other "
                "proxy that removes the header X-Rerank-Cost"
            )
        cost = found.cost_usd or 0.0
        if found.outcome.kind == "degraded":  # a call that was cut off may be charged after the response
            cost = max(cost, self.largest_usd)
        self.spent_usd += cost
        self.largest_usd = max(self.largest_usd, cost)

    def note_unanswered(self, error: UpstreamError) -> None:
        """Count a search without a response, which may be charged all the same, unless it was rejected."""
        if not isinstance(error, Refused):
            self.spent_usd += self.largest_usd


@dataclass(slots=True)
class Warmed:
    """The results so far."""

    cost: CostCap
    outcomes: Counter[str] = field(default_factory=Counter)
    first_error: str = ""
    failed_in_a_row: int = 0
    at_cap: bool = False
    at_max_cost: bool = False

    @property
    def sent(self) -> int:
        return self.outcomes.total()

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {outcome}" for outcome, count in self.outcomes.most_common())
        cost = "" if self.cost.max_usd is None else f", {usd(self.cost.spent_usd)} of {usd(self.cost.max_usd)}"
        return f"{_counted(self.sent)}: {counts or 'none'}{cost}"

    @property
    def is_over(self) -> bool:
        """Whether no other search is sent, whatever it costs."""
        return self.at_cap or self.failed_in_a_row >= FAILURES_IN_A_ROW


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    try:
        searches = _searches(options)
    except CannotEvaluate as error:
        return report_failure(str(error))
    if options.dry_run:
        return _dry_run(searches, options, environment)
    address = address_of("proxy", options, environment)
    sending = Sending(f"/{options.index}/_search", None, concurrency_of(options), _timeout(options))
    warmed = Warmed(CostCap(options.max_cost))
    try:
        asyncio.run(_warm(address, sending, searches, options, warmed))
    except Unreachable as error:
        report_failure(f"{options.proxy} cannot be reached: {error.detail}. Start the proxy, or correct --proxy")
        return UNREACHABLE
    except CannotWarm as error:
        return report_failure(str(error))
    finally:
        sys.stderr.write(f"{warmed}\n")
    return _concluded(warmed)


def _searches(options: argparse.Namespace) -> FrequentSearches:
    template = read_template(options.template.read_bytes(), str(options.template)) if options.template else None
    with options.file.open("rb") as file:
        return read_searches(file, template, _options_of_each(options), options.top)


def _dry_run(searches: FrequentSearches, options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    config = load(options.config, {**environment, **overrides(options)})
    discovery = authorization_of(config, environment)
    variable = options.authorization_env
    own = authorization_in(variable, "--authorization-env", environment) if variable else discovery
    settings = DrySettings(config, cache_secrets_of(config, environment), own, discovery)
    try:
        with ShownProgress(options.index, min(len(searches), SAMPLED), counted=_counted) as shown:
            forecast = asyncio.run(forecast_of(settings, options.index, searches, Pace(options.rate), shown))
    except UpstreamError as error:
        report_failure(engine_advice(error))
        return UNREACHABLE
    sys.stderr.writelines(f"{line}\n" for line in forecast.lines(prices_of(config)))
    if forecast.is_useful:
        return 0
    return report_failure(
        "none of these searches would be reranked. Check --index, the routes, and one search: `check --search`"
    )


def _counted(count: int) -> str:
    return "1 search" if count == 1 else f"{count:,} searches"


def _options_of_each(options: argparse.Namespace) -> Mapping[str, Any]:
    """Return the per-request options of each search."""
    cost = {} if options.max_cost is None else {"cost": True}
    return cost | ({"background": True} if options.background else {})


def _timeout(options: argparse.Namespace) -> float:
    """Return the seconds after which a search without a response is given up."""
    default = BACKGROUND_BUDGET_S + _USUAL_TIMEOUT_S if options.background else _USUAL_TIMEOUT_S
    return default if options.timeout is None else float(options.timeout)


def _concluded(warmed: Warmed) -> int:
    kept = "What was cached is kept: run the same command again"
    if warmed.at_cap:
        report_failure(f"a cap on spend is reached. {kept} later to continue")
        return AT_CAP
    if warmed.at_max_cost:
        report_failure(f"--max-cost: another search might exceed it. {kept} to continue")
        return AT_CAP
    if not warmed.first_error:
        return 0
    if warmed.failed_in_a_row >= FAILURES_IN_A_ROW:
        said = f"{warmed.failed_in_a_row} searches in a row failed, so the run stopped; the first error was"
    else:
        said = "some searches failed, the first one with"
    return report_failure(f"{said}: {warmed.first_error}. {_ADVICE}")


_ADVICE = "Check --index, --timeout, and that --proxy is the proxy and not the engine"


async def _warm(
    address: Address, sending: Sending, searches: FrequentSearches, options: argparse.Namespace, warmed: Warmed
) -> None:
    """Send searches until all were sent or a cap is reached; raises Unreachable and CannotWarm."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session:
        with ShownProgress(options.index, len(searches), counted=_counted) as shown:
            sender = _Sender(session, address, sending, warmed, Pace(options.rate), shown)
            remaining = iter(searches)
            await sender.begin(remaining)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(sending.concurrency):
                        group.create_task(sender.work(remaining))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None
            warmed.at_max_cost = not warmed.is_over and next(remaining, None) is not None


@dataclass(frozen=True, slots=True)
class _Sender:
    """Sends the searches, and notes their results."""

    session: aiohttp.ClientSession
    address: Address
    sending: Sending
    warmed: Warmed
    pace: Pace
    shown: ShownProgress

    async def begin(self, remaining: Iterator[bytes]) -> None:
        """Send the first search alone, since an error may concern all; under a maximum, until one has cost something.

        What is cached costs nothing, and so does not show what other searches cost.
        """
        await self.send(next(remaining))
        cost = self.warmed.cost
        while cost.is_unknown and not self.warmed.is_over and (body := next(remaining, None)) is not None:
            await self.send(body)

    async def work(self, remaining: Iterator[bytes]) -> None:
        """Send searches of the shared iterator, until there are none or it is over.

        Near --max-cost, the workers end one by one, so that the last one decides alone.
        """
        while not self.warmed.is_over and self.warmed.cost.allows() and (body := next(remaining, None)) is not None:
            await self.send(body)

    async def send(self, body: bytes) -> None:
        warmed = self.warmed
        warmed.cost.in_flight += 1
        try:
            await self.pace.spend(1)
            found = await search(self.session, self.address, self.sending, body)
            warmed.cost.note(found)
        except Unreachable:
            raise
        except UpstreamError as error:
            self._failed(error)
        else:
            warmed.outcomes[str(found.outcome or "not a search of a route")] += 1
            warmed.at_cap |= found.outcome is not None and found.outcome.reason == "spend_cap"
            warmed.failed_in_a_row = 0
        finally:
            warmed.cost.in_flight -= 1
        self.shown.show(warmed.sent, warmed.sent)

    def _failed(self, error: UpstreamError) -> None:
        if isinstance(error, Refused) and (option := _REJECTED.search(error.body)):
            name = option[1].decode()
            raise CannotWarm(f"the proxy rejects the option `{name}`: add it to `steering` in its settings, and reload")
        warmed = self.warmed
        warmed.outcomes["failed"] += 1
        warmed.failed_in_a_row += 1
        warmed.first_error = warmed.first_error or error.detail
        warmed.cost.note_unanswered(error)


_REJECTED = re.compile(rb"\[ext\." + MEMBER.encode() + rb"\.(" + "|".join(OPTIONS).encode() + rb")\] ")
"""In the message of an error that a per-request option is not allowed, or not known."""
