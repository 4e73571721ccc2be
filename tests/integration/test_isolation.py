"""Attacks on the framing of requests, before real engines: every caller gets their own response or a closed connection.

Each attack is followed by other callers, on connections of their own and on the attacker's, as behind a balancer that
shares its connections. Minutes of it in every run of the tests, the same each time; an hour of something else with
`HYPOTHESIS_PROFILE=deep`.
"""

import base64
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from demo.engine import Start, running_all
from demo.engine_layout import USER
from demo.engines import DEFAULT, named
from tests.integration.attacks import Attack, Names, Oddity, oddities, singles
from tests.integration.commands import serving
from tests.integration.engines import ELASTICSEARCH, EVERYWHERE, Address, RealEngine, secure_engines
from tests.isolation import (
    Caller,
    assert_nothing_of,
    assert_own_or_closed,
    assert_served,
    connected,
    everything_left,
    response_to,
    sent,
)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(2 * 3600)]
shared = settings(
    max_examples=5 * settings().max_examples,
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase is not Phase.explain],
    print_blob=True,
)

_SOON_S = 1.0
"""How long the attacker waits for a response, which need not come."""
_AT_ONCE_S = 0.1
"""How long for the response to a request that is not sent to its end."""
_PASSWORD = "a-password-of-these-tests"
_NAMES = ("alice", "bob", "carol")


@dataclass(frozen=True, slots=True)
class Target:
    """A proxy in front of an engine, an attacker, and other callers."""

    port: int
    names: Names
    callers: Sequence[Caller]


def _basic(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{_PASSWORD}".encode()).decode()


def _load(engine: Address, index: str, names: Sequence[str]) -> None:
    """Give each of these an index with a document of their own."""
    for name in names:
        engine.do("PUT", f"/{index}-{name}", {"settings": {"number_of_shards": 1, "number_of_replicas": 0}})
        engine.do("PUT", f"/{index}-{name}/_doc/{name}?refresh=true", {"mark": f"{index}-{name}-mark"})


def _callers(index: str, users: Mapping[str, str], more: Mapping[str, str]) -> list[Caller]:
    """Return callers who read their own documents, and `more` targets that show who is asking."""
    return [
        Caller(
            name,
            {f"/{index}-{name}/_doc/{name}": f"{index}-{name}-mark".encode()}
            | {target: shown.format(user).encode() for target, shown in more.items()},
            {"Authorization": _basic(user)},
        )
        for name, user in users.items()
    ]


@pytest.fixture
async def target(real_engine: RealEngine, tmp_path: Path) -> AsyncIterator[Target]:
    """An engine without security, where callers differ by what they ask for."""
    engine, index = Address(real_engine.url), f"iso-{uuid4().hex[:10]}"
    everybody = (*_NAMES, "mallory")
    _load(engine, index, everybody)
    names = Names(f"{index}-mallory", _basic("mallory"), "alice")
    callers = _callers(index, {name: name for name in _NAMES}, {})
    async with serving(tmp_path, {"engine": {"url": engine.url}}) as (_, url):
        yield Target(urlsplit(url).port or 0, names, callers)
    engine.do("DELETE", "/" + ",".join(f"{index}-{name}" for name in everybody))


@pytest.fixture(scope="module")
def secure(real_engine: RealEngine) -> Iterator[Address]:
    """The same engine with security as its superuser sees it: the one that was started for all tests, or one more."""
    if real_engine.name != DEFAULT.name:
        with running_all([Start(named(real_engine.name), security=True)]) as (one,):
            yield Address(one.url, None, USER, one.password or "")
        return
    found = secure_engines()
    if not found:
        pytest.fail(
            "REAL_ENGINE_SECURE_URL is not set: run `make test`, or "
            "`python -m demo.engine --tls exec -- pytest -m engine`",
            pytrace=False,
        )
    yield found[0]


@pytest.fixture(scope="module")
def users(secure: Address) -> Iterator[str]:
    """The beginning of the names of users who may each read one index."""
    index = f"iso-{uuid4().hex[:10]}"
    everybody = (*_NAMES, "mallory")
    _load(secure, index, everybody)
    for name in everybody:
        rights = {"indices": [{"names": [f"{index}-{name}"], "privileges": ["read"]}]}
        secure.do("PUT", f"/_security/role/{index}-{name}", rights)
        secure.do("PUT", f"/_security/user/{index}-{name}", {"password": _PASSWORD, "roles": [f"{index}-{name}"]})
    yield index
    secure.do("DELETE", "/" + ",".join(f"{index}-{name}" for name in everybody))
    for name in everybody:
        secure.do("DELETE", f"/_security/user/{index}-{name}")
        secure.do("DELETE", f"/_security/role/{index}-{name}")


@pytest.fixture
async def secure_target(secure: Address, users: str, tmp_path: Path) -> AsyncIterator[Target]:
    """An engine with security, where callers differ by their credentials, too; one of them is its superuser."""
    names = Names(f"{users}-mallory", _basic(f"{users}-mallory"), f"{users}-alice")
    who = {"/_security/_authenticate": '"username":"{}"'}
    callers = _callers(users, {name: f"{users}-{name}" for name in _NAMES}, who)
    callers.append(_superuser(secure, users))
    engine: dict[str, Any] = {"url": secure.url} | ({"ca_file": secure.ca} if secure.ca else {})
    async with serving(tmp_path, {"engine": engine}) as (_, url):
        yield Target(urlsplit(url).port or 0, names, callers)


def _superuser(secure: Address, index: str) -> Caller:
    credentials = base64.b64encode(f"{secure.user}:{secure.password}".encode()).decode()
    targets = {"/_security/_authenticate": b'"superuser"', f"/{index}-alice/_count": b'"count":1'}
    return Caller("superuser", targets, {"Authorization": f"Basic {credentials}"})


async def assert_isolated(target: Target, attack: Attack) -> None:
    """Serve others amid an attack and after it, on connections of their own and on the attacker's."""
    others = itertools.cycle(target.callers)
    async with connected(target.port) as attacker:
        for part in attack.parts:
            await sent(attacker, part)
            await assert_served(target.port, [next(others)])
        for method in attack.methods:
            response = await response_to(attacker, method, _SOON_S if attack.in_step else _AT_ONCE_S)
            if response is None:
                break
            await assert_served(target.port, [next(others)])
        else:
            if attack.in_step:
                await assert_own_or_closed(attacker, target.callers)
        assert_nothing_of(target.callers, await everything_left(attacker, _SOON_S))
    await assert_served(target.port, target.callers, times=1)


async def _assert_isolated_by_each(target: Target, attacks: Mapping[str, Oddity]) -> None:
    failing: list[str] = []
    for name, oddity in attacks.items():
        try:
            await assert_isolated(target, oddity.attack(target.names))
        except AssertionError as error:
            failing.append(f"{name}: {error}")
            await _recover(target)
    assert not failing, "\n".join([f"{len(failing)} of {len(attacks)}:", *failing])


async def _recover(target: Target) -> None:
    """Use up what an attack has left behind, so that it is not taken for the next one's."""
    for _ in range(20):
        with suppress(AssertionError):
            await assert_served(target.port, target.callers)


@EVERYWHERE
async def test_no_framing_oddity_reaches_another_caller(target: Target) -> None:
    """Each oddity of framing or expectation by itself."""
    await _assert_isolated_by_each(target, singles())


@EVERYWHERE
@given(oddity=oddities)
@shared
async def test_no_combination_of_framing_oddities_reaches_another_caller(*, oddity: Oddity, target: Target) -> None:
    """Any combination."""
    await assert_isolated(target, oddity.attack(target.names))


@ELASTICSEARCH
async def test_with_security_no_framing_oddity_reaches_another_caller(secure_target: Target) -> None:
    """Nobody gets another's response or rights."""
    await _assert_isolated_by_each(secure_target, singles())


@ELASTICSEARCH
@given(oddity=oddities)
@shared
async def test_with_security_no_combination_of_oddities_reaches_another_caller(
    *, oddity: Oddity, secure_target: Target
) -> None:
    """Any combination."""
    await assert_isolated(secure_target, oddity.attack(secure_target.names))
