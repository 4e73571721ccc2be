"""How a hit came to its place: numbers, and of the text a hash and a length."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ranking.explaining import Explanation, Kept, Origin, text_hash


@pytest.mark.parametrize(
    ("explanation", "final", "expected"),
    [
        (Explanation(), None, {}),
        (Explanation(), 2.0, {"final": 2.0}),
        (Explanation(Origin(1, 3.5)), 0.5, {"lexical": {"rank": 1, "score": 3.5}, "final": 0.5}),
        (Explanation(rerank=0.5, tier="fast"), None, {"rerank": 0.5, "tier": "fast"}),
        (Explanation(kept=Kept(1, "identifier")), None, {"kept": {"rank": 1, "reason": "identifier"}}),
        (
            Explanation(Origin(2, 3.5), Origin(1, 0.9), 0.03, 0.0, "ab12", 7),
            1.5,
            {
                "lexical": {"rank": 2, "score": 3.5},
                "semantic": {"rank": 1, "score": 0.9},
                "fused": 0.03,
                "rerank": 0.0,
                "final": 1.5,
                "passage": {"sha256": "ab12", "characters": 7},
            },
        ),
    ],
)
def test_stages_that_did_not_see_a_hit_are_omitted(
    explanation: Explanation, final: float | None, expected: Any
) -> None:
    assert expected == json.loads(bytes(explanation.render(final)))


@given(st.text(), st.text())
def test_a_texts_hash_identifies_it_without_revealing_it(text: str, other: str) -> None:
    assert (text == other, 16) == (text_hash(text) == text_hash(other), len(text_hash(text)))
