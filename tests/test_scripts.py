"""Which scripts of a query read the score of its words."""

from typing import Any

import pytest

from proxy.parsing.scripts import functions_ignore_score, ignores_score


@pytest.mark.parametrize(
    ("script", "ignores"),
    [
        ("_score * 2", False),
        ({"source": "Math.log(1 + _score)"}, False),
        ({"inline": "doc['sold'].value + _score"}, False),
        ({"id": "stored"}, False),
        (None, False),
        ({"source": "doc['sold'].value"}, True),
        ({"source": "doc['popularity_score'].value + params._score"}, True),
        ({"source": "doc['_score'].value + doc[\"_score\"].value"}, True),
        ({"source": "knn_score", "lang": "knn"}, True),
    ],
)
def test_a_script_reads_the_score_by_the_variable_alone(script: Any, ignores: bool) -> None:  # noqa: FBT001
    assert ignores_score(script) is ignores


def test_functions_ignore_the_score_if_none_of_their_scripts_reads_it() -> None:
    reads, ignores = ({"script_score": {"script": source}} for source in ("_score", "doc['sold'].value"))
    assert functions_ignore_score({"functions": [ignores, {"weight": 2}]})
    assert not functions_ignore_score({"functions": [ignores, reads]})
    assert not functions_ignore_score(reads)
