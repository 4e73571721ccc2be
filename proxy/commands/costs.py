"""`rerank-proxy costs`: what the models cost, from the state file or from a running proxy."""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import aiohttp
import msgspec

from proxy.bounds import SPEND_FILE_BYTES
from proxy.commands.console import overrides, print_json, report_failure, settings_or_defaults
from proxy.errors import connection_error
from proxy.settings.config import Config
from proxy.settings.config_file import load
from proxy.settings.contradictions import url_problems
from proxy.settings.credentials import admin_token_of
from proxy.upstream.spending.meter import Meter, Spending
from proxy.upstream.spending.report import CapState, Costs, DayCosts
from proxy.upstream.spending.state import Corrupt, StateFile

UNREACHABLE = 2
_TIMEOUT_S = 10.0
_EXAMPLE = "http://127.0.0.1:9291"
_ADMIN_TOKEN = "set the variable that `admin.token_env` names"  # noqa: S105  advice, no token


class NoCosts(Exception):
    """There is no report; the message says why, and what to do."""

    exit_code = 1


class ProxyUnreachable(NoCosts):
    """The admin port does not answer."""

    exit_code = UNREACHABLE


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    if options.admin is None:
        config = load(options.config, {**environment, **overrides(options)})
    else:
        config = settings_or_defaults(options, environment)
    try:
        costs = _costs(config, options.admin, environment)
    except NoCosts as error:
        report_failure(str(error))
        return error.exit_code
    if options.json:
        print_json(costs)
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines(costs, options.days))
    return 0


def _costs(config: Config, admin: str | None, environment: Mapping[str, str]) -> Costs:
    """Read the state file if the settings name one, otherwise ask the running proxy; raises NoCosts."""
    if admin is None and config.spend.file:
        return _of_file(config, StateFile(Path(config.spend.file)))
    for _, problem in url_problems("--admin", admin or _EXAMPLE, example=_EXAMPLE, credentials=_ADMIN_TOKEN):
        raise NoCosts(f"--admin: {problem}")
    url = admin or f"http://{config.admin.host}:{config.admin.port}"
    return asyncio.run(_of_proxy(url.rstrip("/") + "/costs", admin_token_of(config, environment)))


def _of_file(config: Config, file: StateFile) -> Costs:
    meter = Meter()
    try:
        meter.ledger.saved(file.read())
    except Corrupt as error:
        problem = f"{file.path} cannot be read: {error}. Restore it from a backup, or rename it to count from 0"
        raise NoCosts(f"{problem}, as `serve` does when it starts") from None
    return Spending(config, meter).costs()


async def _of_proxy(url: str, token: str | None) -> Costs:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    advice = "Start the proxy, name its admin port with --admin URL, or set `spend.file`"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            content = await response.content.read(SPEND_FILE_BYTES)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ProxyUnreachable(
            f"{url} cannot be reached: {connection_error(error) or 'no response'}. {advice}"
        ) from None
    if response.status == 401:
        raise NoCosts(f"{url} rejects the admin token: {_ADMIN_TOKEN}")
    try:
        return msgspec.json.decode(content, type=Costs)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NoCosts(f"{url} is not an admin port of this proxy (status {response.status}). {advice}") from None


# -- text

_HEADINGS = ("day", "route", "model", "calls", "tokens", "cost", "estimated", "saved")
_TEXT_COLUMNS = 3


def lines(costs: Costs, days: int) -> Iterator[str]:
    """Describe the costs of the last days, of the month, and the caps."""
    shown = sorted({row.day for row in costs.days})[-days:]
    rows = [row for row in costs.days if row.day in shown]
    if rows:
        yield from _table([_HEADINGS, *map(_cells, rows), _total(rows)])
    else:
        yield "no model was called yet"
    month = costs.month
    yield ""
    yield (
        f"{month.month}: {usd(month.usd)} so far, {usd(month.forecast_usd)} by its end at the rate of the last 7 days; "
        f"the caches saved {usd(month.saved_usd)}"
    )
    yield from map(_cap, costs.caps)
    for model in costs.without_price:
        yield f"{model}: the provider reports no cost, and no price is known. Set it in `spend.prices`"


def _cells(row: DayCosts) -> Sequence[str]:
    money = (usd(row.usd), usd(row.estimated_usd), usd(row.saved_usd))
    return (row.day, row.route, row.model, f"{row.calls:,}", f"{row.tokens:,}", *money)


def _total(rows: Sequence[DayCosts]) -> Sequence[str]:
    calls, tokens = sum(row.calls for row in rows), sum(row.tokens for row in rows)
    sums = (sum(getattr(row, name) for row in rows) for name in ("usd", "estimated_usd", "saved_usd"))
    return ("total", "", "", f"{calls:,}", f"{tokens:,}", *map(usd, sums))


def _cap(cap: CapState) -> str:
    return f"cap of {cap.route or 'all routes'}: {cap.share:.0%} of {usd(cap.usd)} per {cap.period}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        aligned = (
            cell.ljust(width) if number < _TEXT_COLUMNS else cell.rjust(width)
            for number, (cell, width) in enumerate(cells)
        )
        yield "  ".join(aligned).rstrip()


def usd(amount: float) -> str:
    """Write an amount with two digits at least, and as many as a small one needs."""
    if amount and amount < 0.1:
        return f"${amount:.2g}" if amount >= 0.0001 else f"${amount:.1e}"
    return f"${amount:,.2f}"
