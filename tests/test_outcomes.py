"""The outcomes on real engines are compared with those expected, and written only where that is asked for."""

import pytest

from tests.integration.outcomes import Outcomes

EXPECTED = {"`_search`": {"e8": "reranked", "e9": "reranked"}}


def test_an_expected_outcome_passes() -> None:
    Outcomes(EXPECTED).record("`_search`", "e8", "reranked")


@pytest.mark.parametrize(
    ("way", "engine", "outcome"),
    [
        ("`_search`", "e8", "bypassed;reason=sort"),
        ("`_search`", "e8", "refused by the engine"),
        ("`_search`", "os", "reranked"),
        ("`_msearch`", "e8", "reranked"),
    ],
)
def test_an_unexpected_outcome_fails(way: str, engine: str, outcome: str) -> None:
    with pytest.raises(AssertionError, match=f"{way} on {engine}: {outcome}, expected: "):
        Outcomes(EXPECTED).record(way, engine, outcome)


def test_an_update_keeps_outcomes_that_were_not_run() -> None:
    outcomes = Outcomes(EXPECTED, updating=True)
    outcomes.record("`_search`", "e8", "bypassed;reason=sort")
    outcomes.record("`_msearch`", "e9", "reranked")
    assert outcomes.together() == {
        "`_msearch`": {"e9": "reranked"},
        "`_search`": {"e8": "bypassed;reason=sort", "e9": "reranked"},
    }
