"""JSON as it was written: exactly one member cut out or added, some set, or all of it indented as the engine does."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.parsing.json_text import (
    compacted,
    indented,
    items_of,
    members_of,
    read,
    take_member,
    whole,
    with_member,
    with_members_set,
)
from tests import strategies
from tests.test_turns import TIMES_JSON, json_seconds

PATH = ("ext", "rerank_proxy")


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b'{"ext":{"rerank_proxy":{"a":[1,{"b":"}"}]}}}', b'{"ext":{}}'),
        (b'{"ext":{"rerank_proxy":1,"o":2}}', b'{"ext":{"o":2}}'),
        (b'{"ext":{"o":2,"rerank_proxy":1}}', b'{"ext":{"o":2}}'),
        (b'{"ext":{"o":2,"rerank_proxy":1,"p":3}}', b'{"ext":{"o":2,"p":3}}'),
        (b'{ "ext" : { "o" : 2 , "rerank_proxy" : 1 , "p" : 3 } }', b'{ "ext" : { "o" : 2 , "p" : 3 } }'),
        (b'{ "ext" : { "o" : 2 ,\n "rerank_proxy" : 1\n } }', b'{ "ext" : { "o" : 2\n } }'),
        (b'\n{"size":1e1,"ext":{"rerank_proxy":1},"a":"\\u00e4"}\r\n', b'\n{"size":1e1,"ext":{},"a":"\\u00e4"}\r\n'),
        ('{"ä":"ö","ext":{"rerank_proxy":"ü","x":"ß"}}'.encode(), '{"ä":"ö","ext":{"x":"ß"}}'.encode()),
        (
            b'{"query":{"ext":{"rerank_proxy":1}},"ext":{"rerank_proxy":2}}',
            b'{"query":{"ext":{"rerank_proxy":1}},"ext":{}}',
        ),
        (b'{"ext":{"a":1},"ext":{"rerank_proxy":2}}', b'{"ext":{"a":1},"ext":{}}'),
    ],
)
def test_one_member_is_cut_and_every_other_byte_stays(body: bytes, left: bytes) -> None:
    assert left == take_member(body, PATH)[0]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"ext":1}', b'{"ext":{}}', b'{"ext":{"a":1}}', b'{"rerank_proxy":1}']
)
def test_a_member_that_is_not_there_cannot_be_cut(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected|no member|Expecting"):
        take_member(body, PATH)


LARGE = 2_000_000
VALUES: Mapping[str, bytes] = {
    "nested": b'{"q":[' + b"[[[]]]," * (LARGE // 7) + b'0],"ext":{"rerank_proxy":1}}',
    "members": b"{" + b"".join(b'"a%d":1,' % number for number in range(LARGE // 10)) + b'"ext":{"rerank_proxy":1}}',
    "equal names": b"{" + b'"a":1,' * (LARGE // 6) + b'"ext":{"rerank_proxy":1}}',
    "nested, equal names": b'{"q":[' + b"[[[]]]," * (LARGE // 7) + b'0],"q":1,"ext":{"rerank_proxy":1}}',
    "nested, unpaired surrogate": b'{"q":["\\ud800",' + b"[[[]]]," * (LARGE // 7) + b'0],"ext":{"rerank_proxy":1}}',
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("edit", [lambda body: take_member(body, PATH), lambda body: with_members_set(body, {"a": 1})])
def test_an_edit_costs_little_whatever_the_values(name: str, edit: Callable[[bytes], object]) -> None:
    """Collections of garbage included, which what is decoded causes."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        with suppress(ValueError):
            edit(VALUES[name])
        times.append(time.thread_time() - began)
    assert min(times) < 2 * TIMES_JSON * json_seconds(LARGE)


def test_a_name_that_occurs_twice_is_found_like_others() -> None:
    body = b'{"a":1,"ext":{"x":1,"rerank_proxy":12,"x":2},"a":12}'
    assert (b'{"a":1,"ext":{"x":1,"x":2},"a":12}', b"12") == take_member(body, PATH)
    assert b'{      "ext":{"x":1,"rerank_proxy":12,"x":2},      "a":3}' == with_members_set(body, {"a": 3})


objects = st.dictionaries(st.text(), strategies.json_values, max_size=5)
spaces = st.sampled_from([None, 1, "\t"])


@given(objects, objects, spaces)
def test_with_the_last_member_goes_what_then_has_none(
    outer: Mapping[str, Any], inner: Mapping[str, Any], space: Any
) -> None:
    others = {name: value for name, value in inner.items() if name != "x"}
    body = json.dumps({**outer, "ext": {**inner, "x": 1}}, indent=space).encode()
    left = {name: value for name, value in outer.items() if name != "ext"} | ({"ext": others} if others else {})
    rest, taken = take_member(body, ("ext", "x"), prune=True)
    assert (left, b"1") == (json.loads(rest), taken)


@given(objects, objects, st.text(), strategies.json_values, st.integers(0, 5), spaces, st.booleans())
def test_cutting_leaves_what_was_there_before(
    outer: Mapping[str, Any],
    inner: Mapping[str, Any],
    name: str,
    value: Any,
    place: int,
    space: Any,
    escaped: bool,  # noqa: FBT001
) -> None:
    assume(name not in inner)
    members = list(inner.items())
    members.insert(place, (name, value))
    body = json.dumps({**outer, "ext": dict(members)}, indent=space, ensure_ascii=escaped)
    rest, taken = take_member(body.encode(), ("ext", name))
    left = json.loads(rest)
    assert ({**outer, "ext": inner}, list(inner), value) == (left, list(left["ext"]), json.loads(taken))


@given(st.dictionaries(st.text(), strategies.json_values, min_size=1, max_size=4), strategies.json_values)
def test_a_member_is_added_last_and_cut_again(members: Mapping[str, Any], value: Any) -> None:
    assume("status" not in members)
    body = strategies.compact(members)
    added = with_member(body, "status", strategies.compact(value))
    assert strategies.compact({**members, "status": value}) == added
    assert (body, strategies.compact(value)) == take_member(added, ("status",))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", b'{"a":1}'),
        (b"{ \n}\n", b'{ \n"a":1}\n'),
        (b'{"a":0}', b'{     "a":1}'),
        (b'{"b":1.50}', b'{"b":1.50,"a":1}'),
        (b'{"b":1.50 , "a":0 }', b'{"b":1.50 ,      "a":1 }'),
        (b'{"a":0, "b":1.50}', b'{       "b":1.50,"a":1}'),
        (b'{"a":\r\n0,"b":1}', b'{    \r\n  "b":1,"a":1}'),
        ('{"a":"ü","b":1}'.encode(), b'{         "b":1,"a":1}'),
    ],
)
def test_a_member_is_set_at_the_end_and_the_others_keep_their_place(body: bytes, expected: bytes) -> None:
    assert expected == with_members_set(body, {"a": 1})


@given(objects, objects, spaces, st.booleans())
def test_set_members_are_appended_and_their_old_text_is_blank(
    before: Mapping[str, Any],
    members: Mapping[str, Any],
    space: Any,
    escaped: bool,  # noqa: FBT001
) -> None:
    assume(members)
    body = json.dumps(before, indent=space, ensure_ascii=escaped).encode()
    kept = {name: value for name, value in before.items() if name not in members}
    assert list({**kept, **members}.items()) == list(json.loads(with_members_set(body, members)).items())


@given(strategies.json_values, spaces)
def test_a_value_is_indented_as_the_engine_does(value: Any, space: Any) -> None:
    expected = strategies.pretty(value).encode()
    assert expected == indented(json.dumps(value, ensure_ascii=False, indent=space).encode())


@given(strategies.json_values, spaces, st.booleans())
def test_spaces_between_parts_are_taken_out(value: Any, space: Any, escaped: bool) -> None:  # noqa: FBT001
    written = json.dumps(value, ensure_ascii=escaped, indent=space)
    assert json.dumps(value, ensure_ascii=escaped, separators=(",", ":")).encode() == compacted(written.encode())


def test_numbers_and_strings_keep_their_bytes() -> None:
    assert b'{\n  "a" : 1e5,\n  "b" : [\n    0.1000,\n    "\\u00e4"\n  ]\n}' == indented(
        b'{"a":1e5,"b":[0.1000,"\\u00e4"]}'
    )


@given(st.lists(st.text(st.characters(categories=["Cs", "Ll"]) | st.sampled_from('"\\\0: {}'))), spaces)
def test_halves_of_characters_stay_where_they_are(value: Sequence[str], space: Any) -> None:
    written = json.dumps({name: [name] for name in value}, indent=space).encode()
    expected = json.dumps(json.loads(written), separators=(",", ":")).encode()
    assert (expected, json.loads(written)) == (compacted(written), json.loads(indented(written)))


@given(st.dictionaries(st.text('a\\":'), st.text('a\\": {}[],'), min_size=1))
def test_what_looks_like_a_name_in_a_text_is_none(value: Mapping[str, str]) -> None:
    assert strategies.pretty(value).encode() == indented(strategies.compact(value))


_torn = st.text(st.characters(categories=["Cs", "Ll"]) | st.sampled_from('"\\{}[],:bu\ufffe\U0010ffff\ud83d\n'))
_torn_values = st.recursive(
    _torn | st.integers() | st.just(1e308),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_torn, inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(_torn, _torn_values, max_size=3), spaces)
def test_an_object_with_halves_of_characters_in_it_is_taken_apart(value: Mapping[str, Any], space: Any) -> None:
    body = json.dumps(value, indent=space).encode()
    members = {name: json.loads(bytes(raw)) for name, raw in members_of(body).items()}
    assert {whole(name): member for name, member in json.loads(body).items()} == members
    assert json.loads(body) == read(body)


@given(st.dictionaries(_torn, _torn_values, max_size=3))
def test_what_is_taken_apart_keeps_its_bytes(value: Mapping[str, Any]) -> None:
    """Whatever of it is mended meanwhile: escaped backslashes, other escapes, a character that no text has."""
    members = {name: json.dumps(member).encode() for name, member in value.items()}
    body = b"{%s}" % b",".join(b"%s:%s" % (json.dumps(name).encode(), member) for name, member in members.items())
    assert list({whole(json.loads(json.dumps(name))): member for name, member in members.items()}.items()) == [
        (name, bytes(raw)) for name, raw in members_of(body).items()
    ]


@given(st.lists(_torn_values, max_size=4), spaces)
def test_an_array_with_halves_of_characters_in_it_is_taken_apart(value: Sequence[Any], space: Any) -> None:
    body = json.dumps(value, indent=space).encode()
    assert json.loads(body) == [json.loads(bytes(raw)) for raw in items_of(body)]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"7", rb'{"a":"\ud83d"', rb'["\ud83d"', rb'{"a":"\ud83d"}x', b'{"a":"\xff"']
)
def test_what_is_no_json_cannot_be_taken_apart(body: bytes) -> None:
    for reading in (members_of, items_of):
        with pytest.raises(ValueError, match=r"malformed|truncated|invalid|[Ee]xpect"):
            reading(body)


@pytest.mark.parametrize(
    ("text", "expected"), [("a\ud83d", "a?"), ("\ude00 b", "? b"), ("\U0001f600", "\U0001f600"), ("", "")]
)
def test_half_a_character_is_a_question_mark(text: str, expected: str) -> None:
    assert expected == whole(text)
