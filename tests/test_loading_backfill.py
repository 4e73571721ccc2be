"""Which vectors are current, what was written since, and how fast it is done again."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.vectors import passage_hash
from proxy.commands.loading.backfill import HAS_VECTOR, Filled, Judged, Marks, Pace, Stretch, judge, since
from proxy.commands.loading.mappings import Embedding
from proxy.commands.loading.passages import passage_of

EMBEDDING = Embedding("v", "m", 3, ("title", "reviews.text"))
HASH = passage_hash("a\nb", "m", 3)
DOCUMENT = {"title": "a", "reviews": [{"text": "b"}]}


@pytest.mark.parametrize(
    ("source", "current", "has_text"),
    [
        (DOCUMENT | {"v_hash": HASH}, True, True),
        (DOCUMENT, False, True),
        (DOCUMENT | {"v_hash": passage_hash("a", "m", 3)}, False, True),
        (DOCUMENT | {"v_hash": passage_hash("a\nb", "other", 3)}, False, True),
        (DOCUMENT | {"v_hash": passage_hash("a\nb", "m", 4)}, False, True),
        (DOCUMENT | {"v_hash": None}, False, True),
        ({"title": "a", "v_hash": HASH}, False, True),
        ({"title": " "}, True, False),
        ({}, True, False),
        ({"v_hash": None}, True, False),
        ({"v_hash": HASH}, False, False),
    ],
)
def test_a_vector_is_current_if_text_model_and_length_are_unchanged(
    source: Mapping[str, Any],
    current: bool,  # noqa: FBT001
    has_text: bool,  # noqa: FBT001
) -> None:
    """A document without text should have no vector."""
    judged = judge({"_id": "1", "_source": source, "matched_queries": [HAS_VECTOR]}, EMBEDDING)
    assert (judged.current, judged.passage is not None) == (current, has_text)


@pytest.mark.parametrize(("source", "current"), [(DOCUMENT | {"v_hash": HASH}, False), ({"title": " "}, True)])
def test_a_hash_without_a_vector_is_not_current(source: Mapping[str, Any], current: bool) -> None:  # noqa: FBT001
    """If the mapping excludes the vector from `_source`, an update of a document loses it, but keeps the hash."""
    assert judge({"_id": "1", "_source": source}, EMBEDDING).current == current


def test_a_document_without_source_has_no_text() -> None:
    assert judge({"_id": "1"}, EMBEDDING) == Judged({"_id": "1"}, None, current=True)


def test_the_text_has_the_fields_in_order() -> None:
    passage = passage_of({"reviews": [{"text": "b"}, {"text": "c"}], "title": "a", "price": 1}, EMBEDDING)
    assert passage is not None
    assert (passage.text, passage.hash) == ("a\nb, c", passage_hash("a\nb, c", "m", 3))


A0, A1, B0, NEW_A0 = ("a", "u", "0"), ("a", "u", "1"), ("b", "w", "0"), ("a", "u2", "0")


@pytest.mark.parametrize(
    ("seen", "now", "stretches"),
    [
        ({}, {A0: 5, B0: -1}, [Stretch("a", "0", -1, 5)]),
        ({A0: 5}, {A0: 5}, []),
        ({A0: 5}, {A0: 7}, [Stretch("a", "0", 5, 7)]),
        ({A0: 5, A1: 3}, {A0: 7, A1: 3}, [Stretch("a", "0", 5, 7)]),
        ({A0: 5, B0: 100}, {A0: 7, B0: 101}, [Stretch("a", "0", 5, 7), Stretch("b", "0", 100, 101)]),
        ({A0: 5}, {A0: 5, B0: 9}, [Stretch("b", "0", -1, 9)]),
        ({A0: 5}, {B0: 9}, [Stretch("b", "0", -1, 9)]),
        ({A0: 5}, {NEW_A0: 9}, [Stretch("a", "0", -1, 9)]),
        ({A0: 5}, {A0: 5, A1: 0}, [Stretch("a", "1", -1, 0)]),
        ({}, {}, []),
    ],
)
def test_newer_operations_are_found_per_shard(seen: Marks, now: Marks, stretches: list[Stretch]) -> None:
    """A new index behind an alias, or one with the same name, is read from its start."""
    assert since(seen, now) == stretches


shards = st.sampled_from([A0, A1, B0, NEW_A0])


@given(st.dictionaries(shards, st.integers(-1, 9)), st.data())
def test_each_operation_is_processed_once(seen: dict[tuple[str, str, str], int], data: st.DataObject) -> None:
    now = {shard: data.draw(st.integers(seen.get(shard, -1), 20)) for shard in (A0, A1, B0)}
    found = [
        (stretch.index, stretch.shard, number)
        for stretch in since(seen, now)
        for number in range(stretch.after + 1, stretch.last + 1)
    ]
    assert sorted(found) == sorted(
        (shard[0], shard[2], number)
        for shard, mark in now.items()
        for number in range(seen.get(shard, -1) + 1, mark + 1)
    )


@pytest.mark.parametrize(
    ("rate", "sizes"), [(None, [64, 36]), (1000.0, [64, 36]), (30.0, [30, 30, 30, 10]), (0.5, [1] * 100)]
)
def test_a_batch_is_no_larger_than_the_rate_per_second(rate: float | None, sizes: list[int]) -> None:
    documents = [Judged({"_id": str(number)}, None, current=False) for number in range(100)]
    parts = list(Pace(rate).parts(documents))
    assert [len(part) for part in parts] == sizes
    assert [document for part in parts for document in part] == documents


@pytest.mark.parametrize(
    ("filled", "share"),
    [
        (Filled(), 1.0),
        (Filled(seen=4, current=1), 0.25),
        (Filled(seen=4, current=1, without_text=2), 0.5),
        (Filled(seen=2, without_text=2), 1.0),
    ],
)
def test_the_progress_counts_only_documents_with_text(filled: Filled, share: float) -> None:
    assert filled.share == share
