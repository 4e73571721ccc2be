"""The header that the proxy writes is read back as what was meant."""

import pytest

from proxy.commands.evaluation.outcomes import ReportedOutcome, read_cost, read_outcome
from proxy.errors import Failure
from proxy.outcomes import BYPASS_REASONS, Bypass, answered, bypassed


@pytest.mark.parametrize("reason", BYPASS_REASONS)
def test_each_bypass_reason_is_parsed(reason: str) -> None:
    outcome = read_outcome(bypassed(Bypass(reason, "ext;reason=no")).header.decode())
    assert ReportedOutcome("bypassed", reason) == outcome
    assert not outcome.is_reranked
    assert f"bypassed ({reason})" == str(outcome)


def test_degraded_stages_are_parsed() -> None:
    failed = [Failure("semantic", "timeout"), Failure("rerank", "refused")]
    degraded = read_outcome(answered(failed).header.decode())
    assert ReportedOutcome("degraded", "timeout", "semantic rerank") == degraded
    assert "degraded (without semantic rerank, timeout)" == str(degraded)
    whole = read_outcome(answered([]).header.decode())
    assert (True, "reranked") == (whole.is_reranked, str(whole))
    by_design = read_outcome(answered([Failure("semantic", "not_relaxed", by_design=True)]).header.decode())
    assert (True, "reranked (without semantic, not_relaxed)") == (by_design.is_reranked, str(by_design))


def test_a_cost_must_be_a_plain_number() -> None:
    assert (0.00012, 3.0) == (read_cost("0.000120000"), read_cost("3"))
    assert [None] * 6 == [read_cost(said) for said in ("", "-1", "nan", "inf", "1e9", "\u0661")]
