"""What makes a document one document, and orders over documents."""

import pytest
from hypothesis import given

from proxy.ranking.hits import DocKey, Ranking, Scored, keys
from tests import strategies


@pytest.mark.parametrize("other", [DocKey("j", "1"), DocKey("i", "2"), DocKey("i", "1", "r")])
def test_documents_are_distinguished_by_index_id_and_routing(other: DocKey) -> None:
    assert DocKey("i", "1") != other
    assert {DocKey("i", "1"), other, DocKey("i", "1", "")} == {DocKey("i", "1"), other}


@given(strategies.rankings())
def test_keys_are_in_the_order_of_the_ranking(ranking: Ranking) -> None:
    assert ranking == tuple(Scored(key, scored.score) for key, scored in zip(keys(ranking), ranking, strict=True))
