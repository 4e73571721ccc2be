"""A node is silent while it has requests in progress and nothing is heard from it, on any connection."""

from proxy.http1.pulse import SILENT_S, Pulse


def test_a_node_without_requests_is_not_silent() -> None:
    assert not Pulse().is_silent(1e9)


def test_a_node_is_silent_when_nothing_is_heard_for_a_while() -> None:
    pulse = Pulse()
    pulse.asked(10.0)
    assert [False, True] == [pulse.is_silent(10 + SILENT_S * share) for share in (0.9, 1.0)]


def test_it_is_not_while_other_connections_are_answered() -> None:
    pulse = Pulse()
    pulse.asked(0.0)
    for second in range(60):
        pulse.asked(second)
        pulse.heard(second + SILENT_S / 2)
        pulse.ended(second + SILENT_S / 2)
    assert not pulse.is_silent(59.9 * SILENT_S)


def test_it_stays_silent_after_its_requests_were_given_up_until_it_is_heard() -> None:
    pulse = Pulse()
    pulse.asked(0.0)
    pulse.ended(10.0)
    assert pulse.is_silent(11.0)
    pulse.heard(12.0)
    assert not pulse.is_silent(1e9)


def test_a_request_that_is_given_up_early_says_nothing_of_its_node() -> None:
    pulse = Pulse()
    pulse.asked(0.0)
    pulse.ended(SILENT_S / 2)
    assert not pulse.is_silent(1e9)


def test_a_silent_node_is_avoided_as_long_as_another_one_responds() -> None:
    cluster: list[Pulse] = []
    first, second = Pulse(cluster), Pulse(cluster)
    first.asked(0.0)
    second.asked(1.0)
    assert [True, False] == [first.is_avoided(now) for now in (1.0, 1.0 + SILENT_S)]


def test_a_single_node_is_never_avoided() -> None:
    pulse = Pulse()
    pulse.asked(0.0)
    assert not pulse.is_avoided(1e9)
