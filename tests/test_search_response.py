"""The engine's answer opened and closed again: its bytes stay, but for order, scores and total."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Malformed
from proxy.parsing.filter_path import Form
from proxy.parsing.sort_values import Sort
from proxy.ranking.hits import DocKey
from proxy.ranking.search_response import (
    Page,
    SearchAnswer,
    Shown,
    Total,
    number,
    read_answer,
    render_answer,
    split,
    split_at_hits,
)
from tests import strategies


def indented(body: bytes) -> bytes:
    return Form(pretty=True).write(body, keeps_empty=True)


def as_it_was(answer: SearchAnswer) -> Page:
    return Page([Shown(hit) for hit in answer.hits], answer.total, None)


@given(strategies.answers())
def test_a_compact_response_in_unchanged_order_keeps_its_bytes(value: dict[str, Any]) -> None:
    body = strategies.compact(value)
    answer = read_answer(body)
    assert body == render_answer(answer, as_it_was(answer))


@given(strategies.answers())
def test_a_pretty_response_in_unchanged_order_keeps_its_bytes(value: dict[str, Any]) -> None:
    body = strategies.pretty(value).encode() + b"\n"
    answer = read_answer(body)
    assert body == indented(render_answer(answer, as_it_was(answer)))


MISLEADING = st.sampled_from(['"hits":[', "]}}", ']},"aggregations":{', "[", "]", "\\", '"', "\u2028"])
NAMES = st.sampled_from(["hits", "aggregations", "suggest", "_source", "a"])
MISLEADING_VALUES = st.recursive(
    st.none() | st.integers() | MISLEADING,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | MISLEADING, inner, max_size=3),
    max_leaves=12,
)


@st.composite
def misleading_bodies(draw: st.DrawFn) -> bytes:
    """Responses whose documents look like the end of a response, some of them damaged."""
    inner = draw(st.dictionaries(NAMES | MISLEADING, MISLEADING_VALUES, max_size=2))
    hits = draw(st.lists(st.dictionaries(NAMES, MISLEADING_VALUES, max_size=2) | MISLEADING_VALUES, max_size=3))
    outer = draw(st.dictionaries(NAMES, MISLEADING_VALUES, max_size=2))
    after = draw(st.dictionaries(NAMES, MISLEADING_VALUES, max_size=2))
    body = strategies.compact({**outer, "hits": {**inner, "hits": hits}, **after})
    place = draw(st.integers(0, len(body)))
    return (
        body[:place] + draw(st.sampled_from([b"", b"", b"", b"[", b"]", b"}", b'"', b",", b'"hits":['])) + body[place:]
    )


def plain(members: Any) -> list[tuple[str, bytes]]:
    return [(name, bytes(value)) for name, value in members.items()]


def parts(found: Any) -> Any:
    """Of the member `hits`, only its own members are read."""
    members, of_hits, hits = found
    rest = [(name, value) if name != "hits" else (name, b"") for name, value in plain(members)]
    return rest, plain(of_hits), [plain(hit) for hit in hits]


@given(misleading_bodies())
def test_a_response_split_at_its_hits_has_the_same_parts(body: bytes) -> None:
    found = split_at_hits(body)
    if found is not None:
        assert parts(split(body)) == parts(found)


@pytest.mark.parametrize(
    "body", [b'{"hits":{"x":[{"_id":"1"}]}}', b'{"hits":{"hits":{"x":[{}]}}}', b'{"hits":[]}', b'{"hits":{"hits":1}}']
)
def test_another_array_is_not_taken_for_the_hits(body: bytes) -> None:
    assert split_at_hits(body) is None


@pytest.mark.parametrize("after", [b"}}", b'},"aggregations":{"a":{"hits":{"hits":[{"_source":{"x":[1]}}]}}}}'])
def test_a_response_as_engines_write_it_is_split_at_its_hits(after: bytes) -> None:
    hits = b'[{"_id":"1","_source":{"hits":[{"a":[]}]}},{"_id":"2"}]'
    body = b'{"took":1,"_shards":{"failed":0},"hits":{"total":{"value":2},"max_score":1,"hits":' + hits + after
    assert parts(split(body)) == parts(split_at_hits(body))


# Written by Elasticsearch 8.19.13 for `?pretty`.
PRETTY = b"""{
  "took" : 0,
  "timed_out" : false,
  "_shards" : {
    "total" : 1,
    "successful" : 1,
    "skipped" : 0,
    "failed" : 0
  },
  "hits" : {
    "total" : {
      "value" : 2,
      "relation" : "eq"
    },
    "max_score" : 1.5,
    "hits" : [
      {
        "_index" : "i",
        "_id" : "1",
        "_score" : 1.5,
        "_source" : {
          "t" : [ ]
        }
      },
      {
        "_index" : "i",
        "_id" : "2",
        "_score" : 1.0
      }
    ]
  }
}
"""


def test_a_reordered_pretty_response_is_indented_like_the_engines() -> None:
    answer = read_answer(PRETTY)
    one, two = answer.hits
    page = Page([Shown(two, 2.0), Shown(one, 1.25)], Total(3), 2.0)
    swapped = PRETTY.replace(b'"value" : 2', b'"value" : 3').replace(b'"max_score" : 1.5', b'"max_score" : 2.0')
    first = swapped[swapped.index(b"      {\n") : swapped.index(b",\n      {\n")]
    second = swapped[swapped.index(b",\n      {\n") + 2 : swapped.index(b"\n    ]\n  }\n}")]
    expected = swapped.replace(
        first + b",\n" + second, second.replace(b"1.0", b"2.0") + b",\n" + first.replace(b"1.5", b"1.25")
    )
    assert expected == indented(render_answer(answer, page))


def test_an_empty_pretty_page_is_written_like_the_engines() -> None:
    assert b'"hits" : [ ]\n  }\n}\n' in indented(render_answer(read_answer(PRETTY), Page([], None, None)))


@given(strategies.answers(), st.randoms(use_true_random=False))
def test_reordering_keeps_the_members_of_each_document(value: dict[str, Any], random: Any) -> None:
    answer = read_answer(strategies.compact(value))
    order = [Shown(hit, 1.5) for hit in answer.hits]
    random.shuffle(order)
    shown = read_answer(render_answer(answer, Page(order, answer.total, 2.0)))
    assert [one.hit.key for one in order] == [hit.key for hit in shown.hits]
    for hit in shown.hits:
        assert answer.by_key[hit.key].members | {"_score": msgspec.Raw(b"1.5")} == hit.members
    assert answer.members.keys() == shown.members.keys()
    assert all(answer.members[name] == shown.members[name] for name in answer.members if name != "hits")


def answer(hits: str = "[]", rest: str = "", **members: str) -> SearchAnswer:
    more = "".join(f',"{name}":{value}' for name, value in members.items())
    return read_answer(f'{{"hits":{{{rest}"hits":{hits}}}{more}}}'.encode())


def test_a_hit_is_identified_by_index_id_and_routing() -> None:
    found = answer('[{"_index":"i","_id":"1","_routing":"r","_score":0.5,"_source":{}},{"_index":"i","_id":"2"}]')
    assert (DocKey("i", "1", "r"), DocKey("i", "2")) == tuple(hit.key for hit in found.hits)
    assert (0.5, 0.0) == tuple(hit.score for hit in found.hits)
    assert found.hits == tuple(found.by_key.values())


@pytest.mark.parametrize(
    ("rest", "total", "is_number"),
    [
        ("", None, False),
        ('"total":3,', Total(3), True),
        ('"total":-1,', None, True),  # `rest_total_hits_as_int` where nothing is counted
        ('"total":{"value":3,"relation":"gte"},', Total(3, "gte"), False),
    ],
)
def test_the_three_forms_of_a_total_are_read(rest: str, total: Total | None, is_number: bool) -> None:  # noqa: FBT001
    found = answer(rest=rest)
    assert (total, is_number) == (found.total, found.total_is_number)


@pytest.mark.parametrize(
    ("rest", "more", "expected"),
    [
        ("", 0, b'{"hits":{"hits":[]}}'),
        ('"total":3,', 2, b'{"hits":{"total":5,"hits":[]}}'),
        ('"total":-1,', 2, b'{"hits":{"total":-1,"hits":[]}}'),
        ('"total":{ "value":3,"relation":"eq"},', 0, b'{"hits":{"total":{ "value":3,"relation":"eq"},"hits":[]}}'),
        ('"total":{"value":3,"relation":"gte"},', 1, b'{"hits":{"total":{"value":3,"relation":"gte"},"hits":[]}}'),
    ],
)
def test_a_total_keeps_its_form_and_relation(rest: str, more: int, expected: bytes) -> None:
    found = answer(rest=rest)
    total = found.total.plus(more, most=True) if found.total else None
    assert expected == render_answer(found, Page([], total, None))


@pytest.mark.parametrize(
    ("total", "most", "expected"),
    [
        (Total(171), True, Total(181)),
        (Total(171), 10_000, Total(181)),
        (Total(171), 181, Total(181)),
        (Total(171), 180, Total(180, "gte")),
        (Total(10_000, "gte"), 10_000, Total(10_000, "gte")),
    ],
)
def test_added_documents_are_counted_up_to_the_engines_limit(total: Total, most: bool | int, expected: Total) -> None:  # noqa: FBT001
    """Seen for `bool.should` of both on Elasticsearch 8.19.13 and 9.4.3 and OpenSearch 2.19.1."""
    assert expected == total.plus(10, most=most)


def test_counted_aggregations_replace_the_clients_own_in_place() -> None:
    found = read_answer(b'{"hits":{"hits":[]},"aggregations":{"b":{"value":1.0},"a":{"value": 2}},"status":200}')
    page = Page([], None, None, {"b": msgspec.Raw(b'{"value":1.50}')})
    expected = b'{"hits":{"hits":[]},"aggregations":{"b":{"value":1.50},"a":{"value": 2}},"status":200}'
    assert expected == render_answer(found, page)
    assert b'{"hits":{"hits":[]}}' == render_answer(answer(), page)


def test_a_missing_total_is_not_added() -> None:
    assert b'{"hits":{"hits":[]}}' == render_answer(answer(), Page([], Total(3), 2.0))


@pytest.mark.parametrize(
    ("rest", "max_score", "expected"),
    [
        ('"max_score":1.5,', 2.0, b'{"hits":{"max_score":2.0,"hits":[]}}'),
        ('"max_score":1.50,', None, b'{"hits":{"max_score":1.50,"hits":[]}}'),
        ('"max_score":null,', None, b'{"hits":{"max_score":null,"hits":[]}}'),
        ("", 2.0, b'{"hits":{"hits":[]}}'),
    ],
)
def test_max_score_is_rewritten_if_present(rest: str, max_score: float | None, expected: bytes) -> None:
    assert expected == render_answer(answer(rest=rest), Page([], None, max_score))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, True),
        ({"timed_out": "false", "_shards": '{"failed":0}', "terminated_early": "false"}, True),
        ({"timed_out": "true"}, False),
        ({"terminated_early": "true"}, False),
        ({"_shards": '{"total":2,"failed":1}'}, False),
        ({"_shards": '{"total":3,"successful":3,"skipped":2,"failed":0}'}, True),
        ({"_shards": '{"total":3,"successful":2,"skipped":0,"failed":0}'}, False),  # OpenSearch 2.19.1, an index is red
    ],
)
def test_a_response_is_complete_if_all_shards_responded_in_time(members: dict[str, str], expected: bool) -> None:  # noqa: FBT001
    assert expected is answer(**members).whole


def failed(*kinds: str) -> dict[str, str]:
    failures = [{"shard": 0, "index": "i", "node": None, "reason": {"type": kind, "reason": None}} for kind in kinds]
    return {
        "_shards": json.dumps({"total": 9, "successful": 9 - len(kinds), "failed": len(kinds), "failures": failures})
    }


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, False),
        ({"_shards": '{"total":3,"successful":2,"skipped":0,"failed":0}'}, True),
        (failed("no_shard_available_action_exception"), True),
        (failed("node_not_connected_exception", "node_disconnected_exception"), True),
        (failed("search_context_missing_nodes_exception"), True),
        (failed("node_not_connected_exception", "script_exception"), False),
        (failed("circuit_breaking_exception"), False),
        ({"timed_out": "true"}, True),
        (failed("no_shard_available_action_exception") | {"timed_out": "true"}, True),
        (failed("circuit_breaking_exception") | {"timed_out": "true"}, False),
        ({"terminated_early": "true"}, False),
        ({"_shards": '{"total":2,"successful":1,"failed":1}'}, False),
        ({"_shards": '{"total":2,"successful":1,"failed":1,"failures":[{"reason":null}]}'}, False),
    ],
)
def test_a_partial_response_is_final_after_its_timeout_or_if_nodes_are_gone(
    members: dict[str, str],
    expected: bool,  # noqa: FBT001
) -> None:
    """Other failures may come of the wider search; the client's own may have none."""
    assert expected is answer(**members).is_final


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (answer(rest='"total":0,'), True),
        (answer(), True),
        (answer(rest='"total":3,'), False),
        (answer(rest='"max_score":0.5,'), False),
        (answer(rest='"total":{"value":0,"relation":"gte"},"max_score":0.5,'), False),
        (answer('[{"_index":"i","_id":"1"}]'), False),
    ],
)
def test_a_response_without_hits_and_total_found_nothing(found: SearchAnswer, expected: bool) -> None:  # noqa: FBT001
    assert expected is found.found_nothing


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"hits":[]}',
        b'{"hits":{}}',
        b'{"hits":{"hits":{}}}',
        b'{"hits":{"hits":[7]}}',
        b'{"hits":{"hits":[{"_index":"i"}]}}',
        b'{"hits":{"hits":[{"_index":"i","_id":"1","_score":"x"}]}}',
        b'{"hits":{"hits":[],"total":"x"}}',
        b'{"hits":{"hits":[],"max_score":"x"}}',
        b'{"hits":{"hits":[]},"timed_out":"x"}',
        b'{"hits":{"hits":[]},"\xff":1}',
        b'{"hits":{"hits":[{"_index":"i","_id":"\xff"}]}}',
    ],
)
def test_an_unexpected_response_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed, match="engine: not the answer of a search"):
        read_answer(body)


@given(st.binary())
def test_any_bytes_are_parsed_or_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_answer(body)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (2.0, b"2.0"),
        (1.0, b"1.0"),
        (0.0, b"0.0"),
        (1 / 3, b"0.3333333"),
        (1.99999999, b"2.0"),
        (12345.678, b"12345.68"),
    ],
)
def test_a_score_has_at_most_seven_digits(score: float, expected: bytes) -> None:
    assert expected == bytes(number(score))


@given(st.floats(0, 1e30), st.floats(0, 1e30))
def test_written_scores_keep_their_order(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert float(bytes(number(low))) <= float(bytes(number(high)))


def shown_with_values(rest: str = "") -> dict[str, Any]:
    """An answer whose one hit is shown with another score and sort value."""
    hit = '{"_index":"i","_id":"a","_score":3.5,"sort":["x",3.5,7]}'
    answer = read_answer(f'{{"hits":{{"hits":[{hit}]{rest}}}}}'.encode())
    page = Page([Shown(answer.hits[0], 2.0, value=1.9989999999999999)], None, 2.0)
    rendered = render_answer(answer, page, Sort((1,)), frozenset({"_id"}))
    written: dict[str, Any] = json.loads(rendered)["hits"]
    return written


def test_the_score_and_its_sort_value_are_one_number_and_hidden_members_removed() -> None:
    (hit,) = shown_with_values()["hits"]
    assert {"_index": "i", "_score": 1.9989999999999999, "sort": ["x", 1.9989999999999999, 7]} == hit


@pytest.mark.parametrize(("rest", "best"), [(',"max_score":null', None), (',"max_score":3.5', 1.9989999999999999)])
def test_max_score_stays_null_beside_sort_values(rest: str, best: float | None) -> None:
    assert best == shown_with_values(rest)["max_score"]


def test_the_index_of_hits_is_computed_once() -> None:
    """Each document of a large page is looked up in it."""
    answer = read_answer(b'{"hits":{"hits":[{"_index":"i","_id":"a"},{"_index":"i","_id":"b"}]}}')
    assert list(answer.hits) == list(answer.by_key.values())
    assert answer.by_key is answer.by_key
