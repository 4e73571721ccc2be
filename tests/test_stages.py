"""What the steps of a search share: a budget that breaks off."""

import asyncio
import math

import pytest

from proxy.errors import TimedOut
from proxy.ranking.stages import RESERVE_S, Budget, OwnSearches


async def waits_under(budget: Budget) -> str:
    try:
        async with budget.limit():
            await asyncio.Event().wait()
    except TimedOut as error:
        return error.reason
    return "done"


@pytest.mark.parametrize("seconds", [0.0, 0.01])
async def test_a_spent_budget_cancels_the_awaited_call(seconds: float) -> None:
    budget = Budget(seconds)
    budget.begin()
    assert "timeout" == await waits_under(budget)


async def test_a_budget_starts_with_the_response_to_the_clients_search() -> None:
    """A stage that began before is cancelled, too, when the budget ends."""
    budget = Budget(0.01)
    waiting = asyncio.ensure_future(waits_under(budget))
    await asyncio.wait({waiting}, timeout=0.05)
    assert not waiting.done()
    budget.begin()
    assert "timeout" == await waiting


async def test_a_shared_budget_starts_with_the_last_response() -> None:
    own = OwnSearches(2)
    one, other = Budget(0.01, own, 0), Budget(0.01, own, 1)
    waiting = asyncio.ensure_future(waits_under(one))
    one.begin()
    one.begin()
    await asyncio.wait({waiting}, timeout=0.05)
    assert not waiting.done()
    other.begin()
    assert ("timeout", "timeout") == (await waiting, await waits_under(other))


async def test_a_budget_does_not_cancel_calls_that_finish_in_time() -> None:
    budget = Budget(60)
    budget.begin()
    async with budget.limit():
        await asyncio.sleep(0)


async def test_a_timeout_of_the_awaited_call_is_not_the_budgets() -> None:
    budget = Budget(60)
    with pytest.raises(ZeroDivisionError):
        async with budget.limit():
            raise ZeroDivisionError


async def test_without_a_budget_there_is_no_limit() -> None:
    budget = Budget()
    budget.begin()
    async with budget.limit():
        await asyncio.sleep(0)


@pytest.mark.parametrize(("seconds", "for_stages"), [(1.5, 1.5 - RESERVE_S), (0.1, 0.09), (0.0, 0.0), (None, math.inf)])
async def test_a_part_of_the_budget_is_reserved_for_the_response(seconds: float | None, for_stages: float) -> None:
    budget = Budget(seconds)
    assert pytest.approx(for_stages) == budget.remaining()
    budget.begin()
    assert budget.remaining() <= for_stages + 1e-9  # a difference of the loop's time is not exact


async def test_a_spent_budget_starts_nothing() -> None:
    budget = Budget(0.0)
    budget.begin()
    with pytest.raises(TimedOut, match="budget: no response within 0 ms"):
        async with budget.limit():
            pytest.fail("begun")


async def test_an_early_stage_leaves_a_share_of_the_budget_to_later_ones() -> None:
    own = OwnSearches()
    whole = Budget(60.0, own)
    early = whole.less(59.99)
    whole.begin()
    assert "timeout" == await waits_under(early)
    assert whole.remaining() > 50
    assert (0.0, None) == (whole.less(61.0).seconds, Budget().less(1.0).seconds)
