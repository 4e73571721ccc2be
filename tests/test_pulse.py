"""A node is silent while it has requests in progress and nothing is heard from it, on any connection."""

from proxy.http1.pulse import SILENT_S, Pulse


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_node_without_requests_is_not_silent() -> None:
    clock = Clock()
    pulse = Pulse(now=clock)
    clock.now = 1e9
    assert not pulse.is_silent


def test_a_node_is_silent_when_nothing_is_heard_for_a_while() -> None:
    clock = Clock()
    pulse = Pulse(now=clock)
    pulse.asked()
    clock.now = 0.9 * SILENT_S
    assert not pulse.is_silent
    clock.now = SILENT_S
    assert pulse.is_silent


def test_it_is_not_while_other_connections_are_answered() -> None:
    clock = Clock()
    pulse = Pulse(now=clock)
    pulse.asked()
    for _ in range(60):
        pulse.asked()
        clock.now += SILENT_S / 2
        pulse.heard()
        pulse.ended()
        clock.now += SILENT_S / 2 * 0.9
        assert not pulse.is_silent


def test_it_stays_silent_after_its_requests_were_given_up_until_it_is_heard() -> None:
    clock = Clock()
    pulse = Pulse(now=clock)
    pulse.asked()
    clock.now = SILENT_S
    pulse.ended()
    assert pulse.is_silent
    pulse.heard()
    clock.now = 1e9
    assert not pulse.is_silent


def test_a_request_that_is_given_up_early_says_nothing_of_its_node() -> None:
    clock = Clock()
    pulse = Pulse(now=clock)
    pulse.asked()
    clock.now = SILENT_S / 2
    pulse.ended()
    clock.now = 1e9
    assert not pulse.is_silent


def test_a_silent_node_is_avoided_as_long_as_another_one_responds() -> None:
    clock, cluster = Clock(), list[Pulse]()
    first, second = Pulse(cluster, clock), Pulse(cluster, clock)
    first.asked()
    clock.now = SILENT_S
    second.asked()
    assert first.is_avoided
    clock.now += SILENT_S
    assert not first.is_avoided


def test_a_single_node_is_never_avoided() -> None:
    clock = Clock()
    pulse = Pulse(now=clock)
    pulse.asked()
    clock.now = 1e9
    assert not pulse.is_avoided
