"""The amounts spent, by period, route and model."""

from proxy.bounds import SPEND_DAYS, SPEND_MODELS
from proxy.upstream.spending.caps import Cap, Period
from proxy.upstream.spending.ledger import Account, Ledger, Spent, added, recent, total
from tests.purses import NOON

DAY = "2026-11-29"
DAY_S = 86_400
SPENT = Spent(calls=1, tokens=10, usd=1.0, estimated_usd=0.5, saved_tokens=2, saved_usd=0.25)
TWICE = Spent(calls=2, tokens=20, usd=2.0, estimated_usd=1.0, saved_tokens=4, saved_usd=0.5)


def shares(ledger: Ledger, now: float = NOON) -> list[float]:
    """Of a cap of 10 dollars: per day of a, of b and of all, and per minute of a."""
    caps = [Cap(10, Period.DAY, "a"), Cap(10, Period.DAY, "b"), Cap(10, Period.DAY), Cap(10, Period.MINUTE, "a")]
    return [ledger.share(cap, now) for cap in caps]


def test_amounts_count_for_their_route_and_globally_in_their_period() -> None:
    ledger = Ledger()
    ledger.add(NOON, "a", "m", SPENT)
    ledger.add(NOON, "b", "n", TWICE)
    assert [0.1, 0.2, 0.3, 0.1] == shares(ledger)
    assert [0.1, 0.2, 0.3, 0.0] == shares(ledger, NOON + 60)
    assert [0.0, 0.0, 0.0, 0.0] == shares(ledger, NOON + DAY_S)
    assert {Account(DAY, "a", "m"): SPENT, Account(DAY, "b", "n"): TWICE} == ledger.days()


def test_reservations_count_until_released() -> None:
    ledger = Ledger()
    ledger.reserve("a", 4.0)
    assert [0.4, 0.0, 0.4, 0.4] == shares(ledger)
    assert 0.9 == ledger.share(Cap(10, Period.DAY), NOON, 5.0)
    ledger.reserve("a", -4.0)
    assert [0.0, 0.0, 0.0, 0.0] == shares(ledger)


def test_saving_loses_and_duplicates_nothing_even_on_failure() -> None:
    ledger = Ledger()
    ledger.add(NOON, "a", "m", SPENT)
    first = ledger.begin_save()
    ledger.add(NOON, "a", "m", SPENT)
    assert (0.2, True) == (shares(ledger)[0], ledger.is_changed)
    ledger.not_saved(NOON)
    assert 0.2 == shares(ledger)[0]
    second = ledger.begin_save()
    assert (first, added(first, first)) == ({**first}, second)
    assert not ledger.is_changed
    ledger.saved(added(second, {Account(DAY, "b", "m"): SPENT}))
    assert [0.2, 0.1, 0.3, 0.2] == shares(ledger)


def test_past_minutes_and_old_days_are_dropped() -> None:
    days = [Period.DAY.key(NOON - number * DAY_S) for number in range(SPEND_DAYS + 1)]
    minutes = [Period.MINUTE.key(NOON), Period.MINUTE.key(NOON - 60)]
    book = {Account(period, route, "m"): SPENT for period in (*days, *minutes) for route in ("a", "b")}
    assert {*days[:-1], minutes[0]} == {account.period for account in recent(book, NOON)}
    ledger = Ledger()
    ledger.saved(book)
    ledger.forget(NOON)
    assert set(days[:-1]) == {account.period for account in ledger.days()}


def test_a_clock_that_is_wrong_for_a_while_costs_no_days() -> None:
    """Otherwise today's caps could be spent twice."""
    ledger = Ledger()
    ledger.add(NOON, "a", "m", SPENT)
    ledger.saved(added(ledger.begin_save()))
    ledger.forget(NOON + 400 * DAY_S)
    ledger.add(NOON + 400 * DAY_S, "a", "m", SPENT)
    ledger.forget(NOON)
    assert 0.1 == shares(ledger)[0]


def test_models_beyond_the_limit_are_counted_together() -> None:
    """An index may name any model, so mappings must not be able to fill the memory."""
    ledger = Ledger()
    for number in range(SPEND_MODELS + 5):
        ledger.add(NOON, "a", f"m{number}", SPENT)
    assert (
        Spent(calls=5, tokens=50, usd=5.0, estimated_usd=2.5, saved_tokens=10, saved_usd=1.25)
        == ledger.days()[Account(DAY, "a", "other")]
    )
    assert SPEND_MODELS + 1 == len(ledger.days())


def test_amounts_add_up() -> None:
    assert TWICE == total((SPENT, SPENT))
